#include "tensors.hpp"

namespace digits {

namespace {

void add_scaled(std::size_t n, float scale, float const* x, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] += scale * x[i];
}

/// Eight running sums, which a compiler may keep in one register, added up at the end.
float dot(std::size_t n, float const* a, float const* b) {
  constexpr std::size_t lanes = 8;
  float sums[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::size_t l = 0; l < lanes; ++l) sums[l] += a[i + l] * b[i + l];
  for (; i < n; ++i) sums[i % lanes] += a[i] * b[i];
  float sum = 0;
  for (float const s : sums) sum += s;
  return sum;
}

}  // namespace

void add_product(product_shape s, float const* a, float const* b, float* c) {
  for (std::size_t r = 0; r < s.rows; ++r)
    for (std::size_t k = 0; k < s.inner; ++k)
      add_scaled(s.columns, a[r * s.inner + k], b + k * s.columns, c + r * s.columns);
}

void add_product_transposed(product_shape s, float const* a, float const* b, float* c) {
  for (std::size_t r = 0; r < s.rows; ++r)
    for (std::size_t j = 0; j < s.columns; ++j)
      c[r * s.columns + j] += dot(s.inner, a + r * s.inner, b + j * s.inner);
}

void add_transposed_product(product_shape s, float const* a, float const* b, float* c) {
  for (std::size_t k = 0; k < s.inner; ++k)
    for (std::size_t r = 0; r < s.rows; ++r)
      add_scaled(s.columns, a[k * s.rows + r], b + k * s.columns, c + r * s.columns);
}

}  // namespace digits
