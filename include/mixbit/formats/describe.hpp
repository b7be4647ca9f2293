// The convention of a format as data, for exporters, reports and conformance checks: nothing about it is implied.
#pragma once

#include <string_view>

#include "mixbit/formats/rules.hpp"

namespace mixbit {

/// How a file's scale is applied when decoding.
enum class scale_use : std::uint8_t { multiplies, divides };

/// What becomes of a group whose amax is zero.
enum class zero_group : std::uint8_t {
  code_zero,    ///< codes 0, values +0
  signed_zero,  ///< x*0: zeros that keep the sign of x
  unit_amax     ///< amax counts as 1
};

enum class rounding : std::uint8_t { half_even };

/// Which of two codes in a byte comes first.
enum class nibble_order : std::uint8_t { none, low_first, high_first, low_is_even_row };

struct format_description {
  element_type element{};
  dtype scale_type = dtype::f32;
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

/// The convention of `how`, which has passed check_format.
inline format_description describe(format const& how) {
  bool const integer = how.element.kind == element_kind::integer, fake_only = how.numerics == policy::modelopt;
  format_description d;
  d.element = how.element;
  d.scale_type = how.scale_type;
  d.scale_in_input_type = how.numerics == policy::modelopt_pack;
  d.bound = d.highest = integer ? formats::integer_bound(how.element) : formats::e4m3::largest;
  d.lowest = integer ? formats::integer_minimum(how.element) : -formats::e4m3::largest;
  if (how.numerics == policy::modelopt_pack && integer && formats::packs_inverse_scale(how.element))
    d.use = scale_use::divides;
  d.amax_floor = fake_only ? formats::tiny_amax : 0.0f;
  d.zero = !fake_only ? zero_group::code_zero : integer ? zero_group::signed_zero : zero_group::unit_amax;
  d.nibbles = detail::nibble_order_of(how);
  d.code_offset = how.layout == packing::nibbles_high_first ? 8 : 0;
  d.negative_zero = !integer || fake_only;
  d.has_nan = !integer;
  d.decode_is_fake_quantize = !fake_only;
  return d;
}

}  // namespace mixbit
