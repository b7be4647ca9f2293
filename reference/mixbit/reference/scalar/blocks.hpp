// Groups that a kernel has to see whole before it can quantize their elements: their amax is taken from the data, or
// one of two scales is chosen. They lie along one axis (core/partition.hpp: line_axis).
#pragma once

#include <cassert>
#include <cfloat>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/rules.hpp"
#include "mixbit/reference/scalar/rows.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Visits groups in the order in which they lie in memory.
template <int Count>
class line_walk {
 public:
  line_walk(std::array<geometry const*, Count> const& tensors, partition const& groups)
      : groups_{groups}, axis_{std::max(line_axis(groups).value_or(-1), 0)} {
    for (int k = 0; k < Count; ++k) grid_[k] = grid_of(*tensors[k]);
    for (int k = 0; k < Count; ++k) stride_[k] = groups.rank > 0 ? tensors[k]->stride[axis_] : 1;
    size_ = groups.rank > 0 ? tensors[0]->shape[axis_] : 1;
    for (int a = axis_ + 1; a < groups.rank; ++a) below_ *= groups.groups[a];
  }

  /// Calls f(offset, stride, length, group) for every group, each whole, on one thread.
  template <class F>
  void visit(executor_ref const& threads, F&& f) const {
    std::array<geometry const*, Count> grids;
    for (int k = 0; k < Count; ++k) grids[k] = &grid_[k];
    std::int64_t const block = std::max<std::int64_t>(groups_.rank > 0 ? groups_.block[axis_] : 1, 1);
    loop_nest<Count> const nest{grids, per_element(), std::max<std::int64_t>(piece_elements / block, 1)};
    auto const& in = nest.inner();
    for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
      nest.rows_of(piece, [&](segment<Count> s) {
        for (std::int64_t i = 0; i < s.length; ++i) {
          f(s.offset, stride_, length_of(s.group), s.group);
          for (int k = 0; k < Count; ++k) s.offset[k] += in.stride[k];
          s.group += in.group_stride;
        }
      });
    });
  }

 private:
  /// The first element of each group, as a tensor.
  geometry grid_of(geometry const& t) const {
    geometry g = t;
    for (int a = 0; a < g.rank; ++a) {
      g.stride[a] = t.stride[a] * groups_.block[a];
      g.shape[a] = t.shape[a] == 0 ? 0 : groups_.groups[a];
    }
    return g;
  }
  partition per_element() const {
    partition p = groups_;
    p.block.fill(1);
    return p;
  }
  std::int64_t length_of(std::int64_t group) const {
    if (groups_.rank == 0) return 1;
    std::int64_t const block = groups_.block[axis_], at = group / below_ % groups_.groups[axis_];
    return std::min(block, size_ - at * block);
  }

  partition groups_;
  int axis_;
  std::array<geometry, Count> grid_{};
  std::array<std::int64_t, Count> stride_{};
  std::int64_t size_ = 1, below_ = 1;
};

/// One group of x, for the functions below.
struct line {
  const_tensor_ref const& x;
  std::int64_t offset, stride, length;

  /// f(row, length) over the elements in order.
  template <class F>
  void rows(F&& f) const {
    float buffer[tile_width];
    for_tiles(length,
              [&](std::int64_t i, std::int64_t n) { f(load_row(x, offset + i * stride, stride, n, buffer), n); });
  }
};

/// The largest magnitude. NaN is skipped; infinities count as the largest finite number, or are skipped too where
/// the scale would have no other bound.
inline float amax_of_line(line const& l, bool skips_infinity) {
  std::int32_t const infinity = 0x7f800000, finite = infinity - 1;
  std::int32_t top = 0;
  l.rows([&](float const* row, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      std::int32_t const m = static_cast<std::int32_t>(fp::bits(row[i]) & 0x7fffffffu);
      std::int32_t const skipped = m >= infinity + (skips_infinity ? 0 : 1) ? 0 : m;
      top = std::max(top, std::min(skipped, finite));
    }
  });
  return fp::from_bits(static_cast<std::uint32_t>(top));
}

/// Sum of the squared errors that a scaling makes, in the order of the elements.
template <class Rule>
double squared_error(Rule const& rule, formats::scaling const& s, line const& l) {
  double sum = 0;
  l.rows([&](float const* row, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      double const d = rule.fake_quantize(s, row[i]) - row[i];
      sum += d * d;
    }
  });
  return sum;
}

/// The scale of a block, as a file holds it; of two that the rule allows the one that errs less, else the first.
template <formats::block_scaled Rule>
float choose_scale(Rule const& rule, float amax, line const& l) {
  float const first = rule.file_scale(amax);
  if (!rule.has_alternative()) return first;
  float const second = rule.file_scale(rule.alternative(amax));
  return squared_error(rule, rule.of_scale(second), l) < squared_error(rule, rule.of_scale(first), l) ? second : first;
}

/// What a group does to its elements. `given` is its amax, null if it is taken from the elements.
template <class Rule>
formats::scaling scaling_of_line(Rule const& rule, float const* given, line const& l) {
  float const amax = given ? *given : amax_of_line(l, !formats::block_scaled<Rule>);
  if constexpr (formats::block_scaled<Rule>)
    if (rule.has_alternative()) return rule.of_scale(choose_scale(rule, amax, l));
  return rule.prepare(amax);
}

/// Does a kernel have to see groups whole?
template <class Rule>
bool needs_lines(Rule const& rule, amax_use use) {
  if constexpr (formats::block_scaled<Rule>)
    if (rule.has_alternative()) return true;
  return use == amax_use::data;
}

/// The inputs of a rule from a kernel's arguments.
template <class Args>
formats::rule_inputs rule_inputs_of(Args const& a) {
  return {a.x.type, a.tensor_amax ? *a.tensor_amax : 0.0f, a.use == amax_use::data};
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
