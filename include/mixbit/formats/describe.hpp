// The convention of a format as data, for exporters, reports and conformance checks: nothing about it is implied.
#pragma once

#include <string_view>

#include "mixbit/formats/packing.hpp"
#include "mixbit/formats/rules.hpp"

namespace mixbit {

/// How a file's scale is applied when decoding.
enum class scale_use : std::uint8_t { multiplies, divides };

/// What becomes of a group whose amax is zero.
enum class zero_group : std::uint8_t {
  code_zero,    ///< codes of 0, values +0
  signed_zero,  ///< x*0: zeros that keep the sign of x
  unit_amax,    ///< amax counts as 1
  unit_scale,   ///< the scale is 1: where decode_is_fake_quantize the group's in the file, else all of it
  least_scale   ///< the smallest scale there is
};

enum class rounding : std::uint8_t {
  half_even,
  half_away,   ///< from zero: E3M0, whose codes have no last bit to be even
  half_toward  ///< zero: ModelOpt's MXFP4QTensor, and the lower code of NF4
};

/// Which of two codes in a byte comes first.
enum class nibble_order : std::uint8_t { none, low_first, high_first, low_is_even_row };

struct format_description {
  element_type element{};
  scale_rule scaling = scale_rule::ratio;
  dtype scale_type = dtype::f32;
  float tensor_bound = 0;            ///< two levels: the tensor's scale is its amax over this; 0 if there is none
  bool scale_in_input_type = false;  ///< every operation, and the scale, is rounded to the tensor's type
  float bound = 0;                   ///< what amax is mapped to; the scale is amax/bound, or bound/amax if it divides
  float lowest = 0, highest = 0;     ///< values before scaling
  scale_use use = scale_use::multiplies;
  rounding round = rounding::half_even;
  float amax_floor = 0;              ///< an amax up to this counts as zero
  zero_group zero = zero_group::code_zero;
  nibble_order nibbles = nibble_order::none;
  int code_offset = 0;               ///< added to a code before it is stored
  bool negative_zero = false;        ///< -0 exists after fake quantization
  bool has_nan = false;              ///< NaN survives encoding
  bool decode_is_fake_quantize = false;  ///< decode(encode(x)) equals fake_quantize(x) bit for bit
};

namespace detail {
inline nibble_order nibble_order_of(format const& how) {
  switch (how.layout) {
    case packing::nibbles_high_first: return nibble_order::high_first;
    case packing::nibbles_row_pairs: return nibble_order::low_is_even_row;
    case packing::dense_rows: return how.element.bits < 8 ? nibble_order::low_first : nibble_order::none;
    default: return nibble_order::none;
  }
}
}  // namespace detail

namespace detail {
/// The values before scaling, from the codec of the element.
inline void describe_range(format const& how, format_description& d) {
  element_type const& e = how.element;
  if (e.kind == element_kind::integer) {
    bool const mx = is_mx(how.scaling);
    d.bound = d.highest = formats::integer_bound(e);
    d.lowest = mx ? -d.highest : formats::integer_minimum(e);
  } else {
    formats::minifloat_codec const codec{e.kind == element_kind::minifloat ? e : e2m1_element};
    d.bound = d.highest = e.kind == element_kind::minifloat ? codec.largest() : 1.0f;
    d.lowest = -d.highest;
    d.has_nan = e.kind == element_kind::minifloat && codec.has_nan();
  }
  if (is_two_level(how.scaling)) d.tensor_bound = formats::nvfp4_range(how.scaling);
}

inline rounding rounding_of(format const& how) {
  if (how.element == e3m0_element) return rounding::half_away;
  bool const mxfp4_class = is_mx(how.scaling) && how.numerics == policy::modelopt_pack && how.element == e2m1_element;
  return mxfp4_class || how.element == nf4_element ? rounding::half_toward : rounding::half_even;
}

inline zero_group zero_group_of(format const& how, bool dynamic) {
  bool const fake_only = how.numerics == policy::modelopt || how.numerics == policy::modelopt_triton;
  if (is_two_level(how.scaling)) return fake_only && !dynamic ? zero_group::code_zero : zero_group::unit_scale;
  if (is_mx(how.scaling)) return fake_only ? zero_group::unit_scale : zero_group::least_scale;
  if (!fake_only) return zero_group::code_zero;
  return how.element.kind == element_kind::integer ? zero_group::signed_zero : zero_group::unit_amax;
}
}  // namespace detail

/// The convention of `how`, which has passed check_format. `dynamic`: scales of blocks come from the data of each call,
/// for which ModelOpt fake quantizes NVFP4 in another way than for calibrated ones.
inline format_description describe(format const& how, bool dynamic = false) {
  bool const integer = how.element.kind == element_kind::integer, ratio = how.scaling == scale_rule::ratio;
  bool const fake_only = how.numerics == policy::modelopt || how.numerics == policy::modelopt_triton;
  bool const pack = how.numerics == policy::modelopt_pack;
  format_description d;
  d.element = how.element;
  d.scaling = how.scaling;
  d.scale_type = how.scale_type;
  d.scale_in_input_type = pack && ratio;
  detail::describe_range(how, d);
  if (pack && ratio && formats::packs_inverse_scale(how.element)) d.use = scale_use::divides;
  d.round = detail::rounding_of(how);
  d.amax_floor = fake_only && ratio ? formats::tiny_amax : 0.0f;
  d.zero = detail::zero_group_of(how, dynamic);
  d.nibbles = detail::nibble_order_of(how);
  d.code_offset = formats::stores_offset(how.layout, how.element) ? 8 : 0;
  d.negative_zero = integer ? fake_only
                            : how.element.kind == element_kind::minifloat &&
                                  (ratio || is_mx(how.scaling) || !(pack || (fake_only && !dynamic)));
  d.decode_is_fake_quantize = !fake_only;
  return d;
}

}  // namespace mixbit
