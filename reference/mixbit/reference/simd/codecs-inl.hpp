// The grids of formats/ in vector form: each function here has the name of the scalar one that defines it, and gives
// the same bits in every lane.
//
// g++ treats Mul and Add of vectors as a*b and +, and contracts them where the target has FMA. So a product is never
// followed by a sum here: between them is a select, a mask or a minimum, on which contraction stops.
// needs: <hwy/highway.h>
#include "mixbit/formats/mx.hpp"
#include "mixbit/reference/simd/rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_CODECS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_CODECS_INL
#undef MIXBIT_REFERENCE_SIMD_CODECS_INL
#else
#define MIXBIT_REFERENCE_SIMD_CODECS_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

/// formats::clamp: v in [low, high]; NaN stays NaN.
HWY_INLINE floats clamp(floats v, floats low, floats high) {
#if HWY_ARCH_X86
  // maxps and minps give their second operand where one of the two is NaN, and where both are zeros
  return hn::Min(high, hn::Max(low, v));
#else
  floats const above = hn::IfThenElse(hn::Lt(v, low), low, v);
  return hn::IfThenElse(hn::Gt(above, high), high, above);
#endif
}

/// v where `keep` is all ones, +0 where it is zero.
HWY_INLINE floats masked(floats v, words keep) { return as_floats(hn::And(as_words(v), keep)); }

/// -0 becomes +0.
HWY_INLINE floats without_negative_zero(floats v) { return hn::Add(v, hn::Zero(float_tag{})); }

/// The same for a product: a sum could be contracted with it.
HWY_INLINE floats product_without_negative_zero(floats v) {
  return hn::IfThenElseZero(hn::Ne(v, hn::Zero(float_tag{})), v);
}

/// a*b, where -0 for a counts as +0.
HWY_INLINE floats product_of_unsigned_zero(floats a, floats b) {
#if HWY_NATIVE_FMA
  // rounded once, and a zero product plus +0 is +0; a product that underflows is no zero yet, and keeps its sign
  return hn::MulAdd(a, b, hn::Zero(float_tag{}));
#else
  return hn::Mul(without_negative_zero(a), b);
#endif
}

/// formats::integer_grid.
class integer_grid {
 public:
  HWY_INLINE explicit integer_grid(element_type const& e)
      : low_{splat(formats::integer_minimum(e))}, high_{splat(formats::integer_bound(e))} {}
  HWY_INLINE floats bound() const { return high_; }
  // Round is half to even and keeps the sign of zero and NaN
  HWY_INLINE floats round(floats v) const { return hn::Round(clamp(v, low_, high_)); }
  HWY_INLINE floats round_to_code(floats v) const {
    floats const q = round(v);
    return without_negative_zero(hn::IfThenElseZero(hn::Eq(q, q), q));
  }
  /// round_to_code in two's complement, right in its 16 low bits: the sum's last place counts ones.
  HWY_INLINE ints low_bits(floats v) const {
    floats const sum = hn::Add(clamp(v, low_, high_), splat(0x1.8p23f));
    return as_ints(hn::IfThenElseZero(hn::Eq(v, v), sum));
  }

 private:
  floats low_, high_;
};

/// formats::mx_integer_codec.
class mx_integer_codec {
 public:
  HWY_INLINE explicit mx_integer_codec(element_type const& e) : grid_{integer_element(e.bits, false, true)} {}
  HWY_INLINE floats largest() const { return grid_.bound(); }
  HWY_INLINE bool has_nan() const { return false; }
  HWY_INLINE floats round(floats v) const { return grid_.round(v); }
  HWY_INLINE floats round_to_code(floats v) const { return grid_.round_to_code(v); }
  HWY_INLINE ints code(floats v) const { return grid_.low_bits(v); }
  HWY_INLINE floats round_number(floats v) const { return round_to_code(v); }
  HWY_INLINE ints code_of_number(floats v) const { return code(v); }
  HWY_INLINE floats value(ints code) const { return hn::ConvertTo(float_tag{}, code); }

 private:
  integer_grid grid_;
};

/// formats::minifloat_codec: rounds half to even by adding and subtracting a power of two whose last place is the
/// format's. Constants are broadcast once, when the codec is made.
class minifloat_codec {
 public:
  HWY_INLINE explicit minifloat_codec(element_type const& e) : minifloat_codec{e, formats::codes_of(e)} {}

  HWY_INLINE floats largest() const { return as_floats(top_); }
  HWY_INLINE bool has_nan() const { return has_nan_; }

  HWY_INLINE floats value(ints code) const {
    ints const magnitude = hn::AndNot(sign_bit_, hn::And(code, own_bits_));
    ints const normal = hn::Add(hn::ShiftLeftSame(magnitude, drop_), hn::Sub(lowest_, splat(1 << 23)));
    ints const subnormal = as_ints(hn::Mul(hn::ConvertTo(float_tag{}, magnitude), smallest_));
    ints const finite = hn::IfThenElse(hn::Lt(magnitude, normal_from_), subnormal, normal);
    ints const strange = hn::IfThenElse(hn::Gt(magnitude, behind_largest_), splat(quiet_nan), behind_value_);
    ints const bits = hn::IfThenElse(hn::Lt(magnitude, behind_largest_), finite, strange);
    ints const sign = hn::ShiftLeftSame(hn::And(code, sign_bit_), sign_place_);
    return as_floats(hn::Or(bits, sign));
  }

  HWY_INLINE floats round(floats v) const {
    return hn::IfThenElse(hn::IsNaN(v), as_floats(nan_), round_number(v));
  }
  HWY_INLINE floats round_to_code(floats v) const { return round(v); }
  HWY_INLINE ints code(floats v) const {
    return as_ints(hn::IfThenElse(hn::IsNaN(v), as_floats(nan_code_), as_floats(code_of_number(v))));
  }

  /// round() and code() of what is not NaN.
  HWY_INLINE floats round_number(floats v) const {
    ints const magnitude = bounded(v);
    floats const magic = as_floats(magic_of(magnitude));
    floats const rounded = hn::Sub(hn::Add(as_floats(magnitude), magic), magic);
    return hn::Or(rounded, hn::And(v, as_floats(splat(0x80000000u))));
  }
  HWY_INLINE ints code_of_number(floats v) const {
    ints const magnitude = bounded(v), magic = magic_of(magnitude);
    // the low bits of the sum count steps of the binade, 2^m of which make the next one's exponent field
    ints const sum = as_ints(hn::Add(as_floats(magnitude), as_floats(magic)));
    ints const binade = hn::Sub(hn::ShiftRightSame(magic, drop_), lowest_code_);  // its first code
    ints const sign = hn::And(as_ints(hn::ShiftRightSame(as_words(v), sign_place_)), sign_bit_);
    return hn::Or(hn::Add(hn::Sub(sum, magic), binade), sign);
  }

 private:
  static constexpr std::int32_t quiet_nan = 0x7fc00000;

  HWY_INLINE minifloat_codec(element_type const& e, formats::minifloat_codes const& codes)
      : mantissa_bits_{e.mantissa_bits},
        drop_{23 - e.mantissa_bits},
        sign_place_{31 - e.exponent_bits - e.mantissa_bits},
        has_nan_{codes.nan >= 0},
        sign_bit_{splat(1 << (e.exponent_bits + e.mantissa_bits))},
        own_bits_{splat((2 << (e.exponent_bits + e.mantissa_bits)) - 1)},
        lowest_{splat((128 - codes.bias) << 23)},
        lowest_code_{splat((drop_ + 128 - codes.bias) << e.mantissa_bits)},
        magic_offset_{splat(drop_ << 23)},
        normal_from_{splat(1 << e.mantissa_bits)},
        behind_largest_{splat(codes.largest + 1)},
        behind_value_{splat(codes.infinite ? 0x7f800000 : quiet_nan)},
        nan_{splat(has_nan_ ? quiet_nan : 0)},
        nan_code_{splat(has_nan_ ? codes.nan : 0)},
        top_{splat(static_cast<std::int32_t>(fp::bits(formats::minifloat_codec{e}.largest())))},
        smallest_{as_floats(splat((128 - codes.bias - e.mantissa_bits) << 23))} {}

  HWY_INLINE ints bounded(floats v) const {
    ints const magnitude = hn::Min(magnitude_of(v), top_);
    if (mantissa_bits_ != 0) return magnitude;
    // without mantissa bits the half of the smallest value goes up, and half to even would take it down
    ints const midpoint = hn::Sub(lowest_, splat(1 << 23));
    return hn::IfThenElse(hn::Lt(magnitude, midpoint), magnitude, hn::Max(magnitude, lowest_));
  }

  HWY_INLINE ints magic_of(ints magnitude) const {
    ints const exponent = hn::And(magnitude, splat(0x7f800000));
    return hn::Add(hn::Max(exponent, lowest_), magic_offset_);
  }

  int mantissa_bits_, drop_, sign_place_;  // `drop`: mantissa bits that float32 has beyond ours
  bool has_nan_;
  ints sign_bit_, own_bits_;
  ints lowest_, lowest_code_, magic_offset_;  // the smallest normal binade: as bits of float32, its first code
  ints normal_from_, behind_largest_, behind_value_, nan_, nan_code_;
  ints top_;  // bits of the largest value
  floats smallest_;
};

/// The codec in vector form of a codec in scalar form.
template <class Codec>
struct vector_codec;
template <> struct vector_codec<formats::minifloat_codec> { using type = minifloat_codec; };
template <> struct vector_codec<formats::mx_integer_codec> { using type = mx_integer_codec; };

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
