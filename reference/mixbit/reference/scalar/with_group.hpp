// y = T(f(x, v)), v a number of the element's group: channel scales and shifts.
#pragma once

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The operation of `sweep`. Values::of(group) is v, and Values::apply(x, v) is f.
template <class T, class Values>
struct with_group_op {
  struct tile {
    float value[tile_width];
  };
  T const* x;
  T* y;
  Values values;

  float load(std::int64_t group) const { return values.of(group); }
  void load(std::int64_t group, tile& t, std::int64_t i) const { t.value[i] = values.of(group); }

  template <bool Unit>
  void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
           float v) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = from_float<T>(Values::apply(to_float(in[Unit ? i : i * stride[0]]), v));
  }

  template <bool Unit>
  void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
            tile const& t) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = from_float<T>(Values::apply(to_float(in[Unit ? i : i * stride[0]]), t.value[i]));
  }
};

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
