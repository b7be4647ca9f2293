// How a tensor is divided into groups that share one amax: one idea for per-tensor, per-channel, per-token, blocks
// of the last axis and blocks of several axes.
//
// Along each axis a group covers `block[axis]` consecutive positions: the axis' whole size (reduced), 1 (kept) or a
// block between. The last block of an axis may be ragged; what it lacks counts as zeros. Groups are numbered in
// row-major order, so an amax array is dense over `groups()`.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/core/tensor_view.hpp"

namespace mixbit {

struct partition {
  std::int8_t rank = 0;
  extents block{1, 1, 1, 1, 1, 1};   ///< positions a group covers along each axis
  extents groups{1, 1, 1, 1, 1, 1};  ///< groups along each axis

  constexpr std::int64_t group_count() const {
    std::int64_t n = 1;
    for (int a = 0; a < rank; ++a) n *= groups[a];
    return n;
  }
  friend constexpr bool operator==(partition const&, partition const&) = default;
};

/// The one axis along which a group has more than one element; no value where there are several. Groups of single
/// elements lie along any axis: the last.
inline std::optional<int> line_axis(partition const& p) {
  std::optional<int> found;
  for (int a = 0; a < p.rank; ++a)
    if (p.block[a] != 1) {
      if (found) return std::nullopt;
      found = a;
    }
  return found ? found : p.rank - 1;
}

namespace detail {
inline int normal_axis(int axis, int rank) {
  if (axis < -rank || axis >= rank)
    fail(error_id::format_value, "axis ", axis, " is out of range for a tensor of rank ", rank);
  return axis < 0 ? axis + rank : axis;
}
inline void set_block(partition& p, geometry const& g, int axis, std::int64_t size) {
  p.block[axis] = size;
  p.groups[axis] = size == 0 ? 1 : (g.shape[axis] + size - 1) / size;
}
inline partition whole(geometry const& g) {
  partition p;
  p.rank = g.rank;
  for (int a = 0; a < g.rank; ++a) {
    p.block[a] = g.shape[a];
    p.groups[a] = 1;
  }
  return p;
}

/// Axes that a caller names, each once.
class named_axes {
 public:
  explicit named_axes(int rank) : rank_{rank} {}
  /// From 0 on. Throws `format_value`.
  int take(int axis) {
    int const place = normal_axis(axis, rank_);
    if (std::exchange(taken_[static_cast<std::size_t>(place)], true))
      fail(error_id::format_value, "axis ", axis, " is given twice for a tensor of rank ", rank_);
    return place;
  }

 private:
  int rank_;
  std::array<bool, max_rank> taken_{};
};
}  // namespace detail

/// One group: the whole tensor.
inline partition per_tensor(geometry const& g) { return detail::whole(g); }

/// One group for each index of the `kept` axes (negative ones count from the end).
inline partition per_axes(geometry const& g, std::span<int const> kept) {
  partition p = detail::whole(g);
  detail::named_axes named{g.rank};
  for (int axis : kept) detail::set_block(p, g, named.take(axis), 1);
  return p;
}

/// A block size along an axis; no size means the whole axis.
struct axis_block {
  int axis = -1;
  std::optional<std::int64_t> size;
  friend bool operator==(axis_block const&, axis_block const&) = default;
};

/// Blocks along the named axes; every other axis keeps each index apart (ModelOpt's `block_sizes`).
inline partition blocks_of(geometry const& g, std::span<axis_block const> blocks) {
  partition p;
  p.rank = g.rank;
  for (int a = 0; a < g.rank; ++a) detail::set_block(p, g, a, 1);
  detail::named_axes named{g.rank};
  for (auto const& b : blocks) {
    int const axis = named.take(b.axis);
    if (b.size && *b.size <= 0)
      fail(error_id::format_value, "block size ", *b.size, " along axis ", b.axis, " is not positive");
    detail::set_block(p, g, axis, b.size ? std::min(*b.size, std::max<std::int64_t>(g.shape[axis], 1)) : g.shape[axis]);
  }
  return p;
}

}  // namespace mixbit
