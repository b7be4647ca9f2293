// Element types: the three that quantizers compute on (f32, f16, bf16) and those that only files hold.
//
// `half` and `bfloat16` are storage types: 16 bits and two conversions. Arithmetic happens in float32, rounded to
// nearest even on the way back (IEEE 754 binary16; bfloat16 as the upper half of binary32).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "mixbit/core/error.hpp"
#include "mixbit/core/fp.hpp"

namespace mixbit {

enum class dtype : std::uint8_t {
  f32, f16, bf16,                                            // compute types
  f64, i8, u8, i16, u16, i32, u32, i64, u64, boolean,        // storage only
  f8_e4m3, f8_e5m2, f8_e8m0
};

/// The number of distinct dtypes, for tables.
inline constexpr int dtype_count = 16;

struct half {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(half, half) = default;
};

struct bfloat16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bfloat16, bfloat16) = default;
};

MIXBIT_HD constexpr float to_float(float x) { return x; }

MIXBIT_HD constexpr float to_float(bfloat16 x) { return fp::from_bits(std::uint32_t{x.bits} << 16); }

MIXBIT_HD constexpr float to_float(half x) {
  std::uint32_t const sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 0x1fu, mantissa = x.bits & 0x3ffu;
  if (exponent == 0x1f) return fp::from_bits(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return fp::from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // zero and subnormals are mantissa * 2^-24, which float32 represents exactly
  return fp::copy_sign(static_cast<float>(mantissa) * 0x1p-24f, fp::from_bits(sign));
}

template <class T>
MIXBIT_HD constexpr T from_float(float x);

template <>
MIXBIT_HD constexpr float from_float<float>(float x) { return x; }

template <>
MIXBIT_HD constexpr bfloat16 from_float<bfloat16>(float x) {
  std::uint32_t const b = fp::bits(x);
  if (fp::is_nan(x)) return {static_cast<std::uint16_t>((b >> 16) | 0x40u)};  // quiet, payload kept
  return {static_cast<std::uint16_t>((b + 0x7fffu + ((b >> 16) & 1u)) >> 16)};
}

template <>
MIXBIT_HD constexpr half from_float<half>(float x) {
  std::uint32_t const b = fp::bits(x), sign = (b >> 16) & 0x8000u, magnitude = b & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // 65520 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, units of 2^-24; the sum rounds half to even
    float const shifted = fp::from_bits(magnitude) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (fp::bits(shifted) - 0x3f000000u))};
  }
  std::uint32_t const rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

/// Maps a C++ type to its dtype; undefined for types that no tensor holds.
template <class T>
struct dtype_of;
template <> struct dtype_of<float> : std::integral_constant<dtype, dtype::f32> {};
template <> struct dtype_of<half> : std::integral_constant<dtype, dtype::f16> {};
template <> struct dtype_of<bfloat16> : std::integral_constant<dtype, dtype::bf16> {};
template <> struct dtype_of<double> : std::integral_constant<dtype, dtype::f64> {};
template <> struct dtype_of<std::int8_t> : std::integral_constant<dtype, dtype::i8> {};
template <> struct dtype_of<std::uint8_t> : std::integral_constant<dtype, dtype::u8> {};
template <> struct dtype_of<std::int32_t> : std::integral_constant<dtype, dtype::i32> {};
template <> struct dtype_of<std::int64_t> : std::integral_constant<dtype, dtype::i64> {};

constexpr bool is_compute(dtype t) { return t == dtype::f32 || t == dtype::f16 || t == dtype::bf16; }

/// Bytes of one element.
constexpr std::size_t size_of(dtype t) {
  switch (t) {
    case dtype::f64: case dtype::i64: case dtype::u64: return 8;
    case dtype::f32: case dtype::i32: case dtype::u32: return 4;
    case dtype::f16: case dtype::bf16: case dtype::i16: case dtype::u16: return 2;
    default: return 1;
  }
}

/// The spelling used in messages and in JSON.
constexpr std::string_view name_of(dtype t) {
  constexpr std::string_view names[dtype_count] = {"float32", "float16", "bfloat16", "float64", "int8",   "uint8",
                                                   "int16",   "uint16",  "int32",    "uint32",  "int64",  "uint64",
                                                   "bool",    "float8_e4m3", "float8_e5m2", "float8_e8m0"};
  return names[static_cast<int>(t)];
}

/// Throws `tensor_dtype`, naming the layer or quantizer `where`, for a type that only files hold.
inline void require_compute(dtype t, std::string_view where) {
  if (t != dtype::f32 && t != dtype::f16 && t != dtype::bf16)
    fail(error_id::tensor_dtype, where, ": quantizers compute on float32, float16 and bfloat16, not on ", name_of(t));
}

/// Calls f with a default-constructed element of the compute type `t`; throws `tensor_dtype` for a storage type. For
/// kernels, which know no names: their callers have said require_compute.
template <class F>
decltype(auto) visit_compute(dtype t, F&& f) {
  switch (t) {
    case dtype::f32: return f(float{});
    case dtype::f16: return f(half{});
    case dtype::bf16: return f(bfloat16{});
    default: fail(error_id::tensor_dtype, "quantizers compute on float32, float16 and bfloat16, not on ", name_of(t));
  }
}

}  // namespace mixbit
