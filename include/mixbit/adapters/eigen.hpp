// Eigen 3.4 matrices as host tensors: Eigen::Matrix of any storage order, and unstrided Eigen::Map.
//
// Rows are axis 0 and columns axis 1; compile-time vectors have rank 1. Operands are handed to ops as Eigen::Map, so
// an op written for matrices runs unchanged. A Matrix' memory is aligned and so is scratch memory: the map says
// AlignedMax and gives the same bits as the matrix itself. Expressions and strided blocks have no traits on purpose:
// evaluate them first.
#pragma once

#include <Eigen/Core>

#include "mixbit/core/tensor_traits.hpp"

namespace mixbit {

template <>
struct dtype_of<Eigen::half> : std::integral_constant<dtype, dtype::f16> {};
template <>
struct dtype_of<Eigen::bfloat16> : std::integral_constant<dtype, dtype::bf16> {};

namespace detail {

// Written out so that it inlines to nothing where a call only wraps the matrix again (slots that are off).
template <class M>
geometry eigen_geometry(M const& m) {
  geometry g;
  g.type = dtype_of<typename M::Scalar>::value;
  if constexpr (M::IsVectorAtCompileTime) {
    g.rank = 1;
    g.shape[0] = m.size();
    g.stride[0] = 1;
  } else {
    g.rank = 2;
    g.shape[0] = m.rows();
    g.shape[1] = m.cols();
    g.stride[0] = M::IsRowMajor ? m.cols() : 1;
    g.stride[1] = M::IsRowMajor ? 1 : m.rows();
  }
  return g;
}

/// Plain: the matrix type to map; Options: what is known of the memory's alignment.
template <class Plain, int Options, class Ref>
auto eigen_map(Ref const& t) {
  using scalar = typename Plain::Scalar;
  if constexpr (std::is_same_v<Ref, tensor_ref>) {
    if constexpr (Plain::IsVectorAtCompileTime)
      return Eigen::Map<Plain, Options>(static_cast<scalar*>(t.data), t.shape[0]);
    else
      return Eigen::Map<Plain, Options>(static_cast<scalar*>(t.data), t.shape[0], t.shape[1]);
  } else {
    if constexpr (Plain::IsVectorAtCompileTime)
      return Eigen::Map<Plain const, Options>(static_cast<scalar const*>(t.data), t.shape[0]);
    else
      return Eigen::Map<Plain const, Options>(static_cast<scalar const*>(t.data), t.shape[0], t.shape[1]);
  }
}

}  // namespace detail

template <class T, int Rows, int Cols, int Options, int MaxRows, int MaxCols>
struct tensor_traits<Eigen::Matrix<T, Rows, Cols, Options, MaxRows, MaxCols>> {
  using host = Eigen::Matrix<T, Rows, Cols, Options, MaxRows, MaxCols>;
  static constexpr int alignment =
      host::MaxSizeAtCompileTime == Eigen::Dynamic ? Eigen::AlignedMax : Eigen::Unaligned;
  static const_tensor_ref view(host const& m) { return {detail::eigen_geometry(m), m.data()}; }
  static tensor_ref view(host& m) { return {detail::eigen_geometry(m), m.data()}; }
  static auto wrap(const_tensor_ref t) { return detail::eigen_map<host, alignment>(t); }
  static auto wrap(tensor_ref t) { return detail::eigen_map<host, alignment>(t); }
};

/// Maps over memory that somebody else owns; Map<M const> may be read only.
template <class M, int Options>
struct tensor_traits<Eigen::Map<M, Options, Eigen::Stride<0, 0>>> {
  using host = Eigen::Map<M, Options, Eigen::Stride<0, 0>>;
  using plain = std::remove_const_t<M>;
  static const_tensor_ref view(host const& m) { return {detail::eigen_geometry(m), m.data()}; }
  static tensor_ref view(host& m)
    requires(!std::is_const_v<M>)
  {
    return {detail::eigen_geometry(m), m.data()};
  }
  static auto wrap(const_tensor_ref t) { return detail::eigen_map<plain, Eigen::Unaligned>(t); }
  static auto wrap(tensor_ref t) { return detail::eigen_map<plain, Eigen::Unaligned>(t); }
};

}  // namespace mixbit
