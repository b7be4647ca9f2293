// From a format to its rule: the one place where run-time data picks compile-time arithmetic.
//
// A rule is made from a format and rule_inputs. It provides, all in float32:
//   scaling prepare(amax)              what a group does to its elements
//   float fake_quantize(scaling, x)    before it is rounded to the tensor's type
//   int encode(scaling, x)
//   float decode(scale, code)          with the scale that `effective` makes of those in the file
//   float file_scale(amax)             a group's scale, exactly as its type in the file holds it
//   float effective(file_scale, tensor_scale)
// and, where groups are blocks with a scale in few bits (`block_scaled`): scaling of_scale(file_scale), has_alternative
// and alternative(amax), a second amax to try.
#pragma once

#include "mixbit/formats/mx.hpp"
#include "mixbit/formats/nf4.hpp"
#include "mixbit/formats/nvfp4.hpp"

namespace mixbit::formats {

template <class Rule>
concept block_scaled = requires(Rule const& r, float s) { r.of_scale(s); };

namespace detail {

template <policy P, class F>
decltype(auto) visit_element(format const& how, rule_inputs const& in, F&& f) {
  if (is_two_level(how.scaling)) return f(nvfp4_rule<P>{how, in});
  if (is_mx(how.scaling)) {
    if (how.element.kind == element_kind::integer) return f(mx_rule<P, mx_integer_codec>{how, in});
    return f(mx_rule<P, minifloat_codec>{how, in});
  }
  if (how.element.kind == element_kind::integer) return f(integer_rule<P>{how, in});
  if (how.element.kind == element_kind::lookup)
    return f(nf4_rule<P == policy::modelopt_pack ? P : policy::stored>{how, in});
  return f(minifloat_rule<P>{how, in});
}

}  // namespace detail

/// Calls f(rule). `how` has passed check_format.
template <class F>
decltype(auto) visit_rule(format const& how, rule_inputs const& in, F&& f) {
  switch (how.numerics) {
    case policy::modelopt: return detail::visit_element<policy::modelopt>(how, in, f);
    case policy::modelopt_triton:
      if (is_two_level(how.scaling)) return f(nvfp4_rule<policy::modelopt_triton>{how, in});
      return detail::visit_element<policy::modelopt>(how, in, f);
    case policy::modelopt_pack: return detail::visit_element<policy::modelopt_pack>(how, in, f);
    default: return detail::visit_element<policy::stored>(how, in, f);
  }
}

}  // namespace mixbit::formats
