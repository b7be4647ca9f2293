// Microscaling: blocks that share a power of two as their scale, held as E8M0 (OCP Microscaling Formats 1.0; scale
// rule `mx_nv` is ModelOpt's compute_scale_e8m0_NV). Exact: multiplying by a power of two rounds only to subnormals.
#pragma once

#include "mixbit/formats/integer.hpp"
#include "mixbit/formats/minifloat.hpp"

namespace mixbit::formats {

/// MXINT8: symmetric, its codes from -127 to 127 (ModelOpt's INT8; OCP's counts them in 64ths).
class mx_integer_codec {
 public:
  MIXBIT_HD constexpr explicit mx_integer_codec(element_type const& e)
      : grid_{integer_element(e.bits, false, true)} {}
  MIXBIT_HD constexpr float largest() const { return grid_.bound(); }
  MIXBIT_HD constexpr bool has_nan() const { return false; }
  MIXBIT_HD constexpr float round(float v) const { return grid_.round(v); }
  MIXBIT_HD constexpr float round_to_code(float v) const { return grid_.round_to_code(v); }
  MIXBIT_HD constexpr int code(float v) const { return static_cast<int>(round_to_code(v)); }
  MIXBIT_HD constexpr float value(int code) const { return static_cast<float>(code); }

 private:
  integer_grid grid_;
};

/// floor(log2(v)) of a positive finite v.
MIXBIT_HD constexpr int floor_log2(float v) {
  auto const field = static_cast<int>(fp::bits(v) >> 23);
  if (field != 0) return field - 127;
  auto const steps = static_cast<float>(fp::bits(v));  // of 2^-149; exact
  return static_cast<int>(fp::bits(steps) >> 23) - 127 - 149;
}

/// How many float32 steps above 2^exponent a float32 log2 still rounds to the exponent: half a step of the exponent
/// itself, over the slope 1/ln 2 of the logarithm there. Below a power of two its steps are half as wide.
MIXBIT_HD constexpr std::uint32_t log2_slack(int exponent) {
  auto const magnitude = static_cast<std::uint32_t>(exponent < 0 ? -exponent : exponent);
  if (magnitude == 0) return 0;
  bool const narrow = exponent < 0 && (magnitude & (magnitude - 1u)) == 0;
  float const power = fp::from_bits(fp::bits(static_cast<float>(magnitude)) & 0x7f800000u);  // not above magnitude
  float const steps = fp::mul(power, narrow ? 0.17328680f : 0.34657359f);
  return static_cast<std::uint32_t>(steps);
}

/// The exponent of a block's scale, -127 to 127; -127 for an amax of 0. `float_log` rounds the logarithm to float32
/// first, as ModelOpt's packers do.
MIXBIT_HD constexpr int mx_exponent(scale_rule rule, float amax, float largest, bool float_log) {
  if (amax == 0.0f) return -127;
  if (rule == scale_rule::mx_ocp) {
    int const exponent = floor_log2(amax) - floor_log2(largest);
    return exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
  }
  std::uint32_t const ratio = fp::bits(fp::div(amax, largest)), field = ratio >> 23, beyond = ratio & 0x7fffffu;
  int const exponent = static_cast<int>(field) - 127;
  if (field == 0) return exponent + (beyond > 0x400000u ? 1 : 0);  // 2^-127 has a bit of its own there
  if (exponent == 127) return exponent;
  return exponent + (beyond > (float_log ? log2_slack(exponent) : 0u) ? 1 : 0);
}

template <policy P, class Codec>
class mx_rule : public one_level {
 public:
  MIXBIT_HD constexpr explicit mx_rule(format const& how, rule_inputs const& = {})
      : codec_{how.element}, rule_{how.scaling}, four_bits_{how.element.bits == 4} {}

  MIXBIT_HD constexpr float file_scale(float amax) const {
    if (P == policy::modelopt && amax == 0.0f) return 1.0f;
    return power_of_two(mx_exponent(rule_, amax, codec_.largest(), P == policy::modelopt_pack));
  }
  MIXBIT_HD constexpr scaling of_scale(float scale) const { return {fp::div(1.0f, scale), scale}; }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return of_scale(file_scale(amax)); }
  MIXBIT_HD static constexpr float alternative(float amax) { return amax; }
  MIXBIT_HD static constexpr bool has_alternative() { return false; }

  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    if constexpr (P == policy::modelopt_pack) return decode(s.backward, encode(s, x));
    else if constexpr (P == policy::stored) return fp::mul(codec_.round_to_code(scaled(s, x)), s.backward);
    else return fp::mul(codec_.round(scaled(s, x)), s.backward);
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const {
    if constexpr (P == policy::modelopt_pack)
      if (four_bits_) return e2m1_ties_down(scaled(s, x));
    return codec_.code(scaled(s, x));
  }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(codec_.value(code), scale); }

 private:
  MIXBIT_HD constexpr float scaled(scaling const& s, float x) const {
    if constexpr (P == policy::stored) {
      // the code of -0 belongs to negative values that round to zero: -0 itself becomes +0
      return fp::mul(four_bits_ ? x + 0.0f : x, s.forward);
    } else if constexpr (P == policy::modelopt) {
      bool const saturates = fp::is_nan(x) && !codec_.has_nan();
      return saturates ? codec_.largest() : fp::mul(x, s.forward);
    } else {
      return fp::mul(x, s.forward);
    }
  }

  /// MXFP4QTensor: ties go toward zero, and exact zeros take the code of -0.
  MIXBIT_HD static constexpr int e2m1_ties_down(float v) {
    float const magnitude = fp::abs(v);
    int code = v > 0.0f || fp::is_nan(v) ? 0 : 8;
    for (float const bound : {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f}) code += magnitude > bound ? 1 : 0;
    return code;
  }

  Codec codec_;
  scale_rule rule_;
  bool four_bits_;
};

}  // namespace mixbit::formats
