// Checks that public entries make once, before anything is changed. `where` names the quantizer in the message:
// "layers.0.q_proj.weight_quantizer".
#pragma once

#include <span>
#include <string_view>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/integer.hpp"
#include "mixbit/formats/rules.hpp"

namespace mixbit {

namespace detail {
inline void check_integer(element_type const& e, std::string_view where) {
  if (!e.is_unsigned && e.bits == 1)
    fail(error_id::format_value, where, ": num_bits 1 is too few for a signed integer, whose largest value would be 0");
  if (e.bits < 1 || e.bits > formats::widest_integer)
    fail(error_id::format_value, where, ": num_bits ", int{e.bits}, " is not within 1 and ", formats::widest_integer);
}

inline void check_minifloat(element_type const& e, std::string_view where) {
  if (e == e4m3_element) return;
  fail(error_id::format_value, where, ": num_bits (", int{e.exponent_bits}, ",", int{e.mantissa_bits},
       ") is no minifloat that this version has; it has (4,3)");
}

inline void check_pack_policy(format const& how, std::string_view where) {
  element_type const& e = how.element;
  if (how.numerics != policy::modelopt_pack || e.kind != element_kind::integer) return;
  if ((e.bits != 4 && e.bits != 8) || e.is_unsigned || e.narrow_range)
    fail(error_id::format_value, where, ": policy modelopt_pack has no ", name_of(e),
         e.narrow_range ? " narrow_range" : "", "; ModelOpt's tensor classes are int4, int8 and e4m3");
}

inline void check_layout(format const& how, std::string_view where) {
  bool const nibbles = how.layout == packing::nibbles_high_first || how.layout == packing::nibbles_row_pairs;
  bool const is_signed = how.element.kind == element_kind::integer && !how.element.is_unsigned;
  if (nibbles && how.element.bits != 4)
    fail(error_id::format_value, where, ": a layout of nibbles holds 4 bits, not num_bits ", int{how.element.bits});
  if (how.layout == packing::nibbles_high_first && !is_signed)
    fail(error_id::format_value, where, ": nibbles_high_first stores an offset of 8, which ", name_of(how.element),
         " does not have");
}
}  // namespace detail

/// Element, policy, scale type and layout: throws `format_value` for what does not exist or does not go together.
inline void check_format(format const& how, std::string_view where) {
  if (how.element.kind == element_kind::integer) detail::check_integer(how.element, where);
  else detail::check_minifloat(how.element, where);
  if (!is_compute(how.scale_type))
    fail(error_id::format_value, where, ": scales of ", name_of(how.element), " are float32, float16 or bfloat16, not ",
         name_of(how.scale_type));
  detail::check_pack_policy(how, where);
  detail::check_layout(how, where);
}

/// What encode needs beyond check_format: codes that fit a byte.
inline void check_encodable(format const& how, std::string_view where) {
  check_format(how, where);
  if (how.element.bits > formats::widest_code)
    fail(error_id::format_value, where, ": num_bits ", int{how.element.bits},
         " can be simulated, but files hold at most ", formats::widest_code, " bits an element");
}

/// Throws `format_value` where a partition does not fit a shape.
inline void check_partition(partition const& groups, geometry const& g, std::string_view where) {
  if (groups.rank != g.rank)
    fail(error_id::format_value, where, ": groups of rank ", int{groups.rank}, " do not fit the shape ", to_string(g));
  for (int a = 0; a < g.rank; ++a) {
    std::int64_t const block = groups.block[a], expected = block > 0 ? (g.shape[a] + block - 1) / block : 1;
    if (block <= 0 && g.shape[a] != 0)
      fail(error_id::format_value, where, ": block size ", block, " along axis ", a, " is not positive");
    if (groups.groups[a] != expected)
      fail(error_id::format_value, where, ": ", groups.groups[a], " groups along axis ", a, " do not fit blocks of ",
           block, " in the shape ", to_string(g));
  }
}

/// Throws `format_amax` for an amax that is negative, NaN or infinite, or whose scale overflows the type in which the
/// file holds it. `element` is the type of the tensor, which modelopt_pack rounds scales to.
inline void check_amax(std::span<float const> amax, format const& how, dtype element, std::string_view where) {
  for (std::size_t i = 0; i < amax.size(); ++i)
    if (!(amax[i] >= 0.0f) || !fp::is_finite(amax[i]))
      fail(error_id::format_amax, where, ": amax[", i, "] is ", amax[i], "; it must be finite and not negative");
  if (how.scale_type == dtype::f32 && (how.numerics != policy::modelopt_pack || element == dtype::f32)) return;
  visit_compute(element, [&]<class T>(T) {
    formats::visit_rule<T>(how, [&](auto const& rule) {
      for (std::size_t i = 0; i < amax.size(); ++i)
        if (amax[i] > 0.0f && !fp::is_finite(formats::through(how.scale_type, rule.file_scale(amax[i]))))
          fail(error_id::format_amax, where, ": amax[", i, "] is ", amax[i], ", and its scale overflows ",
               name_of(how.scale_type == dtype::f32 ? element : how.scale_type));
    });
  });
}

/// Throws `format_unsigned` where a kernel met negative values in an unsigned format.
inline void check_flags(data_flags const& flags, format const& how, std::string_view where) {
  if (flags.negative_unsigned != 0)
    fail(error_id::format_unsigned, where, ": ", flags.negative_unsigned, " negative value",
         flags.negative_unsigned == 1 ? "" : "s", " met the unsigned format ", name_of(how.element));
}

}  // namespace mixbit
