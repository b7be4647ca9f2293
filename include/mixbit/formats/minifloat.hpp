// Floats of at most 8 bits: one codec for all of them, by data, and the rules that scale them by a ratio
// (docs/numerics.md).
//
// The codec rounds half to even by adding and subtracting a power of two whose last place is the format's, which is
// exact, branch-free and covers subnormals. Values beyond the largest saturate, infinities too.
#pragma once

#include "mixbit/formats/rounding.hpp"

namespace mixbit::formats {

/// What cannot be told from the two bit counts: where the exponents lie and which codes are special.
struct minifloat_codes {
  int bias = 0;
  int largest = 0;        ///< the code of the largest finite value
  int nan = -1;           ///< negative: there is none
  bool infinite = false;  ///< the code behind the largest is infinity
};

/// The formats there are; the sources stand at their elements in core/format.hpp.
MIXBIT_HD constexpr minifloat_codes codes_of(element_type const& e) {
  auto const is = [&](element_type const& known) { return e == known; };
  if (is(minifloat_element(4, 3))) return {7, 0x7e, 0x7f, false};
  if (is(minifloat_element(5, 2))) return {15, 0x7b, 0x7e, true};
  int const largest = (1 << (e.exponent_bits + e.mantissa_bits)) - 1;
  if (is(minifloat_element(1, 2))) return {0, largest, -1, false};
  if (is(minifloat_element(0, 3))) return {-2, largest, -1, false};
  return {(1 << (e.exponent_bits - 1)) - 1, largest, -1, false};
}

class minifloat_codec {
 public:
  MIXBIT_HD constexpr explicit minifloat_codec(element_type const& e)
      : special_{codes_of(e)},
        sign_bit_{1u << (e.exponent_bits + e.mantissa_bits)},
        mantissa_bits_{e.mantissa_bits},
        drop_{23u - e.mantissa_bits},
        lowest_exponent_{static_cast<std::uint32_t>(128 - special_.bias)},
        away_from_{e.mantissa_bits == 0 ? static_cast<std::int32_t>((lowest_exponent_ - 1) << 23) : 0x7fffffff},
        top_{static_cast<std::int32_t>(fp::bits(value(special_.largest)))} {}

  MIXBIT_HD constexpr float largest() const { return fp::from_bits(static_cast<std::uint32_t>(top_)); }
  MIXBIT_HD constexpr bool has_nan() const { return special_.nan >= 0; }

  /// The value of a code, exactly. Bits above the sign are ignored.
  MIXBIT_HD constexpr float value(int code) const {
    std::uint32_t const magnitude = static_cast<std::uint32_t>(code) & (sign_bit_ - 1u);
    // normal values: the fields moved into float32's place; subnormal ones: a whole number of smallest steps
    float const normal = fp::from_bits((magnitude << drop_) + ((lowest_exponent_ - 1u) << 23));
    float const step = fp::from_bits((lowest_exponent_ - static_cast<std::uint32_t>(mantissa_bits_)) << 23);
    float const subnormal = fp::mul(static_cast<float>(static_cast<int>(magnitude)), step);
    float const finite = magnitude >> mantissa_bits_ ? normal : subnormal;
    auto const largest = static_cast<std::uint32_t>(special_.largest);
    std::uint32_t const strange = special_.infinite && magnitude == largest + 1u ? 0x7f800000u : quiet_nan;
    std::uint32_t const bits = magnitude > largest ? strange : fp::bits(finite);
    return fp::from_bits(bits | (static_cast<std::uint32_t>(code) & sign_bit_ ? 0x80000000u : 0u));
  }

  /// The nearest value, ties to the even code (without mantissa bits: away from zero). NaN stays NaN (quiet,
  /// positive), or is +0 where there is none.
  MIXBIT_HD constexpr float round(float v) const {
    float const magnitude = bounded(v), magic = magic_of(magnitude);
    float const rounded = fp::copy_sign((magnitude + magic) - magic, v);
    std::uint32_t const number = mask_of(!fp::is_nan(v));
    return fp::from_bits((fp::bits(rounded) & number) | ((has_nan() ? quiet_nan : 0u) & ~number));
  }

  /// The value of code(v), which is round(v).
  MIXBIT_HD constexpr float round_to_code(float v) const { return round(v); }

  /// The code of round(v).
  MIXBIT_HD constexpr int code(float v) const {
    float const magnitude = bounded(v), magic = magic_of(magnitude);
    // the low bits of the sum count steps of the binade, 2^m of which make the next one's exponent field
    std::uint32_t const steps = fp::bits(magnitude + magic) - fp::bits(magic);
    std::uint32_t const binade = (fp::bits(magic) >> 23) - drop_ - lowest_exponent_;
    std::uint32_t const finite = (binade << mantissa_bits_) + steps;
    std::uint32_t const sign = fp::bits(v) >> 31 ? sign_bit_ : 0u;
    std::uint32_t const number = mask_of(!fp::is_nan(v));
    std::uint32_t const nan = has_nan() ? static_cast<std::uint32_t>(special_.nan) : 0u;
    return static_cast<int>(((finite | sign) & number) | (nan & ~number));
  }

 private:
  static constexpr std::uint32_t quiet_nan = 0x7fc00000u;

  // as signed integers, whose minimum and maximum compilers keep free of branches
  MIXBIT_HD constexpr float bounded(float v) const {
    std::int32_t magnitude = static_cast<std::int32_t>(fp::bits(v) & 0x7fffffffu);
    magnitude = magnitude > top_ ? top_ : magnitude;
    // without mantissa bits the half of the smallest value goes up, and half to even would take it down
    std::int32_t const smallest = magnitude >= away_from_ ? static_cast<std::int32_t>(lowest_exponent_ << 23) : 0;
    return fp::from_bits(static_cast<std::uint32_t>(magnitude < smallest ? smallest : magnitude));
  }

  MIXBIT_HD constexpr float magic_of(float magnitude) const {
    auto const lowest = static_cast<std::int32_t>(lowest_exponent_ << 23);
    std::int32_t const exponent = static_cast<std::int32_t>(fp::bits(magnitude) & 0x7f800000u);
    std::int32_t const used = exponent < lowest ? lowest : exponent;
    return fp::from_bits(static_cast<std::uint32_t>(used) + (drop_ << 23));
  }

  minifloat_codes special_;
  std::uint32_t sign_bit_;
  int mantissa_bits_;
  std::uint32_t drop_;             // mantissa bits that float32 has beyond ours
  std::uint32_t lowest_exponent_;  // of normal values, biased as in float32
  std::int32_t away_from_, top_;   // bits of float32 magnitudes
};

/// A codec whose format is known at compile time: a type without data, because device code can call static functions
/// but cannot name a constant object of the host's.
template <int ExponentBits, int MantissaBits>
struct fixed_minifloat {
  MIXBIT_HD static constexpr minifloat_codec codec() {
    constexpr minifloat_codec made{minifloat_element(ExponentBits, MantissaBits)};
    return made;
  }
  MIXBIT_HD static constexpr float largest() { return codec().largest(); }
  MIXBIT_HD static constexpr float value(int code) { return codec().value(code); }
  MIXBIT_HD static constexpr float round(float v) { return codec().round(v); }
  MIXBIT_HD static constexpr int code(float v) { return codec().code(v); }
};

using e4m3 = fixed_minifloat<4, 3>;
using e5m2 = fixed_minifloat<5, 2>;
using e2m1 = fixed_minifloat<2, 1>;

template <policy P>
class minifloat_rule;

/// `stored`: the scale of the file is the only one. -0 keeps its sign, as a cast does.
template <>
class minifloat_rule<policy::stored> : public one_level {
 public:
  MIXBIT_HD constexpr explicit minifloat_rule(format const& how, rule_inputs const& = {})
      : codec_{how.element}, scale_type_{how.scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const {
    return through(scale_type_, fp::div(amax, codec_.largest()));
  }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    return fp::mul(codec_.round(scaled(s, x)), s.backward);
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const { return codec_.code(scaled(s, x)); }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(codec_.value(code), scale); }

 private:
  MIXBIT_HD constexpr float scaled(scaling const& s, float x) const { return masked(fp::div(x, s.forward), s.keep); }
  minifloat_codec codec_;
  dtype scale_type_;
};

/// `modelopt`: scale = largest*(1/amax), two roundings, and its reciprocal on the way back.
template <>
class minifloat_rule<policy::modelopt> : public one_level {
 public:
  MIXBIT_HD constexpr explicit minifloat_rule(format const& how, rule_inputs const& = {})
      : codec_{how.element}, scale_type_{how.scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const {
    return through(scale_type_, fp::div(amax, codec_.largest()));
  }
  MIXBIT_HD constexpr scaling prepare(float amax) const {
    float const used = amax <= tiny_amax ? 1.0f : amax;
    float const scale = fp::mul(codec_.largest(), fp::div(1.0f, used));
    return {scale, fp::div(1.0f, scale)};
  }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    return fp::mul(codec_.round(fp::mul(x, s.forward)), s.backward);
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const { return codec_.code(fp::mul(x, s.forward)); }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(codec_.value(code), scale); }

 private:
  minifloat_codec codec_;
  dtype scale_type_;
};

/// `modelopt_pack`: what FP8QTensor writes. Every operation rounds to the tensor's type, and so does the scale.
template <>
class minifloat_rule<policy::modelopt_pack> : public one_level {
 public:
  MIXBIT_HD constexpr minifloat_rule(format const& how, rule_inputs const& in)
      : codec_{how.element}, type_{in.type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(type_, fp::div(amax, codec_.largest())); }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    return fp::mul(through(type_, codec_.round(scaled(s, x))), s.backward);
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const { return codec_.code(scaled(s, x)); }
  MIXBIT_HD constexpr float decode(float scale, int code) const {
    return fp::mul(through(type_, codec_.value(code)), scale);
  }

 private:
  MIXBIT_HD constexpr float scaled(scaling const& s, float x) const {
    return masked(through(type_, fp::div(x, s.forward)), s.keep);
  }
  minifloat_codec codec_;
  dtype type_;
};

}  // namespace mixbit::formats
