// The rules of formats/ in vector form. vector_rule<Rule> has the functions of Rule (formats/rules.hpp) that treat
// elements, a vector at a time, but that of the codes of `encode` the low byte alone counts; those that treat groups
// where they are on the fast path of a format, and else the scalar rule itself, as `scalar`. A rule without a vector
// form is left to the scalar kernels.
// `encode_number` and, where it is, `fake_quantize_number` are the same for elements that are not NaN, in groups that
// have a finite scale; `encode_number` gives bytes.
// needs: <hwy/highway.h>
#include "mixbit/formats/rules.hpp"
#include "mixbit/reference/simd/codecs-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_RULES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_RULES_INL
#undef MIXBIT_REFERENCE_SIMD_RULES_INL
#else
#define MIXBIT_REFERENCE_SIMD_RULES_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

/// formats::scaling, of one group for all lanes, or of a group a lane.
struct vector_scaling {
  floats forward, backward;
  words keep;
};

HWY_INLINE vector_scaling splat(formats::scaling const& s) {
  return {splat(s.forward), splat(s.backward), splat(s.keep)};
}

/// formats::stored_scaling.
HWY_INLINE vector_scaling stored_scaling(floats scale) {
  auto const zero = hn::Eq(scale, hn::Zero(float_tag{}));
  words const keep = as_words(hn::IfThenElse(zero, hn::Zero(float_tag{}), as_floats(splat(0xffffffffu))));
  return {hn::IfThenElse(zero, splat(1.0f), scale), scale, keep};
}

/// x over a group's scale; a group without one has +0 in it.
HWY_INLINE floats divided(vector_scaling const& s, floats x) { return masked(hn::Div(x, s.forward), s.keep); }

/// formats::power_of_two of a biased exponent from 0 to 254.
HWY_INLINE floats power_of_two(ints biased) {
  ints const subnormal = hn::And(hn::VecFromMask(int_tag{}, hn::Eq(biased, hn::Zero(int_tag{}))), splat(0x00400000));
  return as_floats(hn::Or(hn::ShiftLeft<23>(biased), subnormal));
}

template <class Rule>
struct vector_rule;

template <class Rule>
concept has_vector_form = requires { sizeof(vector_rule<Rule>); };

template <class VectorRule>
concept has_number_form = requires(VectorRule const& r, vector_scaling s, floats x) { r.fake_quantize_number(s, x); };

/// fake_quantize; with `Number` of elements that are not NaN.
template <bool Number, class VectorRule>
HWY_INLINE floats quantized(VectorRule const& rule, vector_scaling const& s, floats x) {
  if constexpr (Number) return rule.fake_quantize_number(s, x);
  else return rule.fake_quantize(s, x);
}

template <>
struct vector_rule<formats::integer_rule<policy::stored>> {
  formats::integer_rule<policy::stored> scalar;
  integer_grid grid;
  dtype scale_type;

  vector_rule(format const& how, formats::rule_inputs const& in)
      : scalar{how, in}, grid{how.element}, scale_type{how.scale_type} {}
  HWY_INLINE floats file_scale(floats amax) const { return through(scale_type, hn::Div(amax, grid.bound())); }
  HWY_INLINE vector_scaling prepare(floats amax) const { return stored_scaling(file_scale(amax)); }
  HWY_INLINE floats fake_quantize(vector_scaling const& s, floats x) const {
    // the sum makes +0 of a product with the code or the scale 0; others are normal numbers that it leaves alone
    floats const q = grid.round(hn::Div(x, s.forward));
    return hn::IfThenElseZero(hn::Eq(x, x), hn::MulAdd(q, s.backward, hn::Zero(float_tag{})));
  }
  HWY_INLINE ints encode(vector_scaling const& s, floats x) const { return grid.low_bits(divided(s, x)); }
  HWY_INLINE ints encode_number(vector_scaling const& s, floats x) const {
    return grid.byte_of_number(hn::Div(x, s.forward));
  }
  HWY_INLINE floats decode(floats scale, ints code) const {
    return hn::Mul(hn::ConvertTo(float_tag{}, code), scale);
  }
};

template <>
struct vector_rule<formats::integer_rule<policy::modelopt>> {
  formats::integer_rule<policy::modelopt> scalar;
  integer_grid grid;

  vector_rule(format const& how, formats::rule_inputs const& in) : scalar{how, in}, grid{how.element} {}
  HWY_INLINE floats fake_quantize(vector_scaling const& s, floats x) const {
    return hn::Div(grid.round(hn::Mul(x, s.forward)), s.backward);
  }
  HWY_INLINE ints encode(vector_scaling const& s, floats x) const { return grid.low_bits(hn::Mul(x, s.forward)); }
  HWY_INLINE ints encode_number(vector_scaling const& s, floats x) const {
    return grid.byte_of_number(hn::Mul(x, s.forward));
  }
  HWY_INLINE floats decode(floats scale, ints code) const {
    return hn::Mul(hn::ConvertTo(float_tag{}, code), scale);
  }
};

/// What rules share that scale an element, cast it with a codec, and multiply. `Own` has `scaled(s, x)`, and
/// `scaled_number(s, x)` for what is not NaN, in a group that has a scale.
template <class Own, class Codec>
struct codec_rule {
  Codec codec;

  explicit codec_rule(element_type const& e) : codec{e} {}
  HWY_INLINE floats fake_quantize(vector_scaling const& s, floats x) const {
    return hn::Mul(codec.round(own().scaled(s, x)), s.backward);
  }
  HWY_INLINE ints encode(vector_scaling const& s, floats x) const { return codec.code(own().scaled(s, x)); }
  HWY_INLINE ints encode_number(vector_scaling const& s, floats x) const {
    return codec.code_of_number(own().scaled_number(s, x));
  }
  HWY_INLINE floats decode(floats scale, ints code) const { return hn::Mul(codec.value(code), scale); }

 protected:
  HWY_INLINE floats cast_number(vector_scaling const& s, floats x) const {
    return hn::Mul(codec.round_number(own().scaled_number(s, x)), s.backward);
  }

 private:
  HWY_INLINE Own const& own() const { return static_cast<Own const&>(*this); }
};

template <policy P>
  requires(P != policy::modelopt_pack)
struct vector_rule<formats::minifloat_rule<P>> : codec_rule<vector_rule<formats::minifloat_rule<P>>, minifloat_codec> {
  formats::minifloat_rule<P> scalar;
  dtype scale_type;

  vector_rule(format const& how, formats::rule_inputs const& in)
      : vector_rule::codec_rule{how.element}, scalar{how, in}, scale_type{how.scale_type} {}
  HWY_INLINE floats file_scale(floats amax) const {
    return through(scale_type, hn::Div(amax, this->codec.largest()));
  }
  HWY_INLINE vector_scaling prepare(floats amax) const
    requires(P == policy::stored)
  {
    return stored_scaling(file_scale(amax));
  }
  HWY_INLINE floats scaled(vector_scaling const& s, floats x) const {
    return P == policy::stored ? divided(s, x) : hn::Mul(x, s.forward);
  }
  HWY_INLINE floats scaled_number(vector_scaling const& s, floats x) const {
    return P == policy::stored ? hn::Div(x, s.forward) : hn::Mul(x, s.forward);
  }
};

template <>
struct vector_rule<formats::nf4_rule<policy::stored>> {
  formats::nf4_rule<policy::stored> scalar;
  nf4_codec codec;
  dtype scale_type;

  vector_rule(format const& how, formats::rule_inputs const& in) : scalar{how, in}, scale_type{how.scale_type} {}
  HWY_INLINE floats file_scale(floats amax) const { return through(scale_type, amax); }
  HWY_INLINE vector_scaling prepare(floats amax) const { return stored_scaling(file_scale(amax)); }
  HWY_INLINE floats fake_quantize(vector_scaling const& s, floats x) const {
    return decode(s.backward, encode(s, x));
  }
  HWY_INLINE ints encode(vector_scaling const& s, floats x) const { return codec.code(divided(s, x)); }
  HWY_INLINE ints encode_number(vector_scaling const& s, floats x) const {
    return codec.code_of_number(hn::Div(x, s.forward));
  }
  HWY_INLINE floats decode(floats scale, ints code) const {
    return product_without_negative_zero(hn::Mul(codec.value(hn::And(code, splat(15))), scale));
  }
};

template <policy P, class Codec>
  requires(P != policy::modelopt_pack)
struct vector_rule<formats::mx_rule<P, Codec>>
    : codec_rule<vector_rule<formats::mx_rule<P, Codec>>, typename vector_codec<Codec>::type> {
  formats::mx_rule<P, Codec> scalar;
  bool rounds_up;         // scale_rule::mx_nv
  floats zero;            // +0, which makes +0 of -0 when it is added, or -0, which changes nothing
  int largest_exponent;   // of the element, for mx_ocp

  vector_rule(format const& how, formats::rule_inputs const& in)
      : vector_rule::codec_rule{how.element},
        scalar{how, in},
        rounds_up{how.scaling == scale_rule::mx_nv},
        zero{splat(P == policy::stored && how.element.bits == 4 ? 0.0f : -0.0f)},
        largest_exponent{formats::floor_log2(Codec{how.element}.largest())} {}

  HWY_INLINE floats file_scale(floats amax) const {
    auto const none = hn::Eq(amax, hn::Zero(float_tag{}));
    floats const scale = power_of_two(rounds_up ? covering_exponent(amax) : leading_exponent(amax));
    return hn::IfThenElse(none, splat(P == policy::modelopt ? 1.0f : 0x1p-127f), scale);
  }
  HWY_INLINE vector_scaling of_scale(floats scale) const {
    return {hn::Div(splat(1.0f), scale), scale, splat(0xffffffffu)};
  }
  HWY_INLINE vector_scaling prepare(floats amax) const { return of_scale(file_scale(amax)); }
  HWY_INLINE floats fake_quantize(vector_scaling const& s, floats x) const {
    floats const v = scaled(s, x);
    return hn::Mul(P == policy::stored ? this->codec.round_to_code(v) : this->codec.round(v), s.backward);
  }
  HWY_INLINE floats fake_quantize_number(vector_scaling const& s, floats x) const
    requires(P == policy::stored)
  {
    return this->cast_number(s, x);
  }
  HWY_INLINE floats scaled(vector_scaling const& s, floats x) const {
    floats const v = scaled_number(s, x);
    if (P == policy::stored || this->codec.has_nan()) return v;
    return hn::IfThenElse(hn::IsNaN(x), this->codec.largest(), v);
  }
  HWY_INLINE floats scaled_number(vector_scaling const& s, floats x) const {
#if HWY_NATIVE_FMA
    // rounded once, and a zero product plus +0 is +0; a product that underflows is no zero yet, and keeps its sign
    return hn::MulAdd(x, s.forward, zero);
#else
    return hn::Mul(hn::Add(x, zero), s.forward);
#endif
  }

 private:
  /// The biased exponent of amax/largest, rounded up: mx_nv.
  HWY_INLINE ints covering_exponent(floats amax) const {
    ints const ratio = as_ints(hn::Div(amax, this->codec.largest())), field = hn::ShiftRight<23>(ratio);
    ints const beyond = hn::And(ratio, splat(0x7fffff));
    // 2^-127 has a bit of its own among the subnormal quotients
    ints const exact = hn::And(hn::VecFromMask(int_tag{}, hn::Eq(field, hn::Zero(int_tag{}))), splat(0x400000));
    ints const up = hn::VecFromMask(int_tag{}, hn::Gt(beyond, exact));  // -1 where it holds
    return hn::Min(hn::Sub(field, up), splat(254));
  }

  /// The biased difference of the exponents of amax and of the largest element: mx_ocp.
  HWY_INLINE ints leading_exponent(floats amax) const {
    // a subnormal amax has the field 0 instead of its own exponent, and the result is 0 either way
    ints const exponent = hn::Sub(hn::ShiftRight<23>(as_ints(amax)), splat(largest_exponent));
    return hn::Max(hn::Zero(int_tag{}), hn::Min(exponent, splat(254)));
  }
};

template <policy P>
  requires(P != policy::modelopt_pack)
struct vector_rule<formats::nvfp4_rule<P>> : codec_rule<vector_rule<formats::nvfp4_rule<P>>, minifloat_codec> {
  formats::nvfp4_rule<P> scalar;
  minifloat_codec scale_codec;
  float tensor_scale;
  bool dynamic;

  vector_rule(format const& how, formats::rule_inputs const& in)
      : vector_rule::codec_rule{e2m1_element},
        scalar{how, in},
        scale_codec{e4m3_element},
        tensor_scale{scalar.tensor_scale()},
        dynamic{in.from_data} {}

  HWY_INLINE floats file_scale(floats amax) const
    requires(P == policy::stored)
  {
    floats const zero = hn::Zero(float_tag{});
    floats const ratio = hn::Div(amax, splat(fp::mul(6.0f, tensor_scale)));
    floats const used = hn::IfThenElse(hn::Eq(ratio, zero), splat(1.0f), ratio);
    floats const scale = scale_codec.round(clamp(used, splat(0x1p-9f), splat(448.0f)));
    auto const none = hn::Or(hn::Eq(amax, zero), hn::Eq(splat(tensor_scale), zero));
    return hn::IfThenElse(none, splat(1.0f), scale);
  }
  HWY_INLINE vector_scaling of_scale(floats scale) const
    requires(P == policy::stored)
  {
    return stored_scaling(hn::Mul(scale, splat(tensor_scale)));
  }
  HWY_INLINE vector_scaling prepare(floats amax) const
    requires(P == policy::stored)
  {
    return of_scale(file_scale(amax));
  }
  HWY_INLINE floats fake_quantize(vector_scaling const& s, floats x) const {
    floats const y = hn::Mul(this->codec.round(scaled(s, x)), s.backward);
    return P == policy::stored || dynamic ? y : product_without_negative_zero(y);
  }
  HWY_INLINE floats fake_quantize_number(vector_scaling const& s, floats x) const
    requires(P == policy::stored)
  {
    return this->cast_number(s, x);
  }
  HWY_INLINE floats scaled(vector_scaling const& s, floats x) const {
    if constexpr (P == policy::modelopt)
      if (dynamic) return hn::IfThenElse(hn::IsNaN(x), splat(6.0f), hn::Mul(x, s.forward));
    return masked(scaled_number(s, x), s.keep);
  }
  HWY_INLINE floats scaled_number(vector_scaling const& s, floats x) const {
    if constexpr (P == policy::modelopt) return dynamic ? hn::Mul(x, s.forward) : hn::Div(x, s.forward);
    else return hn::Div(without_negative_zero(x), s.forward);
  }
};

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
