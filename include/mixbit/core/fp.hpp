// Float32 arithmetic with one rounding an operation, on the host and on the device.
//
// A compiler may contract a*b+c into one fused operation (g++ does by default where the target has FMA, nvcc does
// always), and the result then differs in the last bit from the definition of a format. `fp::mul` is a product that
// is never contracted. The other operators need no guard: contraction only ever removes a product's rounding.
// Fast-math modes are refused here where macros tell of them, and by core/arithmetic.hpp at run time.
#pragma once

#if defined(__FAST_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__ASSOCIATIVE_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "mixbit: fast-math modes change results; compile without -ffast-math and without any of its parts"
#endif

#include <cstdint>

#if defined(__CUDACC__)
#define MIXBIT_HD __host__ __device__
#else
#define MIXBIT_HD
#endif

namespace mixbit::fp {

#if defined(__CUDACC__) && !defined(__clang__)
namespace detail {
/// nvcc's host side: its front end does not know g++'s barrier, but an empty asm statement is one too.
inline float host_mul(float a, float b) {
  float product = a * b;
  asm("" : "+m"(product));
  return product;
}
}  // namespace detail
#endif

/// a*b rounded once, whatever is done with the result afterwards.
MIXBIT_HD constexpr float mul(float a, float b) {
  if (__builtin_is_constant_evaluated()) return a * b;
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#elif defined(__CUDACC__) && !defined(__clang__)
  return detail::host_mul(a, b);
#elif defined(__clang__)
  {
#pragma clang fp contract(off)
    return a * b;
  }
#elif defined(__GNUC__)
  return __builtin_assoc_barrier(a * b);
#else
  return a * b;
#endif
}

/// a/b rounded to nearest even.
MIXBIT_HD constexpr float div(float a, float b) {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) return __fdiv_rn(a, b);
#endif
  return a / b;
}

MIXBIT_HD constexpr std::uint32_t bits(float x) { return __builtin_bit_cast(std::uint32_t, x); }
MIXBIT_HD constexpr float from_bits(std::uint32_t b) { return __builtin_bit_cast(float, b); }
MIXBIT_HD constexpr bool is_nan(float x) { return (bits(x) & 0x7fffffffu) > 0x7f800000u; }
MIXBIT_HD constexpr bool is_finite(float x) { return (bits(x) & 0x7f800000u) != 0x7f800000u; }
MIXBIT_HD constexpr float abs(float x) { return from_bits(bits(x) & 0x7fffffffu); }
MIXBIT_HD constexpr float copy_sign(float magnitude, float sign) {
  return from_bits((bits(magnitude) & 0x7fffffffu) | (bits(sign) & 0x80000000u));
}

}  // namespace mixbit::fp
