// y = T(a - b).
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

template <class T, bool Unit>
void subtract_row(T const* a, T const* b, T* y, std::array<std::int64_t, 3> const& stride, std::int64_t n) {
  MIXBIT_INDEPENDENT_LOOP
  for (std::int64_t i = 0; i < n; ++i)
    y[Unit ? i : i * stride[2]] =
        from_float<T>(to_float(a[Unit ? i : i * stride[0]]) - to_float(b[Unit ? i : i * stride[1]]));
}

inline void subtract(executor_ref const& threads, subtract_args const& args) {
  assert(args.a.same_shape(args.b) && args.a.same_shape(args.y));
  assert(args.a.type == args.b.type && args.a.type == args.y.type);
  loop_nest<3> const nest{{&args.a, &args.b, &args.y}, per_tensor(args.a)};
  visit_compute(args.a.type, [&]<class T>(T) {
    for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
      nest.rows_of(piece, [&](segment<3> const& s) {
        auto const row = nest.unit_stride() ? subtract_row<T, true> : subtract_row<T, false>;
        row(args.a.as<T>() + s.offset[0], args.b.as<T>() + s.offset[1], args.y.as<T>() + s.offset[2],
            nest.inner().stride, s.length);
      });
    });
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
