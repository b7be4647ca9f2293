// What kernels note about the data: counted a piece at a time and added atomically.
#pragma once

#include <atomic>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

inline void add_flag(std::uint64_t& counter, std::uint64_t n) {
  if (n != 0) std::atomic_ref<std::uint64_t>{counter}.fetch_add(n, std::memory_order_relaxed);
}

/// Counts values below zero (not -0, not NaN) into flags->negative_unsigned.
inline void count_negative(executor_ref const& threads, const_tensor_ref const& x, data_flags* flags) {
  if (!flags) return;
  loop_nest<1> const nest{{&x}, per_tensor(x)};
  std::int64_t const stride = nest.inner().stride[0];
  visit_compute(x.type, [&]<class T>(T) {
    for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
      std::uint64_t found = 0;
      nest.rows_of(piece, [&](segment<1> const& s) {
        T const* const in = x.as<T>() + s.offset[0];
        for (std::int64_t i = 0; i < s.length; ++i) found += to_float(in[i * stride]) < 0.0f;
      });
      add_flag(flags->negative_unsigned, found);
    });
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
