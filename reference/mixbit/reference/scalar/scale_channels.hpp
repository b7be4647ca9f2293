// y = T(x · scale[i mod period]), i the index along one axis.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The operation of `sweep`: a "group" is one index along the axis.
template <class T>
struct scale_op {
  struct tile {
    float scale[tile_width];
  };
  T const* x;
  T* y;
  float const* scale;
  std::int64_t period;

  float load(std::int64_t index) const { return scale[index % period]; }
  void load(std::int64_t index, tile& t, std::int64_t i) const { t.scale[i] = load(index); }

  template <bool Unit>
  void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
           float s) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = from_float<T>(fp::mul(to_float(in[Unit ? i : i * stride[0]]), s));
  }

  template <bool Unit>
  void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
            tile const& t) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = from_float<T>(fp::mul(to_float(in[Unit ? i : i * stride[0]]), t.scale[i]));
  }
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
    sweep(threads, nest, scale_op<T>{a.x.as<T>(), a.y.as<T>(), a.scale, a.period});
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
