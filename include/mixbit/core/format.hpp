// A format as data: what one element is, how it is scaled, rounded and packed. The arithmetic behind the data is in
// formats/. Exporters, storage accounting and conformance checks read these values; no convention is implied.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "mixbit/core/dtype.hpp"

namespace mixbit {

enum class element_kind : std::uint8_t {
  integer,   ///< two's complement, or unsigned
  minifloat  ///< sign, exponent and mantissa in at most 8 bits
};

/// One element of a format. Integers use `bits`, `is_unsigned` and `narrow_range`; minifloats the two bit counts.
struct element_type {
  element_kind kind = element_kind::integer;
  std::uint8_t bits = 8;
  std::uint8_t exponent_bits = 0, mantissa_bits = 0;
  bool is_unsigned = false;   ///< integers from 0
  bool narrow_range = false;  ///< signed integers from -bound instead of -bound-1
  friend constexpr bool operator==(element_type const&, element_type const&) = default;
};

constexpr element_type integer_element(int bits, bool is_unsigned = false, bool narrow_range = false) {
  return {element_kind::integer, static_cast<std::uint8_t>(bits), 0, 0, is_unsigned, narrow_range};
}

/// FP8 E4M3 without infinities: OCP 8-bit Floating Point Specification 1.0, table 1. Largest value 448.
inline constexpr element_type e4m3_element{element_kind::minifloat, 8, 4, 3, false, false};

/// Where conventions in the field differ (docs/numerics.md).
enum class policy : std::uint8_t {
  stored,        ///< the scale in the file is the only scale: fake quantization equals decode(encode)
  modelopt,      ///< what ModelOpt's fake quantization computes
  modelopt_pack  ///< what ModelOpt's tensor classes write; every operation rounds to the input's type
};

/// How codes lie in memory.
enum class packing : std::uint8_t {
  bytes,               ///< one code a byte; integers sign-extended
  dense_rows,          ///< `bits` a code, low bits first; every row of the last axis starts at a byte
  nibbles_high_first,  ///< ModelOpt's INT4 tensor class: even index in the high nibble, offset 8, over the flat tensor
  nibbles_row_pairs    ///< ModelOpt's exported INT4: rows 2i and 2i+1 of axis 0 in the low and high nibble
};

/// A format whole. `scale_type` is the type in which the file holds a scale.
struct format {
  element_type element{};
  policy numerics = policy::stored;
  dtype scale_type = dtype::f32;
  packing layout = packing::bytes;
  friend constexpr bool operator==(format const&, format const&) = default;
};

constexpr std::string_view name_of(policy p) {
  return p == policy::stored ? "stored" : p == policy::modelopt ? "modelopt" : "modelopt_pack";
}

/// "int4", "uint8", "e4m3", for messages and reports.
inline std::string name_of(element_type const& e) {
  if (e.kind == element_kind::integer)
    return std::string{e.is_unsigned ? "uint" : "int"}.append(std::to_string(e.bits));
  return "e" + std::to_string(e.exponent_bits) + "m" + std::to_string(e.mantissa_bits);
}

}  // namespace mixbit
