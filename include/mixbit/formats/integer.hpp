// Integers of 1 to 24 bits, unsigned ones to 23: the one definition of what happens to a value (docs/numerics.md).
//
// A rule is made from a format and holds its bounds. `prepare` turns a group's amax into a scaling once;
// `fake_quantize`, `encode` and `decode` then treat one value each. Codes are the integers themselves. Rounding adds
// and subtracts 2^23, which is exact up to bounds of that size; files hold codes of up to 8 bits, or 16.
#pragma once

#include "mixbit/formats/rounding.hpp"

namespace mixbit::formats {

inline constexpr int widest_integer = 24;  ///< bits, for fake quantization; unsigned: one fewer

/// Widths that files hold.
MIXBIT_HD constexpr bool has_codes(int bits) { return bits <= 8 || bits == 16; }

/// The largest code. Signed integers of 1 bit have none: check_format refuses them.
MIXBIT_HD constexpr float integer_bound(element_type const& e) {
  return static_cast<float>((std::int32_t{1} << (e.bits - 1 + (e.is_unsigned ? 1 : 0))) - 1);
}

/// The smallest code.
MIXBIT_HD constexpr float integer_minimum(element_type const& e) {
  float const bound = integer_bound(e);
  return e.is_unsigned ? 0.0f : e.narrow_range ? -bound : -bound - 1.0f;
}

/// ModelOpt's INT4 tensor class keeps the reciprocal: its scale multiplies on the way in and divides on the way out.
MIXBIT_HD constexpr bool packs_inverse_scale(element_type const& e) {
  return e.kind == element_kind::integer && e.bits == 4;
}

/// The grid shared by all policies: clamp, then round half to even. Both orders give the same, for whole bounds.
class integer_grid {
 public:
  MIXBIT_HD constexpr explicit integer_grid(element_type const& e)
      : low_{integer_minimum(e)}, high_{integer_bound(e)} {}
  MIXBIT_HD constexpr float bound() const { return high_; }

  /// NaN stays NaN and -0 stays -0.
  MIXBIT_HD constexpr float round(float v) const { return round_bounded(clamp(v, low_, high_)); }

  /// As a file holds it: NaN has no code and becomes 0, -0 becomes +0.
  MIXBIT_HD constexpr float round_to_code(float v) const {
    float const q = round(v);
    return masked(q, mask_of(!fp::is_nan(q))) + 0.0f;
  }

 private:
  float low_, high_;
};

template <policy P>
class integer_rule;

/// `stored`: the scale of the file is the only one, so fake_quantize is decode(encode) by construction.
template <>
class integer_rule<policy::stored> : public one_level {
 public:
  MIXBIT_HD constexpr explicit integer_rule(format const& how, rule_inputs const& = {})
      : grid_{how.element}, scale_type_{how.scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(scale_type_, fp::div(amax, grid_.bound())); }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    return fp::mul(quantize(s, x), s.backward);
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const { return static_cast<int>(quantize(s, x)); }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(static_cast<float>(code), scale); }

 private:
  MIXBIT_HD constexpr float quantize(scaling const& s, float x) const {
    return grid_.round_to_code(masked(fp::div(x, s.forward), s.keep));
  }
  integer_grid grid_;
  dtype scale_type_;
};

/// `modelopt`: scale = bound/amax multiplies and then divides (torch's tensor_quant on every device). Files hold the
/// same codes with amax/bound, so decoding may differ from fake quantization in the last bit.
template <>
class integer_rule<policy::modelopt> : public one_level {
 public:
  MIXBIT_HD constexpr explicit integer_rule(format const& how, rule_inputs const& = {})
      : grid_{how.element}, scale_type_{how.scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(scale_type_, fp::div(amax, grid_.bound())); }
  MIXBIT_HD constexpr scaling prepare(float amax) const {
    if (amax <= tiny_amax) return {0.0f, 1.0f};  // y = x*0: the zero keeps x's sign
    float const scale = fp::div(grid_.bound(), amax);
    return {scale, scale};
  }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    return fp::div(grid_.round(fp::mul(x, s.forward)), s.backward);
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const {
    return static_cast<int>(grid_.round_to_code(fp::mul(x, s.forward)));
  }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(static_cast<float>(code), scale); }

 private:
  integer_grid grid_;
  dtype scale_type_;
};

/// `modelopt_pack`: what INT8QTensor and INT4QTensor write. Every operation rounds to the tensor's type, and so does
/// the scale.
template <>
class integer_rule<policy::modelopt_pack> : public one_level {
 public:
  MIXBIT_HD constexpr integer_rule(format const& how, rule_inputs const& in)
      : grid_{how.element}, type_{in.type}, inverse_{packs_inverse_scale(how.element)} {}

  MIXBIT_HD constexpr float file_scale(float amax) const {
    if (!inverse_) return through(type_, fp::div(amax, grid_.bound()));
    return through(type_, fp::mul(grid_.bound(), through(type_, fp::div(1.0f, amax))));
  }
  MIXBIT_HD constexpr scaling prepare(float amax) const {
    if (amax == 0.0f) return {1.0f, 1.0f, 0u};
    float const scale = file_scale(amax);
    if (!inverse_) return stored_scaling(scale);
    return {scale, scale, fp::is_finite(scale) ? 0xffffffffu : 0u};
  }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const { return decode(s.backward, encode(s, x)); }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const {
    float const scaled = inverse_ ? fp::mul(x, s.forward) : fp::div(x, s.forward);
    return static_cast<int>(grid_.round_to_code(masked(through(type_, scaled), s.keep)));
  }
  MIXBIT_HD constexpr float decode(float scale, int code) const {
    float const q = static_cast<float>(code);
    return inverse_ ? fp::div(q, scale) : fp::mul(q, scale);
  }

 private:
  integer_grid grid_;
  dtype type_;
  bool inverse_;
};

}  // namespace mixbit::formats
