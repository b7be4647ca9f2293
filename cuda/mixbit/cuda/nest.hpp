// A loop nest as a kernel's argument: where unit u of a tensor lies and in which group, by a few multiplications.
//
// The host makes it from core/loop_nest.hpp, so that axes are sorted by stride and merged: a dense tensor with one
// group, or a row-major weight with a group a row, is left with one axis or two. A unit is a stretch of the innermost
// axis; units of one row lie side by side, and the last of a row may be shorter.
#pragma once

#include <cstdint>

#include "mixbit/core/loop_nest.hpp"
#include "mixbit/cuda/divider.hpp"

namespace mixbit::cuda {

/// Where a unit starts. Its elements belong to `group` and, from `phase` on, to the groups behind it.
template <int Count>
struct place {
  std::int64_t offset[Count]{};  ///< of each tensor, in elements
  std::int64_t group = 0;
  std::int64_t phase = 0;   ///< elements of the group before the unit
  std::int64_t count = 0;   ///< elements of the unit
};

template <int Count>
class nest {
 public:
  nest() = default;
  nest(loop_nest<Count> const& made, std::int64_t unit) : unit_{unit} {
    rank_ = static_cast<int>(made.axes().size());
    std::int64_t rows = made.empty() ? 0 : 1;
    for (int a = 0; a < rank_; ++a) {
      auto const& from = made.axes()[static_cast<std::size_t>(a)];
      axes_[a] = {divider{from.size}, divider{from.block}, from.group_stride, {}};
      for (int k = 0; k < Count; ++k) axes_[a].stride[k] = from.stride[static_cast<std::size_t>(k)];
      if (a + 1 < rank_) rows *= from.size;
    }
    across_ = divider{(made.inner().size + unit - 1) / unit};
    units_ = rows * across_.divisor();
  }

  MIXBIT_HD std::int64_t units() const { return units_; }
  MIXBIT_HD std::int64_t units_a_row() const { return across_.divisor(); }
  /// From one element of a unit to the next.
  MIXBIT_HD std::int64_t stride(int k) const { return axes_[rank_ - 1].stride[k]; }
  /// Elements of the innermost axis that share a group, and the way to the next group.
  MIXBIT_HD std::int64_t block() const { return axes_[rank_ - 1].by_block.divisor(); }
  MIXBIT_HD std::int64_t group_stride() const { return axes_[rank_ - 1].group_stride; }

  MIXBIT_HD place<Count> locate(std::int64_t unit) const {
    axis const& in = axes_[rank_ - 1];
    std::int64_t rest = across_.quotient(unit);
    std::int64_t const start = (unit - rest * across_.divisor()) * unit_, left = in.by_size.divisor() - start;
    std::int64_t const inner_block = in.by_block.quotient(start);
    place<Count> p;
    p.count = left < unit_ ? left : unit_;
    p.group = inner_block * in.group_stride;
    p.phase = start - inner_block * in.by_block.divisor();
    for (int k = 0; k < Count; ++k) p.offset[k] = start * in.stride[k];
    for (int a = rank_ - 2; a >= 0; --a) {
      axis const& out = axes_[a];
      std::int64_t const above = out.by_size.quotient(rest), index = rest - above * out.by_size.divisor();
      rest = above;
      p.group += out.by_block.quotient(index) * out.group_stride;
      for (int k = 0; k < Count; ++k) p.offset[k] += index * out.stride[k];
    }
    return p;
  }

 private:
  struct axis {
    divider by_size, by_block;
    std::int64_t group_stride = 0;
    std::int64_t stride[Count]{};
  };
  axis axes_[max_rank + 1]{};
  int rank_ = 1;
  std::int64_t unit_ = 1, units_ = 0;
  divider across_;
};

}  // namespace mixbit::cuda
