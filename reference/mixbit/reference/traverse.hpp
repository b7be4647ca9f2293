// The traversal that all elementwise CPU kernels share.
//
// A loop nest holds the axes of up to three tensors of one shape and of the partition that groups them, largest
// stride first and merged wherever strides and groups allow. Work is cut into pieces that depend on shape and strides
// alone, so results do not depend on the number of threads. Nothing is allocated.
//
// The innermost axis comes in one of two kinds: runs of elements that share a group (rows of a row-major weight, whole
// tensors), or elements that each have their own group (a column-major weight with blocks along its rows). The second
// kind is walked in tiles of `tile_width` elements, so that what belongs to the groups is loaded once a tile.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "mixbit/core/executor.hpp"
#include "mixbit/core/partition.hpp"

// The loops below read and write in place at most (y is x): no iteration depends on another. clang has a pragma for
// that too, but it warns wherever it then does not vectorise; it is left to its own checks.
#if defined(__GNUC__) && !defined(__clang__)
#define MIXBIT_INDEPENDENT_LOOP _Pragma("GCC ivdep")
#else
#define MIXBIT_INDEPENDENT_LOOP
#endif

namespace mixbit::reference {

inline constexpr std::int64_t piece_elements = 32768;
inline constexpr std::int64_t tile_width = 256;

/// One axis of a nest. An index i along it belongs to group (i / block) * group_stride of this axis.
template <int Count>
struct nest_axis {
  std::int64_t size = 1, block = 1, group_stride = 0;
  std::array<std::int64_t, Count> stride{};

  constexpr bool reduced() const { return block >= size; }
};

/// A stretch of the innermost axis: `length` elements from `offset`, of which the first lies `phase` elements into
/// its block, which has number `group`.
template <int Count>
struct segment {
  std::array<std::int64_t, Count> offset{};
  std::int64_t length = 0, group = 0, phase = 0;
};

template <int Count>
class loop_nest {
 public:
  using axis = nest_axis<Count>;

  loop_nest(std::array<geometry const*, Count> const& tensors, partition const& groups,
            std::int64_t per_piece = piece_elements) {
    collect(tensors, groups);
    merge();
    cut(per_piece);
  }

  axis const& inner() const { return axes_[rank_ - 1]; }
  std::int64_t pieces() const { return pieces_; }
  /// Every element of the innermost axis has its own group.
  bool one_group_an_element() const { return inner().block == 1 && inner().size > 1; }
  /// All tensors are contiguous along the innermost axis.
  bool unit_stride() const {
    return inner().size == 1 || std::ranges::all_of(inner().stride, [](std::int64_t s) { return s == 1; });
  }
  /// No group continues from one row to the next, so a whole run is a whole group.
  bool rows_are_apart() const {
    for (int a = 0; a + 1 < rank_; ++a)
      if (axes_[a].block != 1) return false;
    return true;
  }

  /// A run is a whole group, so no two runs meet in one.
  bool runs_are_groups() const { return rows_are_apart() && (inner_cuts_ == 1 || inner().block <= inner_step_); }

  /// Calls f(segment) for each row of a piece, in order.
  template <class F>
  void rows_of(std::int64_t piece, F&& f) const {
    std::int64_t const start = piece % inner_cuts_ * inner_step_, row = piece / inner_cuts_ * outer_step_;
    std::int64_t const rows = std::min(outer_step_, outer_ - row);
    std::array<std::int64_t, max_rank> index{};
    for (std::int64_t rest = row, a = rank_ - 2; a >= 0; --a) {
      index[a] = rest % axes_[a].size;
      rest /= axes_[a].size;
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      f(segment_at(index, start));
      for (int a = rank_ - 2; a >= 0 && ++index[a] == axes_[a].size; --a) index[a] = 0;
    }
  }

 private:
  void collect(std::array<geometry const*, Count> const& tensors, partition const& groups) {
    extents group_stride{};
    std::int64_t step = 1;
    for (int a = groups.rank - 1; a >= 0; --a) {
      group_stride[a] = step;
      step *= groups.groups[a];
    }
    geometry const& first = *tensors[0];
    for (int a = 0; a < first.rank; ++a) {
      if (first.shape[a] == 0) empty_ = true;
      if (first.shape[a] == 1) continue;
      axis added{first.shape[a], std::max<std::int64_t>(groups.block[a], 1), group_stride[a], {}};
      for (int k = 0; k < Count; ++k) added.stride[k] = tensors[k]->stride[a];
      int place = rank_++;
      for (; place > 0 && distance(axes_[place - 1]) < distance(added); --place) axes_[place] = axes_[place - 1];
      axes_[place] = added;
    }
    if (rank_ == 0) axes_[rank_++] = axis{};
  }

  static std::int64_t distance(axis const& a) { return a.stride[0] < 0 ? -a.stride[0] : a.stride[0]; }

  void merge() {
    int kept = 0;
    for (int a = 1; a < rank_; ++a)
      if (!absorb(axes_[kept], axes_[a])) axes_[++kept] = axes_[a];
    rank_ = kept + 1;
  }

  /// Makes one axis of two neighbours where memory and groups both continue; false and unchanged where they do not.
  static bool absorb(axis& out, axis const& in) {
    for (int k = 0; k < Count; ++k)
      if (out.stride[k] != in.size * in.stride[k]) return false;
    // false where the last block is ragged: its axis has one group more than size / block
    bool const blocks_continue = out.block == 1 && out.group_stride == in.size / in.block * in.group_stride;
    if (in.reduced()) {
      out = {out.size * in.size, std::min(out.block, out.size) * in.size, out.group_stride, in.stride};
    } else if (blocks_continue) {
      out = {out.size * in.size, in.block, in.group_stride, in.stride};
    } else {
      return false;
    }
    return true;
  }

  void cut(std::int64_t per_piece) {
    axis const& in = inner();
    if (one_group_an_element()) {
      inner_step_ = std::min(in.size, tile_width);
    } else if (in.size <= per_piece) {
      inner_step_ = in.size;
    } else {
      inner_step_ = in.block < per_piece ? per_piece / in.block * in.block : per_piece;
    }
    for (int a = 0; a + 1 < rank_; ++a) outer_ *= axes_[a].size;
    if (empty_) return;
    outer_step_ = std::max<std::int64_t>(1, per_piece / inner_step_);
    inner_cuts_ = (in.size + inner_step_ - 1) / inner_step_;
    pieces_ = inner_cuts_ * ((outer_ + outer_step_ - 1) / outer_step_);
  }

  segment<Count> segment_at(std::array<std::int64_t, max_rank> const& index, std::int64_t start) const {
    axis const& in = inner();
    segment<Count> s;
    s.length = std::min(inner_step_, in.size - start);
    s.group = start / in.block * in.group_stride;
    s.phase = start % in.block;
    for (int k = 0; k < Count; ++k) s.offset[k] = start * in.stride[k];
    for (int a = 0; a + 1 < rank_; ++a) {
      s.group += index[a] / axes_[a].block * axes_[a].group_stride;
      for (int k = 0; k < Count; ++k) s.offset[k] += index[a] * axes_[a].stride[k];
    }
    return s;
  }

  std::array<axis, max_rank + 1> axes_{};
  int rank_ = 0;
  bool empty_ = false;
  std::int64_t outer_ = 1, inner_step_ = 1, outer_step_ = 1, inner_cuts_ = 1, pieces_ = 0;
};

/// Calls f(piece) for every piece, on the calling thread if there is only one.
template <class F>
void for_pieces(executor_ref const& threads, std::int64_t pieces, F&& f) {
  if (pieces == 1) return f(std::int64_t{0});
  if (pieces > 1) threads.parallel_for(pieces, f);
}

/// Cuts a segment into runs that share a group: f(offset, length, group).
template <int Count, class F>
void for_runs(segment<Count> s, nest_axis<Count> const& inner, F&& f) {
  while (s.length > 0) {
    std::int64_t const length = std::min(s.length, inner.block - s.phase);
    f(s.offset, length, s.group);
    for (int k = 0; k < Count; ++k) s.offset[k] += length * inner.stride[k];
    s.group += inner.group_stride;
    s.length -= length;
    s.phase = 0;
  }
}

/// Applies an elementwise operation. It provides
///   Op::tile                                    arrays of tile_width, what each element needs of its group
///   load(group)                                 the same for one group, made once a run
///   load(group, tile&, i)                       made once a tile
///   run<Unit>(offset, stride, length, loaded)   and
///   each<Unit>(offset, stride, length, tile)    the loops
/// where Unit says that all strides are 1; with a member `any_stride` there is one kind of loop for both.
template <int Count, class Op>
void sweep(executor_ref const& threads, loop_nest<Count> const& nest, Op const& op) {
  auto const rows = [&]<bool Unit>(std::int64_t piece) {
    auto const& in = nest.inner();
    if (nest.one_group_an_element()) {
      typename Op::tile tile;
      std::int64_t loaded = -1;
      nest.rows_of(piece, [&](segment<Count> const& s) {
        for (std::int64_t i = 0; loaded != s.group && i < s.length; ++i)
          op.load(s.group + i * in.group_stride, tile, i);
        loaded = s.group;
        op.template each<Unit>(s.offset, in.stride, s.length, tile);
      });
    } else {
      nest.rows_of(piece, [&](segment<Count> const& s) {
        for_runs(s, in, [&](auto const& offset, std::int64_t length, std::int64_t group) {
          op.template run<Unit>(offset, in.stride, length, op.load(group));
        });
      });
    }
  };
  if constexpr (!requires { Op::any_stride; })
    if (nest.unit_stride())
      return for_pieces(threads, nest.pieces(), [&](std::int64_t piece) { rows.template operator()<true>(piece); });
  for_pieces(threads, nest.pieces(), [&](std::int64_t piece) { rows.template operator()<false>(piece); });
}

}  // namespace mixbit::reference
