// y = T(x · scale[i mod period]), i the index along one axis.
#pragma once

#include <cassert>

#include "mixbit/reference/scalar/with_group.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The numbers of with_group_op: a "group" is one index along the axis.
struct channel_scales {
  float const* scale;
  std::int64_t period;

  float of(std::int64_t index) const { return scale[index % period]; }
  static float apply(float x, float s) { return fp::mul(x, s); }
};

/// One group for each index along the axis. Built by hand, because a kernel does not allocate.
inline partition channels_of(scale_channels_args const& a) {
  partition groups;
  groups.rank = a.x.rank;
  groups.block = a.x.shape;
  groups.block[a.axis] = 1;
  groups.groups[a.axis] = a.x.shape[a.axis];
  return groups;
}

inline void scale_channels(executor_ref const& threads, scale_channels_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type && a.period > 0);
  loop_nest<2> const nest{{&a.x, &a.y}, channels_of(a)};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, with_group_op<T, channel_scales>{a.x.as<T>(), a.y.as<T>(), {a.scale, a.period}});
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
