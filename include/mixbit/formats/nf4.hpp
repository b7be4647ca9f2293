// NF4: 16 values at the quantiles of a normal distribution, over a group's amax (QLoRA, Dettmers et al. 2023,
// appendix E; ModelOpt's NF4QTensor, whose table is rounded to bfloat16).
#pragma once

#include "mixbit/formats/rounding.hpp"

namespace mixbit::formats {

inline constexpr int nf4_zero = 7;  ///< the code of 0

/// The value of a code.
MIXBIT_HD constexpr float nf4_value(int code) {
  constexpr float published[16] = {-1.0f,   -0.6962f, -0.5251f, -0.3949f, -0.2844f, -0.1848f, -0.0911f, 0.0f,
                                   0.0796f, 0.1609f,  0.2461f,  0.3379f,  0.4407f,  0.5626f,  0.7230f,  1.0f};
  return through<bfloat16>(published[code & 15]);
}

template <policy P>
class nf4_rule;

/// `stored`: nearest value of x/amax, the lower code on a tie; NaN becomes 0.
template <>
class nf4_rule<policy::stored> : public one_level {
 public:
  MIXBIT_HD constexpr explicit nf4_rule(format const& how, rule_inputs const& = {}) : scale_type_{how.scale_type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(scale_type_, amax); }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const { return decode(s.backward, encode(s, x)); }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const {
    float const v = masked(fp::div(x, s.forward), s.keep);
    int code = 0;
    for (int i = 0; i < 15; ++i) code += v > (nf4_value(i) + nf4_value(i + 1)) * 0.5f ? 1 : 0;  // exact midpoints
    return fp::is_nan(v) ? nf4_zero : code;
  }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(nf4_value(code), scale) + 0.0f; }

 private:
  dtype scale_type_;
};

/// `modelopt_pack`: every operation rounds to the tensor's type; the first of the nearest values wins.
template <>
class nf4_rule<policy::modelopt_pack> : public one_level {
 public:
  MIXBIT_HD constexpr nf4_rule(format const&, rule_inputs const& in) : type_{in.type} {}

  MIXBIT_HD constexpr float file_scale(float amax) const { return through(type_, amax); }
  MIXBIT_HD constexpr scaling prepare(float amax) const { return stored_scaling(file_scale(amax)); }
  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const { return decode(s.backward, encode(s, x)); }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const {
    float const v = masked(through(type_, fp::div(x, s.forward)), s.keep);
    int best = nf4_zero;
    float least = fp::from_bits(0x7f800000u);
    for (int i = 0; i < 16; ++i) {
      float const distance = through(type_, fp::abs(v - through(type_, nf4_value(i))));
      if (distance < least) {
        least = distance;
        best = i;
      }
    }
    return best;
  }
  MIXBIT_HD constexpr float decode(float scale, int code) const { return fp::mul(nf4_value(code), scale); }

 private:
  dtype type_;
};

}  // namespace mixbit::formats
