// Rows of a tensor as float32: what the rules of all formats compute on.
#pragma once

#include "mixbit/core/tensor_view.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// `n` elements of t from `offset` on: its own memory where that is a row of float32, else a copy in `buffer`.
inline float const* load_row(const_tensor_ref const& t, std::int64_t offset, std::int64_t stride, std::int64_t n,
                             float* buffer) {
  if (t.type == dtype::f32 && stride == 1) return t.as<float>() + offset;
  visit_compute(t.type, [&]<class T>(T) {
    T const* const in = t.as<T>() + offset;
    if (stride == 1)
      for (std::int64_t i = 0; i < n; ++i) buffer[i] = to_float(in[i]);
    else
      for (std::int64_t i = 0; i < n; ++i) buffer[i] = to_float(in[i * stride]);
  });
  return buffer;
}

/// Where to compute a row that store_row then puts into t.
inline float* row_target(tensor_ref const& t, std::int64_t offset, std::int64_t stride, float* buffer) {
  return t.type == dtype::f32 && stride == 1 ? t.as<float>() + offset : buffer;
}

/// Rounds a row to t's type and puts it there, if it is not there already.
inline void store_row(tensor_ref const& t, std::int64_t offset, std::int64_t stride, std::int64_t n, float const* row) {
  if (t.type == dtype::f32 && stride == 1) return;
  visit_compute(t.type, [&]<class T>(T) {
    T* const out = t.as<T>() + offset;
    if (stride == 1)
      for (std::int64_t i = 0; i < n; ++i) out[i] = from_float<T>(row[i]);
    else
      for (std::int64_t i = 0; i < n; ++i) out[i * stride] = from_float<T>(row[i]);
  });
}

/// The two, as a kernel's policy: a vector backend has others.
struct plain_rows {
  static float const* row_of(const_tensor_ref const& t, std::int64_t offset, std::int64_t stride, std::int64_t n,
                             float* buffer) {
    return load_row(t, offset, stride, n, buffer);
  }
  static void put_row(tensor_ref const& t, std::int64_t offset, std::int64_t stride, std::int64_t n, float const* row) {
    store_row(t, offset, stride, n, row);
  }
};

/// Cuts a run of any length into rows of at most tile_width: f(offset of the row, length).
template <class F>
void for_tiles(std::int64_t length, F&& f) {
  for (std::int64_t i = 0; i < length; i += tile_width) f(i, std::min(tile_width, length - i));
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
