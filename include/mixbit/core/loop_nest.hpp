// The traversal that elementwise kernels share.
//
// A loop nest holds the axes of up to three tensors of one shape and of the partition that groups them, largest
// stride first and merged wherever strides and groups allow. Work is cut into pieces that depend on shape and strides
// alone, so results do not depend on the number of threads, and sums over pieces have one order on every backend.
// Nothing is allocated.
//
// The innermost axis comes in one of two kinds: runs of elements that share a group (rows of a row-major weight, whole
// tensors), or elements that each have their own group (a column-major weight with blocks along its rows). The second
// kind is walked in tiles of `nest_tile_width` elements, so that what belongs to the groups is loaded once a tile.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "mixbit/core/kernel_args.hpp"

namespace mixbit {

inline constexpr std::int64_t nest_piece_elements = 32768;
inline constexpr std::int64_t nest_tile_width = 256;

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
            std::int64_t per_piece = nest_piece_elements) {
    collect(tensors, groups);
    merge();
    cut(per_piece);
  }

  axis const& inner() const { return axes_[rank_ - 1]; }
  /// The axes, outermost first; one of size 1 for a single element.
  std::span<axis const> axes() const { return {axes_.data(), static_cast<std::size_t>(rank_)}; }
  bool empty() const { return empty_; }
  std::int64_t pieces() const { return pieces_; }
  /// Piece p has `inner_step` elements (the last fewer) from (p % inner_cuts) * inner_step on, in `outer_step` rows
  /// from p / inner_cuts * outer_step on.
  std::int64_t inner_cuts() const { return inner_cuts_; }
  std::int64_t inner_step() const { return inner_step_; }
  std::int64_t outer_step() const { return outer_step_; }
  std::int64_t outer_rows() const { return outer_; }
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
      inner_step_ = std::min(in.size, nest_tile_width);
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

inline constexpr std::int64_t score_piece_count = 256;  ///< a nest cut for n pieces has at most 2n + 1

/// The pieces of gradient_score, whose sums are added in their order. Within a piece 16 lanes are summed apart, an
/// element in the lane of its index in the row modulo 16, row after row; then the lanes are added in order.
inline loop_nest<2> score_nest(gradient_score_args const& a) {
  std::int64_t const share = (a.grad.size() + score_piece_count - 1) / score_piece_count;
  return {{&a.grad, &a.difference}, per_tensor(a.grad), std::max(nest_piece_elements, share)};
}

}  // namespace mixbit
