// tensor_traits: the one customization point a host fills in for its tensor type.
//
//   template <> struct mixbit::tensor_traits<my_tensor> {
//     static const_tensor_ref view(my_tensor const&);   // pointer, shape and strides in elements; no copy
//     static tensor_ref view(my_tensor&);
//     // what an op is handed for a quantized operand - one of the two:
//     static auto wrap(const_tensor_ref);  static auto wrap(tensor_ref);  // a host operand over borrowed memory
//     static my_tensor like(my_tensor const&);                            // a new tensor of that shape that owns
//     // optional, for hosts that record a tape:
//     using no_grad = /* RAII: nothing is recorded while it lives */;
//     template <class F> static void link(my_tensor const& x, my_tensor& xq, F backward);  // needs `like`
//   };
//
// The primary template is undefined on purpose: a type without traits fails `host_tensor` softly, and lazy
// expressions are refused. Borrowed memory handed to `wrap` is dense in the host's own axis order and aligned to 64
// bytes; it lives until the op returns. Strides of axes of size 1 are never used, so 0 (xtensor's) is fine there.
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include "mixbit/core/tensor_view.hpp"

namespace mixbit {

template <class Host>
struct tensor_traits;

template <class Host>
using traits_of = tensor_traits<std::remove_cvref_t<Host>>;

/// A type whose elements the library may read.
template <class H>
concept host_tensor = requires(std::remove_cvref_t<H> const& h) {
  { traits_of<H>::view(h) } -> std::convertible_to<const_tensor_ref>;
};

/// A type that owns or refers to elements the library may write.
template <class H>
concept writable_host_tensor = host_tensor<H> && requires(std::remove_cvref_t<H>& h) {
  { traits_of<H>::view(h) } -> std::same_as<tensor_ref>;
};

/// Hosts whose operands are views over borrowed memory.
template <class H>
concept wrapping_host = host_tensor<H> && requires(const_tensor_ref c) { traits_of<H>::wrap(c); };

/// Hosts whose operands are tensors of their own kind.
template <class H>
concept owning_host = host_tensor<H> && requires(std::remove_cvref_t<H> const& h) {
  { traits_of<H>::like(h) } -> std::same_as<std::remove_cvref_t<H>>;
};

/// A type that may stand as an operand of an op.
template <class H>
concept operand_host = wrapping_host<H> || owning_host<H>;

namespace detail {
struct nothing {};

template <class H>
struct no_grad_of {
  using type = nothing;
};
template <class H>
  requires requires { typename traits_of<H>::no_grad; }
struct no_grad_of<H> {
  using type = typename traits_of<H>::no_grad;
};

template <class H>
struct operand_of {
  using type = std::remove_cvref_t<H> const&;
};
template <wrapping_host H>
struct operand_of<H> {
  using type = decltype(traits_of<H>::wrap(std::declval<const_tensor_ref>()));
};
}  // namespace detail

/// What an op receives for an operand of host type H: always this one type, whether quantizers are on or off.
template <operand_host H>
using operand_t = typename detail::operand_of<H>::type;

/// A host tensor as its traits show it; nothing is recomputed. An axis of size 1 may have any stride.
template <host_tensor H>
const_tensor_ref read_view(H const& h) {
  return traits_of<H>::view(h);
}
template <writable_host_tensor H>
tensor_ref write_view(H& h) {
  return traits_of<H>::view(h);
}

}  // namespace mixbit
