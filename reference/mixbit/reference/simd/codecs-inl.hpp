// The grids of formats/ in vector form: each function here has the name of the scalar one that defines it, and gives
// the same bits in every lane.
//
// g++ treats Mul and Add of vectors as a*b and +, and contracts them where the target has FMA. So a product is never
// followed by a sum here: between them is a select, a mask or a minimum, on which contraction stops.
// needs: <hwy/highway.h>
#include "mixbit/formats/mx.hpp"
#include "mixbit/formats/nf4.hpp"
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

/// Bit by bit `yes` where `mask` is set, else `no`.
HWY_INLINE ints select_bits(ints mask, ints yes, ints no) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return ints{_mm512_ternarylogic_epi32(yes.raw, mask.raw, no.raw, 0xe2)};
#else
  return hn::Or(hn::And(mask, yes), hn::AndNot(mask, no));
#endif
}

/// formats::integer_grid.
class integer_grid {
 public:
  HWY_INLINE explicit integer_grid(element_type const& e)
      : low_{splat(formats::integer_minimum(e))}, high_{splat(formats::integer_bound(e))} {}
  HWY_INLINE floats low() const { return low_; }
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
  /// The low byte of round_to_code of what is not NaN.
  HWY_INLINE ints byte_of_number(floats v) const {
    return byte_of_bounded(clamp(v, low_, high_));
  }
  /// The same of what rounds to a code of the grid.
  HWY_INLINE static ints byte_of_bounded(floats v) {
    return hn::And(as_ints(hn::Add(v, splat(0x1.8p23f))), splat(0xff));
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
  HWY_INLINE ints code_of_number(floats v) const { return grid_.byte_of_number(v); }
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
    floats const magic = as_floats(magic_of(magnitude, magic_offset_));
    floats const rounded = hn::Sub(hn::Add(as_floats(magnitude), magic), magic);
    return as_floats(select_bits(splat(0x7fffffff), as_ints(rounded), as_ints(v)));
  }
  HWY_INLINE ints code_of_number(floats v) const {
    ints const magnitude = bounded(v), magic = magic_of(magnitude, counting_offset_);
    // the low bits of the sum count steps of the binade, 2^m of which make the next one's exponent field, from what
    // its first code is without that field; bits above the code are cut off
    ints const sum = as_ints(hn::Add(as_floats(magnitude), as_floats(magic)));
    ints const code = hn::Add(sum, hn::ShiftRightSame(magic, drop_));
    return select_bits(magnitude_bits_, code, as_ints(hn::ShiftRightSame(as_words(v), sign_place_)));
  }

 private:
  static constexpr std::int32_t quiet_nan = 0x7fc00000;

  HWY_INLINE minifloat_codec(element_type const& e, formats::minifloat_codes const& codes)
      : drop_{23 - e.mantissa_bits},
        sign_place_{31 - e.exponent_bits - e.mantissa_bits},
        has_nan_{codes.nan >= 0},
        sign_bit_{splat(1 << (e.exponent_bits + e.mantissa_bits))},
        own_bits_{splat((2 << (e.exponent_bits + e.mantissa_bits)) - 1)},
        lowest_{splat((128 - codes.bias) << 23)},
        magic_offset_{splat(drop_ << 23)},
        counting_offset_{splat((drop_ << 23) + first_count(e, codes))},
        magnitude_bits_{splat((1 << (e.exponent_bits + e.mantissa_bits)) - 1)},
        normal_from_{splat(1 << e.mantissa_bits)},
        behind_largest_{splat(codes.largest + 1)},
        behind_value_{splat(codes.infinite ? 0x7f800000 : quiet_nan)},
        nan_{splat(has_nan_ ? quiet_nan : 0)},
        nan_code_{splat(has_nan_ ? codes.nan : 0)},
        nudge_{splat(e.mantissa_bits == 0 ? 1 : 0)},
        top_{splat(static_cast<std::int32_t>(fp::bits(formats::minifloat_codec{e}.largest())))},
        smallest_{as_floats(splat((128 - codes.bias - e.mantissa_bits) << 23))} {}

  /// What makes the first code of the smallest normal binade, 2^m, of its exponent field, in the bits of a magnitude.
  /// Even, so that ties go where they would without: a multiple of 2^m, and of E3M0 even.
  static std::int32_t first_count(element_type const& e, formats::minifloat_codes const& codes) {
    std::int32_t const field = 23 - e.mantissa_bits + 128 - codes.bias, own = 1 << (e.exponent_bits + e.mantissa_bits);
    return -(field << e.mantissa_bits) & (own - 1);
  }

  HWY_INLINE ints bounded(floats v) const {
    return hn::Min(hn::OrAnd(nudge_, as_ints(v), splat(0x7fffffff)), top_);
  }

  HWY_INLINE ints magic_of(ints magnitude, ints offset) const {
    ints const exponent = hn::And(magnitude, splat(0x7f800000));
    return hn::Add(hn::Max(exponent, lowest_), offset);
  }

  int drop_, sign_place_;  // `drop`: mantissa bits that float32 has beyond ours
  bool has_nan_;
  ints sign_bit_, own_bits_;
  ints lowest_;  // the smallest normal binade, as bits of float32
  ints magic_offset_, counting_offset_, magnitude_bits_;
  ints normal_from_, behind_largest_, behind_value_, nan_, nan_code_;
  ints nudge_;  // without mantissa bits ties go up: the last place of float32 puts them past the middle
  ints top_;    // bits of the largest value
  floats smallest_;
};

/// The values of NF4, in the nearest of which v is coded; NaN as 0.
class nf4_codec {
 public:
  HWY_INLINE nf4_codec() {
    for (int i = 0; i < 16; ++i) {
      std::uint32_t const value = fp::bits(formats::nf4_value(i));
      values_[i] = formats::nf4_value(i);
      upper_[i] = static_cast<std::uint8_t>(value >> 24);  // a bfloat16: the other two bytes are zero
      lower_[i] = static_cast<std::uint8_t>(value >> 16);
      between_[i] = i < 15 ? (formats::nf4_value(i) + formats::nf4_value(i + 1)) * 0.5f : 2.0f;
    }
  }

  HWY_INLINE floats value(ints code) const {
    if constexpr (lanes == 16)
      return hn::TableLookupLanes(hn::Load(float_tag{}, values_), hn::IndicesFromVec(float_tag{}, code));
    using tag = hn::Repartition<std::uint8_t, int_tag>;
    // a byte whose upper bit is set looks up 0
    auto const upper = hn::BitCast(tag{}, hn::Or(hn::ShiftLeft<24>(code), splat(0x00808080)));
    auto const lower = hn::BitCast(tag{}, hn::Or(hn::ShiftLeft<16>(code), splat(std::int32_t(0x80008080u))));
    auto const v = hn::Or(hn::TableLookupBytesOr0(hn::LoadDup128(tag{}, upper_), upper),
                          hn::TableLookupBytesOr0(hn::LoadDup128(tag{}, lower_), lower));
    return hn::BitCast(float_tag{}, v);
  }

  HWY_INLINE ints code_of_number(floats v) const {
    ints code = hn::Zero(int_tag{});
    if constexpr (lanes == 16) {
      // how many midpoints lie below v, from the upper digit of that number on
      floats const table = hn::Load(float_tag{}, between_);
      for (int step = 8; step > 0; step /= 2) {
        ints const more = hn::Add(code, splat(step));
        auto const at = hn::IndicesFromVec(float_tag{}, hn::Sub(more, splat(1)));
        auto const above = hn::Gt(v, hn::TableLookupLanes(table, at));
        code = hn::IfThenElse(hn::RebindMask(int_tag{}, above), more, code);
      }
    } else {
      for (int i = 0; i < 15; ++i)
        code = hn::Sub(code, hn::VecFromMask(int_tag{}, hn::RebindMask(int_tag{}, hn::Gt(v, splat(between_[i])))));
    }
    return code;
  }
  HWY_INLINE ints code(floats v) const {
    auto const nan = hn::RebindMask(int_tag{}, hn::IsNaN(v));
    return hn::IfThenElse(nan, splat(formats::nf4_zero), code_of_number(v));
  }

 private:
  HWY_ALIGN float values_[16];
  HWY_ALIGN std::uint8_t upper_[16];
  HWY_ALIGN std::uint8_t lower_[16];
  HWY_ALIGN float between_[16];
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
