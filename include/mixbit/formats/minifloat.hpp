// Floats of at most 8 bits: one codec for all of them, by data, and the rules that scale them (docs/numerics.md).
//
// A spec says how many exponent and mantissa bits there are and which codes are special; the codec rounds half to
// even by adding and subtracting a power of two whose last place is the format's, which is exact, branch-free and
// covers subnormals. Values beyond the largest saturate, infinities too.
#pragma once

#include "mixbit/formats/rounding.hpp"

namespace mixbit::formats {

/// `largest_code` is the code of the largest finite value; `nan_code` is negative where the format has no NaN.
struct minifloat_spec {
  int exponent_bits, mantissa_bits, bias;
  int largest_code, nan_code;
};

/// OCP 8-bit Floating Point Specification 1.0: E4M3 has no infinities, and one NaN a sign.
inline constexpr minifloat_spec e4m3_spec{4, 3, 7, 0x7e, 0x7f};

template <minifloat_spec S>
struct minifloat_codec {
  static constexpr int sign_bit = 1 << (S.exponent_bits + S.mantissa_bits);
  static constexpr std::uint32_t drop = 23 - S.mantissa_bits;          // mantissa bits that float32 has beyond ours
  static constexpr std::uint32_t lowest_exponent = 128 - S.bias;       // of normal values, biased as in float32
  static constexpr std::uint32_t quiet_nan = 0x7fc00000u;

  /// The value of a code, exactly. Bits above the sign are ignored.
  MIXBIT_HD static constexpr float value(int code) {
    std::uint32_t const magnitude = static_cast<std::uint32_t>(code & (sign_bit - 1));
    // normal values: the fields moved into float32's place; subnormal ones: a whole number of smallest steps
    float const normal = fp::from_bits((magnitude << drop) + ((lowest_exponent - 1) << 23));
    float const step = fp::from_bits((lowest_exponent - S.mantissa_bits) << 23);
    float const subnormal = fp::mul(static_cast<float>(static_cast<int>(magnitude)), step);
    float const finite = magnitude >> S.mantissa_bits ? normal : subnormal;
    float const unsigned_value = S.nan_code >= 0 && magnitude == static_cast<std::uint32_t>(S.nan_code)
                                     ? fp::from_bits(quiet_nan) : finite;
    return fp::from_bits(fp::bits(unsigned_value) | (code & sign_bit ? 0x80000000u : 0u));
  }

  static constexpr float largest = value(S.largest_code);

  /// The nearest value, ties to the even code; NaN stays NaN (quiet, positive), or is +0 where there is none.
  MIXBIT_HD static constexpr float round(float v) {
    float const magnitude = saturated(v), magic = magic_of(magnitude);
    float const rounded = fp::copy_sign((magnitude + magic) - magic, v);
    std::uint32_t const number = mask_of(!fp::is_nan(v));
    return fp::from_bits((fp::bits(rounded) & number) | ((S.nan_code >= 0 ? quiet_nan : 0u) & ~number));
  }

  /// The code of round(v).
  MIXBIT_HD static constexpr int code(float v) {
    float const magnitude = saturated(v), magic = magic_of(magnitude);
    // the low bits of the sum count steps of the binade, 2^m of which make the next one's exponent field
    std::uint32_t const steps = fp::bits(magnitude + magic) - fp::bits(magic);
    std::uint32_t const binade = (fp::bits(magic) >> 23) - drop - lowest_exponent;
    std::uint32_t const finite = (binade << S.mantissa_bits) + steps;
    std::uint32_t const sign = fp::bits(v) >> 31 ? static_cast<std::uint32_t>(sign_bit) : 0u;
    std::uint32_t const number = mask_of(!fp::is_nan(v)), nan = S.nan_code >= 0 ? S.nan_code : 0;
    return static_cast<int>(((finite | sign) & number) | (nan & ~number));
  }

 private:
  // as signed integers, whose minimum and maximum compilers keep free of branches
  MIXBIT_HD static constexpr float saturated(float v) {
    constexpr std::int32_t top = static_cast<std::int32_t>(fp::bits(value(S.largest_code)));
    std::int32_t const magnitude = static_cast<std::int32_t>(fp::bits(v) & 0x7fffffffu);
    return fp::from_bits(static_cast<std::uint32_t>(magnitude > top ? top : magnitude));
  }

  MIXBIT_HD static constexpr float magic_of(float magnitude) {
    constexpr std::int32_t lowest = static_cast<std::int32_t>(lowest_exponent << 23);
    std::int32_t const exponent = static_cast<std::int32_t>(fp::bits(magnitude) & 0x7f800000u);
    std::int32_t const used = exponent < lowest ? lowest : exponent;
    return fp::from_bits(static_cast<std::uint32_t>(used) + (drop << 23));
  }
};

using e4m3 = minifloat_codec<e4m3_spec>;

template <policy P, class T, class Codec>
class minifloat_rule;

/// `stored`: the scale of the file is the only one. -0 keeps its sign, as a cast does.
template <class T, class Codec>
class minifloat_rule<policy::stored, T, Codec> {
 public:
  MIXBIT_HD constexpr minifloat_rule(element_type const&, dtype scale_type) : scale_type_{scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(scale_type_, fp::div(amax, Codec::largest)); }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr T fake_quantize(scaling const& s, T x) const {
    return from_float<T>(fp::mul(Codec::round(scaled(s, x)), s.backward));
  }
  MIXBIT_HD constexpr int encode(scaling const& s, T x) const { return Codec::code(scaled(s, x)); }
  MIXBIT_HD constexpr T decode(float scale, int code) const {
    return from_float<T>(fp::mul(Codec::value(code), scale));
  }

 private:
  MIXBIT_HD constexpr float scaled(scaling const& s, T x) const {
    return masked(fp::div(to_float(x), s.forward), s.keep);
  }
  dtype scale_type_;
};

/// `modelopt`: scale = largest*(1/amax), two roundings, and its reciprocal on the way back.
template <class T, class Codec>
class minifloat_rule<policy::modelopt, T, Codec> {
 public:
  MIXBIT_HD constexpr minifloat_rule(element_type const&, dtype scale_type) : scale_type_{scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(scale_type_, fp::div(amax, Codec::largest)); }
  MIXBIT_HD constexpr scaling prepare(float amax) const {
    float const used = amax <= tiny_amax ? 1.0f : amax;
    float const scale = fp::mul(Codec::largest, fp::div(1.0f, used));
    return {scale, fp::div(1.0f, scale)};
  }
  MIXBIT_HD constexpr T fake_quantize(scaling const& s, T x) const {
    return from_float<T>(fp::mul(Codec::round(fp::mul(to_float(x), s.forward)), s.backward));
  }
  MIXBIT_HD constexpr int encode(scaling const& s, T x) const { return Codec::code(fp::mul(to_float(x), s.forward)); }
  MIXBIT_HD constexpr T decode(float scale, int code) const {
    return from_float<T>(fp::mul(Codec::value(code), scale));
  }

 private:
  dtype scale_type_;
};

/// `modelopt_pack`: what FP8QTensor writes. Every operation rounds to T, and so does the scale.
template <class T, class Codec>
class minifloat_rule<policy::modelopt_pack, T, Codec> {
 public:
  MIXBIT_HD constexpr minifloat_rule(element_type const&, dtype) {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through<T>(fp::div(amax, Codec::largest)); }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr T fake_quantize(scaling const& s, T x) const {
    return from_float<T>(fp::mul(through<T>(Codec::round(scaled(s, x))), s.backward));
  }
  MIXBIT_HD constexpr int encode(scaling const& s, T x) const { return Codec::code(scaled(s, x)); }
  MIXBIT_HD constexpr T decode(float scale, int code) const {
    return from_float<T>(fp::mul(through<T>(Codec::value(code)), scale));
  }

 private:
  MIXBIT_HD constexpr float scaled(scaling const& s, T x) const {
    return masked(through<T>(fp::div(to_float(x), s.forward)), s.keep);
  }
};

}  // namespace mixbit::formats
