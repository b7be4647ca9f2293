// Tensors of any compute type, strides and place as dense rows of float32 in host memory: what algorithms see that
// compute with linalg. On a CPU a dense float32 tensor is seen where it lies; everything else is copied.
#pragma once

#include <cstring>
#include <vector>

#include "mixbit/core/backend.hpp"
#include "mixbit/core/linalg.hpp"

namespace mixbit {

namespace detail {

/// How many elements lie between a tensor's first and the one behind its last in memory. Strides are not negative.
inline std::int64_t memory_span(geometry const& g) {
  std::int64_t last = 0;
  for (int a = 0; a < g.rank; ++a) last += (g.shape[a] - 1) * g.stride[a];
  return g.size() == 0 ? 0 : last + 1;
}

/// Calls f(offset in memory, index in row-major order) for the first element of each row of the last axis.
template <class F>
void for_rows(geometry const& g, F&& f) {
  std::int64_t const width = g.rank == 0 ? 1 : g.shape[g.rank - 1];
  if (g.size() == 0) return;
  extents at{};
  for (std::int64_t index = 0; index < g.size(); index += width) {
    std::int64_t offset = 0;
    for (int a = 0; a + 1 < g.rank; ++a) offset += at[a] * g.stride[a];
    f(offset, index);
    for (int a = g.rank - 2; a >= 0 && ++at[a] == g.shape[a]; --a) at[a] = 0;
  }
}

}  // namespace detail

/// The elements of t in row-major order, as float32. Throws `tensor_dtype` for a type that kernels do not compute on.
template <backend B>
std::vector<float> fetch_floats(B& device, const_tensor_ref t) {
  std::vector<float> values(static_cast<std::size_t>(t.size()));
  std::vector<std::byte> bytes;
  if constexpr (B::place != mixbit::device::cpu) {
    bytes.resize(static_cast<std::size_t>(detail::memory_span(t)) * size_of(t.type));
    if (!bytes.empty()) device.copy_to_host(bytes.data(), t.data, bytes.size());
    t.data = bytes.data();
  }
  std::int64_t const width = t.rank == 0 ? 1 : t.shape[t.rank - 1], step = t.rank == 0 ? 1 : t.stride[t.rank - 1];
  visit_compute(t.type, [&]<class T>(T) {
    detail::for_rows(t, [&](std::int64_t offset, std::int64_t index) {
      T const* const from = t.as<T>() + offset;
      float* const to = values.data() + index;
      for (std::int64_t k = 0; k < width; ++k) to[k] = to_float(from[k * step]);
    });
  });
  return values;
}

/// Puts values in row-major order into t, rounded to its type. What lies between t's elements is left alone.
template <backend B>
void store_floats(B& device, tensor_ref t, std::vector<float> const& values) {
  void* const target = t.data;
  std::vector<std::byte> bytes;
  if constexpr (B::place != mixbit::device::cpu) {
    bytes.resize(static_cast<std::size_t>(detail::memory_span(t)) * size_of(t.type));
    if (bytes.empty()) return;
    device.copy_to_host(bytes.data(), target, bytes.size());
    t.data = bytes.data();
  }
  std::int64_t const width = t.rank == 0 ? 1 : t.shape[t.rank - 1], step = t.rank == 0 ? 1 : t.stride[t.rank - 1];
  visit_compute(t.type, [&]<class T>(T) {
    detail::for_rows(t, [&](std::int64_t offset, std::int64_t index) {
      T* const to = t.as<T>() + offset;
      float const* const from = values.data() + index;
      for (std::int64_t k = 0; k < width; ++k) to[k * step] = from_float<T>(from[k]);
    });
  });
  if constexpr (B::place != mixbit::device::cpu) device.copy_from_host(target, bytes.data(), bytes.size());
}

/// A layer's inputs [tokens, channels], channels along the last axis: seen in place or copied, as long as this lives.
template <backend B>
class token_rows {
 public:
  token_rows(B& device, const_tensor_ref x) {
    std::int64_t const channels = x.rank == 0 ? 1 : x.shape[x.rank - 1];
    float const* data = x.as<float>();
    if (B::place != mixbit::device::cpu || x.type != dtype::f32 || !x.is_dense()) {
      copy_ = fetch_floats(device, x);
      data = copy_.data();
    }
    rows_ = dense_matrix(data, channels == 0 ? 0 : x.size() / channels, channels);
  }
  matrix_ref<float const> rows() const { return rows_; }

 private:
  std::vector<float> copy_;
  matrix_ref<float const> rows_;
};

}  // namespace mixbit
