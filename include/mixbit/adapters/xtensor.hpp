// xtensor containers as host tensors: xt::xtensor and xt::xarray, row- or column-major.
//
// Operands are handed to ops as fixed-rank adaptors over borrowed memory (xt::xtensor) or as copies (xt::xarray), which
// own their elements. The layout is part of the type: a container whose strides are chosen at run time does not
// compile. xtensor gives axes of size 1 the stride 0; strides are computed here from the shape and the layout instead.
#pragma once

#if __has_include(<xtensor/containers/xadapt.hpp>)
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#endif

#include "mixbit/core/tensor_traits.hpp"

namespace mixbit {

namespace detail {

template <class X>
geometry xtensor_geometry(X const& x) {
  static_assert(X::static_layout == xt::layout_type::row_major || X::static_layout == xt::layout_type::column_major,
                "mixbit: an xtensor host needs a static layout");
  std::array<std::int64_t, max_rank> shape{};
  if (x.dimension() > static_cast<std::size_t>(max_rank))
    fail(error_id::tensor_shape, "an xtensor of rank ", x.dimension(), " is above the largest rank of ", max_rank);
  for (std::size_t a = 0; a < x.dimension(); ++a) shape[a] = static_cast<std::int64_t>(x.shape(a));
  geometry g = dense_geometry(dtype_of<typename X::value_type>::value, std::span{shape.data(), x.dimension()});
  if (x.layout() == xt::layout_type::column_major) {
    std::int64_t step = 1;
    for (int a = 0; a < g.rank; ++a) {
      g.stride[a] = step;
      step *= g.shape[a];
    }
  }
  return g;
}

template <class T, std::size_t Rank, xt::layout_type Layout, class Pointer>
auto xtensor_adapt(geometry const& g, Pointer* data) {
  std::array<std::size_t, Rank> shape{};
  for (std::size_t a = 0; a < Rank; ++a) shape[a] = static_cast<std::size_t>(g.shape[a]);
  return xt::adapt<Layout>(data, static_cast<std::size_t>(g.size()), xt::no_ownership(), shape);
}

}  // namespace detail

template <class C, std::size_t Rank, xt::layout_type Layout, class Tag>
struct tensor_traits<xt::xtensor_container<C, Rank, Layout, Tag>> {
  using host = xt::xtensor_container<C, Rank, Layout, Tag>;
  using value = typename host::value_type;
  static const_tensor_ref view(host const& x) { return {detail::xtensor_geometry(x), x.data()}; }
  static tensor_ref view(host& x) { return {detail::xtensor_geometry(x), x.data()}; }
  static auto wrap(const_tensor_ref t) { return detail::xtensor_adapt<value, Rank, Layout>(t, t.as<value>()); }
  static auto wrap(tensor_ref t) { return detail::xtensor_adapt<value, Rank, Layout>(t, t.as<value>()); }
};

/// Dynamic rank: operands are tensors of the host's own kind.
template <class C, xt::layout_type Layout, class Shape, class Tag>
struct tensor_traits<xt::xarray_container<C, Layout, Shape, Tag>> {
  using host = xt::xarray_container<C, Layout, Shape, Tag>;
  static const_tensor_ref view(host const& x) { return {detail::xtensor_geometry(x), x.data()}; }
  static tensor_ref view(host& x) { return {detail::xtensor_geometry(x), x.data()}; }
  static host like(host const& x) { return host(x.shape()); }
};

}  // namespace mixbit
