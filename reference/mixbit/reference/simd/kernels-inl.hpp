// All vector kernels for one instruction set: what static and dynamic dispatch compile.
// needs: <hwy/highway.h>
#include <string_view>

#include "mixbit/reference/simd/amax-inl.hpp"
#include "mixbit/reference/simd/decode-inl.hpp"
#include "mixbit/reference/simd/elementwise-inl.hpp"
#include "mixbit/reference/simd/encode-inl.hpp"
#include "mixbit/reference/simd/fake_quantize-inl.hpp"
#include "mixbit/reference/simd/hadamard-inl.hpp"
#include "mixbit/reference/simd/statistics-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_KERNELS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_KERNELS_INL
#undef MIXBIT_REFERENCE_SIMD_KERNELS_INL
#else
#define MIXBIT_REFERENCE_SIMD_KERNELS_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

inline std::string_view instructions() { return hwy::TargetName(HWY_TARGET); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
