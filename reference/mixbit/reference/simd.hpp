// reference::simd: the CPU backend of vector kernels, on Google Highway. Its results are those of reference::scalar,
// bit for bit; what has no vector form runs the scalar kernel.
//
//   mixbit::reference::simd cpu;
//   mixbit::thread_pool pool{4};
//   mixbit::reference::simd cpu4{pool};
//
// Included as it is, the kernels are compiled for the one instruction set that the flags name (static dispatch,
// without libhwy). Highway 1.0.3 asks for more than -march: `-march=haswell` or `x86-64-v4` mean AVX2 and AVX-512 to it
// only with `-maes -mpclmul`, and without flags everything is scalar.
//
// A program that is to run any machine's best kernels defines MIXBIT_SEPARATE_COMPILATION for all of its files, and
// includes mixbit/reference/simd_dispatch_impl.hpp in one of them (as reference/simd.cpp does); it links libhwy.
// needs: <hwy/highway.h>
#pragma once

#include "mixbit/core/backend.hpp"
#include "mixbit/core/thread_pool.hpp"
#include "mixbit/reference/host.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

/// Models mixbit::backend. Copies share the executor, which must outlive them. Calls are synchronous, allocate nothing
/// and may be made from several threads.
struct simd : host {
  static constexpr std::string_view name = "reference::simd";

  simd() = default;
  explicit simd(executor_ref threads) : threads_{threads} {}
  executor_ref threads() const { return threads_; }

  /// The instruction set that the kernels use, as Highway names it: "AVX3", "AVX2", "SSE4".
  static std::string_view instructions();

#define MIXBIT_KERNEL(kernel) void kernel(kernel##_args const& a) const;
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

 private:
  executor_ref threads_{};
};

static_assert(backend<simd>);

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET

#if !defined(MIXBIT_SEPARATE_COMPILATION)
#include "mixbit/reference/simd_impl.hpp"
#endif
