// Borrowed tensors: a run-time element type, a shape, strides and a pointer. Nothing here owns memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "mixbit/core/dtype.hpp"

namespace mixbit {

/// The largest rank the library takes: a blocked 3-D convolution kernel has 5 axes.
inline constexpr int max_rank = 6;

using extents = std::array<std::int64_t, max_rank>;

/// Where the memory is.
enum class device : std::uint8_t { cpu, cuda };

constexpr std::string_view name_of(device d) { return d == device::cpu ? "CPU" : "CUDA"; }

/// Element type, place, shape and strides (in elements). Axes beyond `rank` have size 1 and stride 0.
struct geometry {
  dtype type = dtype::f32;
  device where = device::cpu;
  std::int8_t rank = 0;
  extents shape{1, 1, 1, 1, 1, 1};
  extents stride{};

  constexpr std::int64_t size() const {
    std::int64_t n = 1;
    for (int a = 0; a < rank; ++a) n *= shape[a];
    return n;
  }
  constexpr std::int64_t bytes() const { return size() * static_cast<std::int64_t>(size_of(type)); }

  /// True where the elements are consecutive in the order of the axes. Axes of size 1 may have any stride.
  constexpr bool is_dense() const {
    std::int64_t expected = 1;
    for (int a = rank - 1; a >= 0; --a) {
      if (shape[a] != 1 && stride[a] != expected) return false;
      expected *= shape[a];
    }
    return true;
  }

  constexpr bool same_shape(geometry const& other) const {
    if (rank != other.rank) return false;
    for (int a = 0; a < rank; ++a)
      if (shape[a] != other.shape[a]) return false;
    return true;
  }
};

/// Do two views of one memory show the same elements at the same places?
constexpr bool same_view(geometry const& a, geometry const& b) {
  if (a.type != b.type || !a.same_shape(b)) return false;
  for (int axis = 0; axis < a.rank; ++axis)
    if (a.shape[axis] != 1 && a.stride[axis] != b.stride[axis]) return false;
  return true;
}

/// "[2,3,4]", for messages.
inline std::string to_string(geometry const& g) {
  std::string text = "[";
  for (int a = 0; a < g.rank; ++a) {
    if (a != 0) text += ',';
    text += std::to_string(g.shape[a]);  // one string a step: g++ 12 -O3 warns of "," + string (GCC bug 105651)
  }
  return text + "]";
}

struct tensor_ref : geometry {
  void* data = nullptr;
  template <class T>
  T* as() const { return static_cast<T*>(data); }
};

struct const_tensor_ref : geometry {
  void const* data = nullptr;
  const_tensor_ref() = default;
  const_tensor_ref(geometry const& g, void const* p) : geometry{g}, data{p} {}
  const_tensor_ref(tensor_ref const& t) : geometry{t}, data{t.data} {}  // NOLINT: a view may always be read
  template <class T>
  T const* as() const { return static_cast<T const*>(data); }
};

/// Row-major strides for a shape. Throws `tensor_shape` above max_rank or for a negative size.
inline geometry dense_geometry(dtype type, std::span<std::int64_t const> shape) {
  if (shape.size() > static_cast<std::size_t>(max_rank))
    fail(error_id::tensor_shape, "rank ", shape.size(), " is above the largest rank of ", max_rank);
  geometry g;
  g.type = type;
  g.rank = static_cast<std::int8_t>(shape.size());
  std::int64_t step = 1;
  for (int a = g.rank - 1; a >= 0; --a) {
    if (shape[a] < 0) fail(error_id::tensor_shape, "axis ", a, " has the negative size ", shape[a]);
    g.shape[a] = shape[a];
    g.stride[a] = step;
    step *= shape[a];
  }
  return g;
}

inline geometry dense_geometry(dtype type, std::initializer_list<std::int64_t> shape) {
  return dense_geometry(type, std::span<std::int64_t const>{shape.begin(), shape.size()});
}

template <class T>
tensor_ref dense_view(T* data, std::initializer_list<std::int64_t> shape) {
  return {dense_geometry(dtype_of<T>::value, shape), data};
}

template <class T>
const_tensor_ref dense_view(T const* data, std::initializer_list<std::int64_t> shape) {
  return {dense_geometry(dtype_of<T>::value, shape), data};
}

namespace detail {

/// Does `order` name each of `rank` axes once?
constexpr bool is_permutation(std::span<std::int8_t const> order, int rank) {
  unsigned seen = 0;
  for (int const axis : order) {
    if (axis < 0 || axis >= rank || (seen >> axis & 1u) != 0) return false;
    seen |= 1u << axis;
  }
  return order.size() == static_cast<std::size_t>(rank);
}

[[noreturn]] inline void refuse_order(std::span<std::int8_t const> order, geometry const& g) {
  std::string text;
  for (int const axis : order) {
    if (!text.empty()) text += ',';
    text += std::to_string(axis);
  }
  fail(error_id::tensor_layout, "the axis order {", text, "} does not name each axis of a tensor of shape ",
       to_string(g), " once");
}

}  // namespace detail

/// The same elements with axes in another order: axis i of the result is axis order[i] of `t`. Throws `tensor_layout`
/// for an order that is no permutation of the axes.
template <class Ref>
Ref permuted(Ref const& t, std::span<std::int8_t const> order) {
  if (!detail::is_permutation(order, t.rank)) detail::refuse_order(order, t);
  Ref result = t;
  for (int a = 0; a < t.rank; ++a) {
    result.shape[a] = t.shape[order[a]];
    result.stride[a] = t.stride[order[a]];
  }
  return result;
}

/// Strides of a dense copy that keeps the order in which `g` lays its axes out in memory (largest stride first).
inline geometry dense_like(geometry const& g) {
  std::array<int, max_rank> order{};
  for (int a = 0; a < g.rank; ++a) {
    int place = a;
    for (; place > 0 && g.stride[order[place - 1]] < g.stride[a]; --place) order[place] = order[place - 1];
    order[place] = a;
  }
  geometry result = g;
  std::int64_t step = 1;
  for (int i = g.rank - 1; i >= 0; --i) {
    result.stride[order[i]] = step;
    step *= g.shape[order[i]];
  }
  return result;
}

}  // namespace mixbit
