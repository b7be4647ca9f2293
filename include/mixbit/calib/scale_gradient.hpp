// The gradient of a loss by the amaxes of a weight: learned step sizes (LSQ, Esser et al. 2020, arXiv:1902.08153).
//
// A group is cast as y = round(clip(x / s)) · s' with s = amax/bound. Rounding passes the gradient straight through, so
//
//   ∂y/∂s' = y / s',      ∂y/∂s = -x/s · s'/s  where x/s lies strictly within the format's range, else 0
//
// and with one scale for both, s' = s, their sum: y/s - x/s within, y/s outside (the paper's equation 3). As ModelOpt
// does, amax is what is learned: ∂/∂amax = ∂/∂s / bound. Where a scale is held in few bits its rounding passes through
// too.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "mixbit/core/partition.hpp"
#include "mixbit/formats/describe.hpp"

namespace mixbit {

/// What a group's values become before rounding: x · bound/amax, clipped to these.
struct code_range {
  float bound = 0, lowest = 0, highest = 0;
};
inline code_range code_range_of(format const& how) {
  format_description const d = describe(how);
  return {d.bound, d.lowest, d.highest};
}

/// One weight's cast and the gradient of what came of it, in row-major order.
struct cast_gradient {
  std::span<float const> x, y, grad;
};

/// The amaxes that find the codes and those that the codes stand for; the same array where one scale is both.
struct cast_amaxes {
  std::span<float const> before, after;
};

namespace detail {

/// Calls f(index in row-major order, group) for each element of a tensor of this shape.
template <class F>
void for_each_in_group(geometry const& shape, partition const& groups, F&& f) {
  extents at{};
  for (std::int64_t i = 0; i < shape.size(); ++i) {
    std::int64_t group = 0;
    for (int a = 0; a < shape.rank; ++a) group = group * groups.groups[a] + at[a] / groups.block[a];
    f(static_cast<std::size_t>(i), static_cast<std::size_t>(group));
    for (int a = shape.rank - 1; a >= 0 && ++at[a] == shape.shape[a]; --a) at[a] = 0;
  }
}

}  // namespace detail

/// Adds ∂L/∂amax of each group to `before` and `after`, which may be one array; a group of amax 0 has none. Sums are in
/// double, in row-major order.
inline void add_scale_gradient(geometry const& shape, partition const& groups, code_range const& range,
                               cast_amaxes const& amax, cast_gradient const& c, std::span<double> before,
                               std::span<double> after) {
  detail::for_each_in_group(shape, groups, [&](std::size_t i, std::size_t g) {
    float const pre = amax.before[g], post = amax.after[g];
    if (!(pre > 0) || !(post > 0)) return;
    float const code = c.x[i] / (pre / range.bound);
    after[g] += static_cast<double>(c.grad[i]) * c.y[i] / post;
    if (code > range.lowest && code < range.highest)
      before[g] -= static_cast<double>(c.grad[i]) * c.x[i] / pre * (post / pre);
  });
}

/// What LSQ multiplies the gradient of a step size by, 1/√(elements · bound), as a factor for a step in amax: the step
/// size is amax/bound, so that a step of it is `bound` times as far in amax, and so is its gradient.
inline double lsq_step_factor(double elements, double bound) { return bound * bound / std::sqrt(elements * bound); }

}  // namespace mixbit
