// What the rules of all formats share: clamping, rounding, and the three numbers by which a group is scaled.
//
// Everything is branch-free on values, so that a compiler can vectorise a loop over it, and every operation rounds
// once to float32. A select is written with masks or with both sides computed: g++ does not turn a branch around a
// floating-point operation into vector code.
#pragma once

#include <cstdint>

#include "mixbit/core/dtype.hpp"
#include "mixbit/core/format.hpp"
#include "mixbit/core/fp.hpp"

namespace mixbit::formats {

/// How one group is scaled. What the numbers mean is the rule's matter; `keep` masks the bits of the scaled value, so
/// that a group whose scale is 0 has +0 in it, whatever x is.
struct scaling {
  float forward = 1.0f;
  float backward = 1.0f;
  std::uint32_t keep = 0xffffffffu;
};

/// What a rule needs to know beside its format.
struct rule_inputs {
  dtype type = dtype::f32;  ///< of the tensor: modelopt_pack rounds to it
  float tensor_amax = 0;    ///< for two-level scales
  bool from_data = false;   ///< amax comes from the data of each call (dynamic quantization)
};

/// Rules whose scale in the file is the whole scale.
struct one_level {
  MIXBIT_HD static constexpr float effective(float file_scale, float) { return file_scale; }
};

/// ModelOpt takes an amax of 2^-24 and less for zero.
inline constexpr float tiny_amax = 0x1p-24f;

/// v in [low, high]; NaN stays NaN.
MIXBIT_HD constexpr float clamp(float v, float low, float high) {
  float const above = v < low ? low : v;
  return above > high ? high : above;
}

/// The nearest integer, ties to even, for |v| <= 2^23; keeps NaN and the sign of zero. (m + 2^23) - 2^23 rounds m to an
/// integer in the current mode, which is half to even.
MIXBIT_HD constexpr float round_bounded(float v) {
  float const rounded = (fp::abs(v) + 8388608.0f) - 8388608.0f;
  return fp::copy_sign(rounded, v);
}

/// All ones where `condition` holds. A select by masks keeps both sides unconditional; see above.
MIXBIT_HD constexpr std::uint32_t mask_of(bool condition) { return 0u - static_cast<std::uint32_t>(condition); }

/// v, or +0 where `keep` is 0.
MIXBIT_HD constexpr float masked(float v, std::uint32_t keep) { return fp::from_bits(fp::bits(v) & keep); }

/// v rounded to T and back.
template <class T>
MIXBIT_HD constexpr float through(float v) {
  return to_float(from_float<T>(v));
}

/// v rounded to the type in which a file holds it. Types other than the three compute types are refused by
/// check_format; they leave v as it is here.
MIXBIT_HD constexpr float through(dtype type, float v) {
  return type == dtype::f16 ? through<half>(v) : type == dtype::bf16 ? through<bfloat16>(v) : v;
}

/// 2^exponent for exponents from -127 on, where it is subnormal, to 127.
MIXBIT_HD constexpr float power_of_two(int exponent) {
  return fp::from_bits(exponent <= -127 ? 0x00400000u : static_cast<std::uint32_t>(exponent + 127) << 23);
}

/// The scaling of a group under `stored`: amax/bound, as the file holds it, divides and multiplies.
MIXBIT_HD constexpr scaling stored_scaling(float scale) {
  bool const zero = scale == 0.0f;
  return {zero ? 1.0f : scale, scale, zero ? 0u : 0xffffffffu};
}

}  // namespace mixbit::formats
