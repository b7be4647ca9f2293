// sum[g] += Σ of a group, in the order of formats/summation.hpp. A warp sums a chunk: its lanes are the order's lanes.
// Chunks go to different warps where there is scratch memory for their sums, else a warp takes those of a group in
// turn.
#pragma once

#include "mixbit/cuda/kernels/context.hpp"
#include "mixbit/cuda/divider.hpp"
#include "mixbit/formats/summation.hpp"

namespace mixbit::cuda {

/// The elements of one group, numbered in memory order.
struct group_box {
  std::int64_t shape[max_rank]{}, stride[max_rank]{};
  int rank = 0;
  std::int64_t offset = 0, size = 1;

  /// One axis more, or a longer last one where memory continues.
  MIXBIT_HD void append(std::int64_t n, std::int64_t step) {
    size *= n;
    if (n == 1) return;
    if (rank > 0 && stride[rank - 1] == n * step) {
      shape[rank - 1] *= n;
      stride[rank - 1] = step;
      return;
    }
    shape[rank] = n;
    stride[rank++] = step;
  }
  /// Where a row of the innermost axis starts.
  MIXBIT_HD std::int64_t row_offset(std::int64_t row) const {
    std::int64_t start = offset;
    for (int a = rank - 2; a >= 0; --a) {
      start += row % shape[a] * stride[a];
      row /= shape[a];
    }
    return start;
  }
};

/// How groups are made into boxes.
struct group_boxes {
  std::int64_t shape[max_rank]{}, stride[max_rank]{}, block[max_rank]{};
  divider groups[max_rank];
  int order[max_rank]{};  ///< axes by falling |stride|
  int rank = 0;
  std::int64_t count = 0;

  group_boxes() = default;
  group_boxes(geometry const& x, partition const& p) : rank{x.rank}, count{p.group_count()} {
    auto const distance = [&](int a) { return stride[a] < 0 ? -stride[a] : stride[a]; };
    for (int a = 0; a < rank; ++a) {
      auto const from = static_cast<std::size_t>(a);
      shape[a] = x.shape[from];
      stride[a] = x.stride[from];
      block[a] = p.block[from];
      groups[a] = divider{p.groups[from] > 0 ? p.groups[from] : 1};
      int at = a;
      for (; at > 0 && distance(order[at - 1]) < distance(a); --at) order[at] = order[at - 1];
      order[at] = a;
    }
  }

  MIXBIT_HD group_box box(std::int64_t group) const {
    std::int64_t first[max_rank]{};
    for (int a = rank - 1; a >= 0; --a) {
      std::int64_t const rest = groups[a].quotient(group);
      first[a] = (group - rest * groups[a].divisor()) * block[a];
      group = rest;
    }
    group_box b;
    for (int k = 0; k < rank; ++k) {
      int const a = order[k];
      std::int64_t const left = shape[a] - first[a];
      b.offset += first[a] * stride[a];
      b.append(left < block[a] ? left : block[a], stride[a]);
    }
    if (b.rank == 0) {
      b.shape[0] = 1;
      b.rank = 1;
    }
    return b;
  }
};

/// Groups of at most one element a lane: their sum is that of their elements in turn, a thread each.
struct sum_small_groups {
  group_boxes boxes;
  const_tensor_data x;
  sum_of what;
  double* sum;
  std::uint64_t* flag;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    at.each([&](int thread) {
      std::uint64_t strange = 0;
      for_stretches(at, boxes.count, at.threads(), [&](std::int64_t first) {
        if (first + thread < boxes.count) sum[first + thread] += total(boxes.box(first + thread), strange);
      });
      note(at, flag, strange);
    });
  }

 private:
  MIXBIT_HD double total(group_box const& box, std::uint64_t& strange) const {
    double total = 0;
    std::int64_t const width = box.shape[box.rank - 1], step = box.stride[box.rank - 1];
    for (std::int64_t row = 0; row * width < box.size; ++row) {
      std::int64_t const offset = box.row_offset(row);
      for (std::int64_t i = 0; i < width; ++i) {
        float const v = load_one(x.type, x.data, offset + i * step);
        bool const finite = fp::is_finite(v);
        total += formats::sum_term(what, finite ? v : 0.0f);
        strange += finite ? 0 : 1;
      }
    }
    return total;
  }
};

struct sum_chunks {
  static constexpr int lanes = static_cast<int>(formats::sum_lanes);
  group_boxes boxes;
  const_tensor_data x;
  sum_of what;
  double* sum;
  double* partial;          ///< [groups, chunks], or null: a warp does all chunks of a group
  std::int64_t chunks = 1;  ///< as many as any group has, or more
  divider by_chunks;
  std::uint64_t* flag;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    std::int64_t const units = boxes.count * (partial ? chunks : 1), together = at.threads() / lanes;
    for_stretches(at, units, together, [&](std::int64_t first) {
      typename Context::template per_thread<double> own, total, all;
      at.each([&](int thread) { all[thread] = 0; });
      for (std::int64_t c = 0; c < (partial ? 1 : chunks); ++c) {
        at.each([&](int thread) {
          std::int64_t const unit = first + thread / lanes;
          own[thread] = unit < units ? lane_sum(at, unit, c, thread % lanes) : 0;
        });
        fold_lanes(at, own, total, lanes);
        at.each([&](int thread) { all[thread] += total[thread]; });
      }
      at.each([&](int thread) {
        std::int64_t const unit = first + thread / lanes;
        if (thread % lanes != 0 || unit >= units) return;
        if (partial) partial[unit] = total[thread];
        else sum[unit] += all[thread];
      });
    });
  }

 private:
  /// What one lane of chunk number c adds up: +0 for a chunk that the group does not have.
  template <class Context>
  MIXBIT_HD double lane_sum(Context& at, std::int64_t unit, std::int64_t c, int lane) const {
    std::int64_t const group = partial ? by_chunks.quotient(unit) : unit;
    auto const box = boxes.box(group);
    std::int64_t const length = formats::sum_chunk_length(box.size);
    std::int64_t const first = (partial ? unit - group * chunks : c) * length;
    std::int64_t const end = first + length < box.size ? first + length : box.size;
    double sum_of_lane = 0;
    std::uint64_t strange = 0;
    std::int64_t const width = box.shape[box.rank - 1], step = box.stride[box.rank - 1];
    std::int64_t in_row = width, offset = 0;
    for (std::int64_t i = first + lane; i < end; i += lanes, in_row += lanes) {
      if (in_row >= width) {
        in_row = i % width;
        offset = box.row_offset(i / width);
      }
      float const v = load_one(x.type, x.data, offset + in_row * step);
      bool const finite = fp::is_finite(v);
      sum_of_lane += formats::sum_term(what, finite ? v : 0.0f);
      strange += finite ? 0 : 1;
    }
    note(at, flag, strange);
    return sum_of_lane;
  }

};

/// The sums of each group's chunks, in their order.
struct sum_partials {
  group_boxes boxes;
  double const* partial;
  std::int64_t chunks;
  double* sum;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    at.each([&](int thread) {
      for_stretches(at, boxes.count, at.threads(), [&](std::int64_t first) {
        std::int64_t const group = first + thread;
        if (group >= boxes.count) return;
        double total = 0;
        for (std::int64_t c = 0; c < chunks; ++c) total += partial[group * chunks + c];
        sum[group] += total;
      });
    });
  }
};

}  // namespace mixbit::cuda
