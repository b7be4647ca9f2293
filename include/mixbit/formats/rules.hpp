// From a format to its rule: the one place where run-time data picks compile-time arithmetic.
#pragma once

#include "mixbit/formats/integer.hpp"
#include "mixbit/formats/minifloat.hpp"

namespace mixbit::formats {

namespace detail {
template <policy P, class T, class F>
decltype(auto) visit_element(format const& how, F&& f) {
  if (how.element.kind == element_kind::integer) return f(integer_rule<P, T>{how.element, how.scale_type});
  return f(minifloat_rule<P, T, e4m3>{how.element, how.scale_type});
}
}  // namespace detail

/// Calls f(rule) with the rule for elements of type T. `how` has passed check_format.
template <class T, class F>
decltype(auto) visit_rule(format const& how, F&& f) {
  switch (how.numerics) {
    case policy::modelopt: return detail::visit_element<policy::modelopt, T>(how, f);
    case policy::modelopt_pack: return detail::visit_element<policy::modelopt_pack, T>(how, f);
    default: return detail::visit_element<policy::stored, T>(how, f);
  }
}

}  // namespace mixbit::formats
