// grad = 0 where |x| > amax of its group. NaN in x lets the gradient through, as a comparison does.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

template <class T>
struct mask_op {
  struct tile {
    float amax[tile_width];
  };
  T const* x;
  T* grad;
  float const* amax;

  float load(std::int64_t group) const { return amax[group]; }
  void load(std::int64_t group, tile& t, std::int64_t i) const { t.amax[i] = amax[group]; }

  static T masked(T grad, T x, float limit) { return fp::abs(to_float(x)) > limit ? T{} : grad; }

  template <bool Unit>
  void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
           float limit) const {
    T const* const in = x + at[0];
    T* const out = grad + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i) {
      T& g = out[Unit ? i : i * stride[1]];
      g = masked(g, in[Unit ? i : i * stride[0]], limit);
    }
  }

  template <bool Unit>
  void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
            tile const& t) const {
    T const* const in = x + at[0];
    T* const out = grad + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i) {
      T& g = out[Unit ? i : i * stride[1]];
      g = masked(g, in[Unit ? i : i * stride[0]], t.amax[i]);
    }
  }
};

inline void backward_mask(executor_ref const& threads, backward_mask_args const& a) {
  assert(a.x.same_shape(a.grad) && a.x.type == a.grad.type && (a.amax || a.x.size() == 0));
  loop_nest<2> const nest{{&a.x, &a.grad}, a.groups};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, mask_op<T>{a.x.as<T>(), a.grad.as<T>(), a.amax});
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
