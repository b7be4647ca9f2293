// Integers of long groups without a division: by_products<Rule> has the functions of vector_rule<Rule>, where the
// target multiplies and adds at once.
//
// An element times the scale's inverse is corrected by what that leaves of the element, over the scale. Before its one
// last rounding the sum is within 2^-46 of the quotient, and so is rounded otherwise only if the quotient lies as close
// to the middle between two float32. Codes depend on that only where one of the two is a middle between codes. There
// sum and quotient were the same in all tries: for all 2^23 scales of a binade, each middle of 9 bits and the float32
// within two places of their product (10.7 thousand million). Other scales differ by a power of two alone.
//
// Blocks and fp8 gain nothing: a division waits beside their other operations.
// needs: <hwy/highway.h>
#include "mixbit/reference/simd/rules-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_QUOTIENTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_QUOTIENTS_INL
#undef MIXBIT_REFERENCE_SIMD_QUOTIENTS_INL
#else
#define MIXBIT_REFERENCE_SIMD_QUOTIENTS_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

/// The scales that products bear: their inverse is a normal number, the largest elements stay finite, and what is left
/// of an element is exact down to a quotient of 1/2.
inline constexpr float least_moderate = 0x1p-64f, largest_moderate = 0x1p64f;

/// A group's scale, its inverse, what decodes, and the elements beyond which all are coded alike.
struct product_scaling {
  floats forward, inverse, backward, low, high;
};

/// x over the scale, near enough to round it to a code; between the smallest code and the largest. NaN stays NaN, and
/// zeros keep their sign.
HWY_INLINE floats quotient(product_scaling const& s, floats x) {
  floats const v = clamp(x, s.low, s.high), q = hn::Mul(v, s.inverse);
  return hn::NegMulAdd(hn::MulSub(q, s.forward, v), s.inverse, q);
}

/// Made from the vector rule. `holds(rule, scale)`: is the format one whose middles were tried, and the scale moderate?
template <class Rule>
struct by_products;

template <class Rule>
concept has_products = HWY_NATIVE_FMA != 0 && requires { sizeof(by_products<Rule>); };

template <>
struct by_products<formats::integer_rule<policy::stored>> : vector_rule<formats::integer_rule<policy::stored>> {
  HWY_INLINE explicit by_products(vector_rule const& rule) : vector_rule{rule} {}
  HWY_INLINE static bool holds(vector_rule const& rule, float scale) {
    return hn::GetLane(rule.grid.bound()) <= 255.0f && scale >= least_moderate && scale <= largest_moderate;
  }
  HWY_INLINE product_scaling scaling(vector_scaling const& s) const {
    return {s.forward, hn::Div(splat(1.0f), s.forward), s.backward, hn::Mul(grid.low(), s.forward),
            hn::Mul(grid.bound(), s.forward)};
  }
  HWY_INLINE floats fake_quantize(product_scaling const& s, floats x) const {
    return hn::IfThenElseZero(hn::Eq(x, x), fake_quantize_number(s, x));
  }
  /// NaN stays NaN.
  HWY_INLINE floats fake_quantize_number(product_scaling const& s, floats x) const {
    return hn::MulAdd(hn::Round(quotient(s, x)), s.backward, hn::Zero(float_tag{}));
  }
  HWY_INLINE ints encode_number(product_scaling const& s, floats x) const {
    return grid.byte_of_bounded(quotient(s, x));
  }
};

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
