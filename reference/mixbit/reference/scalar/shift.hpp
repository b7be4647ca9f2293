// y = T(x ± value[g]). x - v and x + (-v) are the same number, so there is one loop.
#pragma once

#include <cassert>

#include "mixbit/reference/scalar/with_group.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The numbers of with_group_op.
struct shifts {
  float const* value;
  bool subtract;

  float of(std::int64_t group) const { return subtract ? -value[group] : value[group]; }
  static float apply(float x, float v) { return x + v; }
};

inline void shift(executor_ref const& threads, shift_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type);
  loop_nest<2> const nest{{&a.x, &a.y}, a.groups};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, with_group_op<T, shifts>{a.x.as<T>(), a.y.as<T>(), {a.value, a.subtract}});
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
