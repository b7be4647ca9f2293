// sum[g] += Σ of a group, in the order of formats/summation.hpp: lanes, chunks, and the chunks of a group in turn.
//
// Small groups are cut between threads whole, large ones by chunks. Where neighbours in memory belong to neighbouring
// groups (columns), a tile of groups is summed together, row by row: on one thread, however long they are, so up to
// sum_tile long columns keep one thread busy. Cut by chunks they would need chunks times tile sums, and kernels do not
// allocate.
#pragma once

#include <cassert>

#include "mixbit/formats/summation.hpp"
#include "mixbit/reference/scalar/flags.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

inline constexpr std::int64_t sum_tile = 256;  // groups of one tile: 64 KiB of lanes

/// The elements of one group, numbered in memory order.
class group_box {
 public:
  group_box(geometry const& x, partition const& groups, std::array<int, max_rank> const& order, std::int64_t group) {
    extents at{};
    for (int a = groups.rank - 1; a >= 0; --a) {
      at[a] = group % groups.groups[a];
      group /= groups.groups[a];
    }
    for (int k = 0; k < groups.rank; ++k) {
      int const a = order[k];
      std::int64_t const first = at[a] * groups.block[a], size = std::min(groups.block[a], x.shape[a] - first);
      offset_ += first * x.stride[a];
      size_ *= size;
      if (size != 1) append(size, x.stride[a]);
    }
    if (rank_ == 0) append(1, 1);
  }
  std::int64_t size() const { return size_; }
  std::int64_t stride() const { return stride_[rank_ - 1]; }

  /// Calls f(offset, length) for rows of the innermost axis that hold the elements from `first` to `last`, in order.
  template <class F>
  void rows(std::int64_t first, std::int64_t last, F&& f) const {
    std::int64_t const width = shape_[rank_ - 1];
    while (first < last) {
      std::int64_t offset = offset_, rest = first;
      for (int a = rank_ - 1; a >= 0; --a) {
        offset += rest % shape_[a] * stride_[a];
        rest /= shape_[a];
      }
      std::int64_t const length = std::min(width - first % width, last - first);
      f(offset, length);
      first += length;
    }
  }

 private:
  /// One axis more, or a longer last one where memory continues.
  void append(std::int64_t size, std::int64_t stride) {
    if (rank_ > 0 && stride_[rank_ - 1] == size * stride) {
      shape_[rank_ - 1] *= size;
      stride_[rank_ - 1] = stride;
    } else {
      shape_[rank_] = size;
      stride_[rank_++] = stride;
    }
  }
  extents shape_{}, stride_{};
  int rank_ = 0;
  std::int64_t offset_ = 0, size_ = 1;
};

/// Axes by falling |stride|, of equal ones the first first.
inline std::array<int, max_rank> memory_order(geometry const& x) {
  std::array<int, max_rank> order{};
  auto const distance = [&](int axis) { return x.stride[axis] < 0 ? -x.stride[axis] : x.stride[axis]; };
  for (int a = 0; a < x.rank; ++a) {
    int place = a;
    for (; place > 0 && distance(order[place - 1]) < distance(a); --place) order[place] = order[place - 1];
    order[place] = a;
  }
  return order;
}

/// Adds rows to the lanes of a chunk.
struct lane_rows {
  /// Element k of the row is element first + k of its group. Returns how many were left out.
  template <sum_of What, class T>
  static std::int64_t add(double* lanes, std::int64_t first, T const* x, std::int64_t stride, std::int64_t n) {
    std::int64_t strange = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      float const v = to_float(x[k * stride]);
      bool const finite = fp::is_finite(v);
      lanes[(first + k) % formats::sum_lanes] += formats::sum_term(What, finite ? v : 0.0f);
      strange += !finite;
    }
    return strange;
  }

  /// Element c of the row is added to lane[c]: neighbours belong to neighbouring groups.
  template <sum_of What, class T>
  static std::int64_t add_columns(double* lane, T const* row, std::int64_t step, std::int64_t width) {
    std::int64_t strange = 0;
    for (std::int64_t c = 0; c < width; ++c) {
      float const v = to_float(row[c * step]);
      bool const finite = fp::is_finite(v);
      lane[c] += formats::sum_term(What, finite ? v : 0.0f);
      strange += !finite;
    }
    return strange;
  }
};

inline double total_of(double const* lanes, std::int64_t apart = 1) {
  double total = 0;
  for (std::int64_t k = 0; k < formats::sum_lanes; ++k) total += lanes[k * apart];
  return total;
}

/// One call of the kernel: x as T, a Rows to add them by, the sum of What.
template <sum_of What, class T, class Rows>
class summation {
 public:
  explicit summation(sum_args const& a) : a_{a}, x_{a.x.as<T>()}, order_{memory_order(a.x)} {
    for (int k = 0; k < a.x.rank; ++k)
      if (a.x.shape[order_[k]] > 1) inner_ = order_[k];
  }

  void run(executor_ref const& threads) const {
    std::int64_t const count = a_.groups.group_count();
    std::int64_t const largest = std::max<std::int64_t>(1, box_of(0).size());
    if (inner_ >= 0 && a_.groups.block[inner_] == 1) {
      std::int64_t const width = a_.groups.groups[inner_], tiles = (width + sum_tile - 1) / sum_tile;
      in_batches(threads, count / width * tiles, largest * sum_tile,
                 [&](std::int64_t t) { columns(t / tiles, t % tiles * sum_tile); });
    } else if (largest > piece_elements) {
      for (std::int64_t g = 0; g < count; ++g) large_group(threads, g);
    } else {
      in_batches(threads, count, largest, [&](std::int64_t g) {
        group_box const box = box_of(g);
        std::int64_t const length = formats::sum_chunk_length(box.size());
        double total = 0;
        for (std::int64_t first = 0; first < box.size(); first += length) total += chunk(box, first, length);
        a_.sum[g] += total;
      });
    }
  }

 private:
  group_box box_of(std::int64_t group) const { return {a_.x, a_.groups, order_, group}; }

  template <class F>
  static void in_batches(executor_ref const& threads, std::int64_t n, std::int64_t elements, F&& f) {
    std::int64_t const batch = std::max<std::int64_t>(1, piece_elements / elements);
    for_pieces(threads, (n + batch - 1) / batch, [&](std::int64_t piece) {
      for (std::int64_t i = piece * batch; i < std::min(n, (piece + 1) * batch); ++i) f(i);
    });
  }

  double chunk(group_box const& box, std::int64_t first, std::int64_t length) const {
    double lanes[formats::sum_lanes] = {};
    std::int64_t at = 0, strange = 0;
    box.rows(first, std::min(first + length, box.size()), [&](std::int64_t offset, std::int64_t n) {
      strange += Rows::template add<What>(lanes, at, x_ + offset, box.stride(), n);
      at += n;
    });
    note(strange);
    return total_of(lanes);
  }

  void large_group(executor_ref const& threads, std::int64_t g) const {
    group_box const box = box_of(g);
    std::int64_t const length = formats::sum_chunk_length(box.size());
    double partial[formats::most_sum_chunks];
    std::int64_t const chunks = (box.size() + length - 1) / length;
    for_pieces(threads, chunks, [&](std::int64_t c) { partial[c] = chunk(box, c * length, length); });
    double total = 0;
    for (std::int64_t c = 0; c < chunks; ++c) total += partial[c];
    a_.sum[g] += total;
  }

  /// The group that is `outer` among those with index 0 along the innermost axis, and how far its neighbours are.
  std::pair<std::int64_t, std::int64_t> column_group(std::int64_t outer) const {
    std::int64_t group = 0, step = 1, apart = 1;
    for (int a = a_.groups.rank - 1; a >= 0; --a) {
      if (a == inner_) {
        apart = step;
      } else {
        group += outer % a_.groups.groups[a] * step;
        outer /= a_.groups.groups[a];
      }
      step *= a_.groups.groups[a];
    }
    return {group, apart};
  }

  /// The groups from index `first` on along the innermost axis: up to sum_tile of them, element by element.
  void columns(std::int64_t outer, std::int64_t first) const {
    auto const [group, apart] = column_group(outer);
    std::int64_t const width = std::min(sum_tile, a_.groups.groups[inner_] - first), step = a_.x.stride[inner_];
    group_box const box = box_of(group + first * apart);
    std::int64_t const length = formats::sum_chunk_length(box.size());
    double lanes[formats::sum_lanes * sum_tile], totals[sum_tile] = {};
    std::int64_t strange = 0;
    for (std::int64_t begin = 0; begin < box.size(); begin += length) {
      std::fill_n(lanes, formats::sum_lanes * sum_tile, 0.0);
      std::int64_t at = 0;
      box.rows(begin, std::min(begin + length, box.size()), [&](std::int64_t offset, std::int64_t n) {
        for (std::int64_t k = 0; k < n; ++k, ++at) {
          T const* const row = x_ + offset + k * box.stride();
          strange += Rows::template add_columns<What>(lanes + at % formats::sum_lanes * sum_tile, row, step, width);
        }
      });
      for (std::int64_t c = 0; c < width; ++c) totals[c] += total_of(lanes + c, sum_tile);
    }
    for (std::int64_t c = 0; c < width; ++c) a_.sum[group + (first + c) * apart] += totals[c];
    note(strange);
  }

  void note(std::int64_t strange) const {
    if (a_.flags) add_flag(a_.flags->nonfinite, static_cast<std::uint64_t>(strange));
  }

  sum_args const& a_;
  T const* x_;
  std::array<int, max_rank> order_;
  int inner_ = -1;
};

/// The kernel over any way to add rows.
template <class Rows>
void sum_by(executor_ref const& threads, sum_args const& a) {
  if (a.x.size() == 0) return;
  visit_compute(a.x.type, [&]<class T>(T) {
    switch (a.what) {
      case sum_of::magnitudes: return summation<sum_of::magnitudes, T, Rows>{a}.run(threads);
      case sum_of::squares: return summation<sum_of::squares, T, Rows>{a}.run(threads);
      default: return summation<sum_of::values, T, Rows>{a}.run(threads);
    }
  });
}

inline void sum(executor_ref const& threads, sum_args const& a) { sum_by<lane_rows>(threads, a); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
