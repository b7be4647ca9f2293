// The kernels behind reference::scalar. With MIXBIT_SEPARATE_COMPILATION this header is what one source file of a
// program includes, compiled for the same target as the others.
#pragma once

#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/scalar/amax.hpp"
#include "mixbit/reference/scalar/backward_mask.hpp"
#include "mixbit/reference/scalar/decode.hpp"
#include "mixbit/reference/scalar/encode.hpp"
#include "mixbit/reference/scalar/extremes.hpp"
#include "mixbit/reference/scalar/fake_quantize.hpp"
#include "mixbit/reference/scalar/gradient_score.hpp"
#include "mixbit/reference/scalar/hadamard.hpp"
#include "mixbit/reference/scalar/histogram.hpp"
#include "mixbit/reference/scalar/scale_channels.hpp"
#include "mixbit/reference/scalar/shift.hpp"
#include "mixbit/reference/scalar/subtract.hpp"
#include "mixbit/reference/scalar/sum.hpp"

#if defined(MIXBIT_SEPARATE_COMPILATION)
#define MIXBIT_REFERENCE_INLINE
#else
#define MIXBIT_REFERENCE_INLINE inline
#endif

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

#define MIXBIT_KERNEL(kernel) \
  MIXBIT_REFERENCE_INLINE void scalar::kernel(kernel##_args const& a) const { scalar_kernels::kernel(threads_, a); }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET

#undef MIXBIT_REFERENCE_INLINE
