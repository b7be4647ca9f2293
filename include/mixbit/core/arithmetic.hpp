// A self-test of float32 arithmetic, for what core/fp.hpp cannot refuse at compile time: clang names only -ffast-math
// as a whole in its macros, and flush-to-zero and the rounding mode are state of the thread, which a library that was
// linked with -ffast-math sets when it is loaded.
#pragma once

#include <string_view>

#include "mixbit/core/error.hpp"
#include "mixbit/core/fp.hpp"

namespace mixbit {
namespace detail {

/// x, so that a compiler cannot compute with it.
inline float unknown(float x) {
  float volatile v = x;
  return v;
}

inline bool rounds_to_nearest() {
  float const one = unknown(1.0f), little = unknown(0x1p-25f), much = unknown(0x1.8p-24f);
  return one + little == 1.0f && -one - little == -1.0f && one + much == 1.0f + 0x1p-23f;
}

/// Subnormal numbers as operands and as results.
inline bool keeps_subnormals() {
  float const smallest = unknown(0x1p-149f), normal = unknown(0x1p-126f);
  return fp::bits(smallest + smallest) == 2u && fp::bits(fp::mul(normal, 0.5f)) == 0x00400000u;
}

inline bool keeps_order_of_sums() {
  float const v = unknown(1.3f), magic = unknown(8388608.0f);
  return (v + magic) - magic == 1.0f;
}

inline bool keeps_signs_of_zeros() { return fp::bits(unknown(-0.0f) + 0.0f) == 0u; }

/// A quotient of two floats in double, rounded to float32, is the quotient rounded once (53 >= 2·24 + 2 bits).
inline bool divides() {
  float const divisor = unknown(10.0f);
  bool same = true;
  for (int i = 1; i <= 64; ++i) {
    float const x = static_cast<float>(i);
    same = same && unknown(x / divisor) == static_cast<float>(static_cast<double>(x) / double{unknown(10.0f)});
  }
  return same;
}

/// a*a rounded, less itself; a fused product leaves what was rounded away.
inline bool rounds_products() {
  float const a = unknown(1.0f + 0x1p-12f);
  float const square = unknown(fp::mul(a, a));
  return fp::mul(a, a) - square == 0.0f;
}

}  // namespace detail

/// What of float32 arithmetic is not as docs/numerics.md needs it, in the calling thread; empty where all is well.
/// Inline: where translation units were compiled with different flags, the linker keeps one's copy and the others' go
/// untested, as do kernels that were compiled apart. Give all of a program the same flags for arithmetic.
inline std::string_view arithmetic_fault() {
  if (!detail::rounds_to_nearest()) return "the rounding mode is not to nearest";
  if (!detail::keeps_subnormals()) return "subnormal numbers are flushed to zero";
  if (!detail::keeps_order_of_sums()) return "sums are reassociated";
  if (!detail::keeps_signs_of_zeros()) return "signs of zeros are ignored";
  if (!detail::divides()) return "divisions are replaced by reciprocals";
  if (!detail::rounds_products()) return "products are fused with sums";
  return {};
}

/// Throws `arithmetic_mode` where there is a fault.
inline void check_arithmetic() {
  if (auto const fault = arithmetic_fault(); !fault.empty())
    fail(error_id::arithmetic_mode, "floating-point arithmetic: ", fault,
         "; compile and link without -ffast-math and its parts, and leave the rounding mode and flush-to-zero alone");
}

}  // namespace mixbit
