// Checks that public entries make once, before anything is changed. `where` names the quantizer in the message:
// "layers.0.q_proj.weight_quantizer".
#pragma once

#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "mixbit/core/backend.hpp"
#include "mixbit/formats/integer.hpp"
#include "mixbit/formats/rules.hpp"

namespace mixbit {

namespace detail {
inline void check_integer(element_type const& e, std::string_view where) {
  if (!e.is_unsigned && e.bits == 1)
    fail(error_id::format_value, where, ": num_bits 1 is too few for a signed integer, whose largest value would be 0");
  int const widest = formats::widest_integer - (e.is_unsigned ? 1 : 0);
  if (e.bits < 1 || e.bits > widest)
    fail(error_id::format_value, where, ": num_bits ", int{e.bits}, " is not within 1 and ", widest);
}

inline void check_minifloat(element_type const& e, std::string_view where) {
  std::string known;
  for (element_type const& m : minifloat_elements) {
    if (e == m) return;
    known.append(known.empty() ? "(" : ", (").append(std::to_string(m.exponent_bits)).append(",");
    known.append(std::to_string(m.mantissa_bits)).append(")");
  }
  fail(error_id::format_value, where, ": num_bits (", int{e.exponent_bits}, ",", int{e.mantissa_bits},
       ") is none of the minifloats ", known);
}

/// ModelOpt's tensor classes are int4, int8, e4m3 and nf4 with a ratio, e2m1 and e4m3 in MX blocks, and NVFP4.
inline void check_pack_policy(format const& how, std::string_view where) {
  if (how.numerics != policy::modelopt_pack) return;
  element_type const& e = how.element;
  bool const has_class = is_two_level(how.scaling) || e == e4m3_element ||
                         (is_mx(how.scaling) ? e == e2m1_element
                                             : e == nf4_element || e == integer_element(4) || e == integer_element(8));
  if (!has_class)
    fail(error_id::format_value, where, ": policy modelopt_pack has no ", name_of(e),
         e.narrow_range ? " narrow_range" : "", " with scale rule ", name_of(how.scaling),
         "; ModelOpt's tensor classes are int4, int8, e4m3, nf4, MXFP4, MXFP8 and NVFP4");
}

inline void check_layout(format const& how, std::string_view where) {
  bool const nibbles = how.layout == packing::nibbles_high_first || how.layout == packing::nibbles_row_pairs;
  bool const high_first = how.element == nf4_element ||
                          (how.element.kind == element_kind::integer && !how.element.is_unsigned);
  if (nibbles && how.element.bits != 4)
    fail(error_id::format_value, where, ": a layout of nibbles holds 4 bits, not num_bits ", int{how.element.bits});
  if (how.layout == packing::nibbles_high_first && !high_first)
    fail(error_id::format_value, where, ": nibbles_high_first holds signed int4 and nf4, not ", name_of(how.element));
}

/// Which scale rule goes with which element and which type of scale.
inline void check_scaling(format const& how, std::string_view where) {
  auto const refuse = [&](auto... why) {
    fail(error_id::format_value, where, ": scale rule ", name_of(how.scaling), ' ', why...);
  };
  element_type const& e = how.element;
  if (is_two_level(how.scaling)) {
    if (e != e2m1_element) refuse("scales e2m1, not ", name_of(e));
    if (how.scale_type != dtype::f8_e4m3) refuse("holds its scales as float8_e4m3, not ", name_of(how.scale_type));
  } else if (is_mx(how.scaling)) {
    bool const int8 = e.kind == element_kind::integer && e.bits == 8 && !e.is_unsigned;
    if (e.kind != element_kind::minifloat && !int8) refuse("scales minifloats and int8, not ", name_of(e));
    if (how.scale_type != dtype::f8_e8m0) refuse("holds its scales as float8_e8m0, not ", name_of(how.scale_type));
  } else if (!is_compute(how.scale_type)) {
    refuse("holds the scales of ", name_of(e), " as float32, float16 or bfloat16, not ", name_of(how.scale_type));
  }
  if (how.scale_block < 0) refuse("takes no block of ", how.scale_block, " scales");
  if (how.scale_block > 0 && (e != nf4_element || how.scaling != scale_rule::ratio))
    refuse("has int8 scales in blocks (double quantization) of nf4 alone, not of ", name_of(e));
}
}  // namespace detail

/// Element, policy, scale rule and layout: throws `format_value` for what does not exist or does not go together.
inline void check_format(format const& how, std::string_view where) {
  if (how.element.kind == element_kind::integer) detail::check_integer(how.element, where);
  else if (how.element.kind == element_kind::minifloat) detail::check_minifloat(how.element, where);
  if (how.element.kind == element_kind::lookup && how.numerics == policy::modelopt)
    fail(error_id::format_value, where, ": ModelOpt simulates no nf4; its policies are stored and modelopt_pack");
  detail::check_scaling(how, where);
  detail::check_pack_policy(how, where);
  detail::check_layout(how, where);
}

/// What encode needs beyond check_format: codes that fit a byte.
inline void check_encodable(format const& how, std::string_view where) {
  check_format(how, where);
  if (!formats::has_codes(how.element.bits))
    fail(error_id::format_value, where, ": num_bits ", int{how.element.bits},
         " can be simulated, but files hold integers of up to 8 bits, or of 16");
}

namespace formats {
/// Can a finite amax have a scale that overflows? Exponents and E4M3 scales saturate; float32's are quotients.
constexpr bool scale_may_overflow(format const& how) {
  return how.scaling == scale_rule::ratio && (how.numerics == policy::modelopt_pack || how.scale_type != dtype::f32);
}
}  // namespace formats

/// Throws `format_amax` for an amax that is negative, NaN or infinite, or whose scale overflows the type in which the
/// file holds it. `element` is the type of the tensor, which modelopt_pack rounds scales to.
inline void check_amax(std::span<float const> amax, format const& how, dtype element, std::string_view where) {
  for (std::size_t i = 0; i < amax.size(); ++i)
    if (!(amax[i] >= 0.0f) || !fp::is_finite(amax[i]))
      fail(error_id::format_amax, where, ": amax[", i, "] is ", amax[i], "; it must be finite and not negative");
  if (!formats::scale_may_overflow(how)) return;
  formats::visit_rule(how, {element}, [&](auto const& rule) {
    for (std::size_t i = 0; i < amax.size(); ++i)
      if (amax[i] > 0.0f && !fp::is_finite(formats::through(how.scale_type, rule.file_scale(amax[i]))))
        fail(error_id::format_amax, where, ": amax[", i, "] is ", amax[i], ", and its scale overflows ",
             name_of(how.scale_type == dtype::f32 ? element : how.scale_type));
  });
}

/// Throws `format_unsigned`, with their number and the least finite one, where a kernel that read `x` has met negative
/// values in an unsigned format. `flags`, and `x` as that kernel read it, are in the backend's memory.
template <backend B>
void check_flags(B& device, data_flags const* flags, const_tensor_ref x, format const& how, std::string_view where) {
  data_flags seen;
  device.copy_to_host(&seen, flags, sizeof seen);
  if (seen.negative_unsigned == 0) return;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  auto low = buffer_of(device, infinity), high = buffer_of(device, -infinity);
  device.extremes({x, per_tensor(x), low.data(), high.data(), nullptr});
  float least = 0.0f;
  device.copy_to_host(&least, low.data(), sizeof least);
  std::string const which = least < 0.0f ? detail::concat("down to ", least) : "not finite";
  fail(error_id::format_unsigned, where, ": ", seen.negative_unsigned, " negative value",
       seen.negative_unsigned == 1 ? "" : "s", " (", which, ") met the unsigned format ", name_of(how.element));
}

}  // namespace mixbit
