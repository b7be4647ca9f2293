// The kernels behind reference::simd by dynamic dispatch: compiled for each instruction set, the best that the machine
// has is picked when the first kernel runs. One source file of a program includes this header, before any other of
// Highway's (foreach_target.h works once a file), defines MIXBIT_SEPARATE_COMPILATION, and is linked with libhwy.
// needs: <hwy/highway.h>
#pragma once

// Of these two the kernels would be compiled again for next to no gain over SSE2 and AVX3.
#if !defined(HWY_DISABLED_TARGETS)
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "mixbit/reference/simd/kernels-inl.hpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first: it includes the kernels for each target but the last
#include "mixbit/reference/simd.hpp"
#include "mixbit/reference/simd/kernels-inl.hpp"

#if defined(MIXBIT_SEPARATE_COMPILATION)

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

namespace simd_kernels {
#define MIXBIT_KERNEL(kernel) HWY_EXPORT(kernel);
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
HWY_EXPORT(instructions);
}  // namespace simd_kernels

#define MIXBIT_KERNEL(kernel)                                                     \
  void simd::kernel(kernel##_args const& a) const {                               \
    using namespace simd_kernels;                                                 \
    HWY_DYNAMIC_DISPATCH(kernel)(threads_, a);                                    \
  }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

std::string_view simd::instructions() {
  using namespace simd_kernels;
  return HWY_DYNAMIC_DISPATCH(instructions)();
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET

#endif
