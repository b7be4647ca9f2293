// A format as data: what one element is, how it is scaled, rounded and packed. The arithmetic behind the data is in
// formats/. Exporters, storage accounting and conformance checks read these values; no convention is implied.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "mixbit/core/dtype.hpp"

namespace mixbit {

enum class element_kind : std::uint8_t {
  integer,    ///< two's complement, or unsigned
  minifloat,  ///< sign, exponent and mantissa in at most 8 bits
  lookup      ///< indices into a table of values: NF4
};

/// One element of a format. Integers use `is_unsigned` and `narrow_range`; minifloats the two bit counts.
struct element_type {
  element_kind kind = element_kind::integer;
  std::uint8_t bits = 8;
  std::uint8_t exponent_bits = 0, mantissa_bits = 0;
  bool is_unsigned = false;   ///< integers from 0
  bool narrow_range = false;  ///< signed integers from -bound instead of -bound-1
  friend constexpr bool operator==(element_type const&, element_type const&) = default;
};

MIXBIT_HD constexpr element_type integer_element(int bits, bool is_unsigned = false, bool narrow_range = false) {
  return {element_kind::integer, static_cast<std::uint8_t>(bits), 0, 0, is_unsigned, narrow_range};
}

MIXBIT_HD constexpr element_type minifloat_element(int exponent_bits, int mantissa_bits) {
  return {element_kind::minifloat, static_cast<std::uint8_t>(1 + exponent_bits + mantissa_bits),
          static_cast<std::uint8_t>(exponent_bits), static_cast<std::uint8_t>(mantissa_bits), false, false};
}

/// FP8: OCP 8-bit Floating Point Specification 1.0, table 1. E4M3 has no infinities and reaches 448, E5M2 57344.
inline constexpr element_type e4m3_element = minifloat_element(4, 3), e5m2_element = minifloat_element(5, 2);
/// FP6 and FP4: OCP Microscaling Formats 1.0, tables 3 and 5. Without NaN; they reach 28, 7.5 and 6.
inline constexpr element_type e3m2_element = minifloat_element(3, 2), e2m3_element = minifloat_element(2, 3),
                              e2m1_element = minifloat_element(2, 1);
/// FP5: FP6-LLM (Xia et al., 2024) and torchao's floatx, whose values have the usual bias and no special codes; they
/// reach 7 and 24.
inline constexpr element_type e2m2_element = minifloat_element(2, 2), e3m1_element = minifloat_element(3, 1);
/// ModelOpt's other splits of 4 bits; they reach 3.5, 7 and 16.
inline constexpr element_type e1m2_element = minifloat_element(1, 2), e0m3_element = minifloat_element(0, 3),
                              e3m0_element = minifloat_element(3, 0);
/// All of them; what is written over minifloats reads this list.
inline constexpr element_type minifloat_elements[] = {e4m3_element, e5m2_element, e3m2_element, e2m3_element,
                                                      e2m2_element, e3m1_element, e2m1_element, e1m2_element,
                                                      e0m3_element, e3m0_element};

/// NormalFloat: QLoRA (Dettmers et al., 2023), appendix E, with ModelOpt's rounding of its table to bfloat16.
inline constexpr element_type nf4_element{element_kind::lookup, 4, 0, 0, false, false};

/// Where conventions in the field differ (docs/numerics.md).
enum class policy : std::uint8_t {
  stored,           ///< the scale in the file is the only scale: fake quantization equals decode(encode)
  modelopt,         ///< what ModelOpt's fake quantization computes; for dynamic NVFP4 its CUDA extension
  modelopt_triton,  ///< the same, but for dynamic NVFP4 its Triton kernel (compute capability 8.9 and later)
  modelopt_pack     ///< what ModelOpt's tensor classes write; every operation rounds to the input's type
};

/// How the scale of a group follows from its amax.
enum class scale_rule : std::uint8_t {
  ratio,          ///< amax/bound, in scale_type
  mx_nv,          ///< a power of two that covers amax/bound: its exponent is rounded up
  mx_ocp,         ///< the power of two of OCP Microscaling 1.0, section 6.3: amax may saturate
  two_level,      ///< NVFP4: E4M3 a group, times one float32 scale a tensor
  four_over_six   ///< the same, with amax on the value 6 or on 4, whichever errs less
};

constexpr bool is_mx(scale_rule r) { return r == scale_rule::mx_nv || r == scale_rule::mx_ocp; }
constexpr bool is_two_level(scale_rule r) { return r == scale_rule::two_level || r == scale_rule::four_over_six; }

/// How codes lie in memory.
enum class packing : std::uint8_t {
  bytes,               ///< one code a byte, integers sign-extended; 16-bit integers in two, low byte first
  dense_rows,          ///< `bits` a code, low bits first; every row of the last axis starts at a byte
  nibbles_high_first,  ///< ModelOpt's INT4 and NF4 tensor classes: even index in the high nibble, over the flat tensor;
                       ///< integers with an offset of 8
  nibbles_row_pairs    ///< ModelOpt's exported INT4: rows 2i and 2i+1 of axis 0 in the low and high nibble
};

/// A format whole. `scale_type` is the type in which the file holds a scale.
struct format {
  element_type element{};
  policy numerics = policy::stored;
  dtype scale_type = dtype::f32;
  packing layout = packing::bytes;
  scale_rule scaling = scale_rule::ratio;
  std::int32_t scale_block = 0;  ///< double quantization: groups a block of int8 scales; 0: scales are held as they are
  friend constexpr bool operator==(format const&, format const&) = default;
};

constexpr std::string_view name_of(policy p) {
  switch (p) {
    case policy::modelopt: return "modelopt";
    case policy::modelopt_triton: return "modelopt_triton";
    case policy::modelopt_pack: return "modelopt_pack";
    default: return "stored";
  }
}

constexpr std::string_view name_of(scale_rule r) {
  constexpr std::string_view names[] = {"ratio", "mx_nv", "mx_ocp", "two_level", "four_over_six"};
  return names[static_cast<int>(r)];
}

/// "int4", "uint8", "e4m3", "nf4", for messages and reports.
inline std::string name_of(element_type const& e) {
  if (e.kind == element_kind::integer)
    return std::string{e.is_unsigned ? "uint" : "int"}.append(std::to_string(e.bits));
  if (e.kind == element_kind::lookup) return "nf4";
  return "e" + std::to_string(e.exponent_bits) + "m" + std::to_string(e.mantissa_bits);
}

/// "int8", "e2m1 two_level".
inline std::string name_of(format const& how) {
  std::string text = name_of(how.element);
  if (how.scaling != scale_rule::ratio) text.append(" ").append(name_of(how.scaling));
  if (how.scale_block != 0) text += " with int8 scales";
  return text;
}

}  // namespace mixbit
