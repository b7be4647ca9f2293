// y = T(x ± value[g]). x - v and x + (-v) are the same number, so there is one loop.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The operation of `sweep`.
template <class T>
struct shift_op {
  struct tile {
    float value[tile_width];
  };
  T const* x;
  T* y;
  float const* value;
  bool subtract;

  float load(std::int64_t group) const { return subtract ? -value[group] : value[group]; }
  void load(std::int64_t group, tile& t, std::int64_t i) const { t.value[i] = load(group); }

  template <bool Unit>
  void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
           float v) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = from_float<T>(to_float(in[Unit ? i : i * stride[0]]) + v);
  }

  template <bool Unit>
  void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
            tile const& t) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = from_float<T>(to_float(in[Unit ? i : i * stride[0]]) + t.value[i]);
  }
};

inline void shift(executor_ref const& threads, shift_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type);
  loop_nest<2> const nest{{&a.x, &a.y}, a.groups};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, shift_op<T>{a.x.as<T>(), a.y.as<T>(), a.value, a.subtract});
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
