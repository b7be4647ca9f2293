// The kernels behind reference::simd by static dispatch: for the instruction set that this file is compiled for.
// needs: <hwy/highway.h>
#pragma once

#include "mixbit/reference/simd.hpp"
#include "mixbit/reference/simd/kernels-inl.hpp"

#if !defined(MIXBIT_SEPARATE_COMPILATION)

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

#define MIXBIT_KERNEL(kernel)                                    \
  inline void simd::kernel(kernel##_args const& a) const {       \
    simd_kernels::HWY_STATIC_DISPATCH(kernel)(threads_, a);      \
  }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

inline std::string_view simd::instructions() { return hwy::TargetName(HWY_STATIC_TARGET); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET

#endif
