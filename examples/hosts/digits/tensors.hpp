// The tensors of this host, xtensor's, and the matrix products that its layers are made of.
//
// Products work on row-major memory through raw pointers: indexing an xtensor adaptor element by element costs ten
// times as much. Every sum runs in one fixed order, so results are the same on every run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

#if __has_include(<xtensor/containers/xtensor.hpp>)
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xtensor.hpp>
#endif

namespace digits {

using vector = xt::xtensor<float, 1>;
using matrix = xt::xtensor<float, 2>;   ///< [images, features], weights [out, in]
using tensor4 = xt::xtensor<float, 4>;  ///< [images, channels, height, width], weights [out, in, height, width]

/// The same everywhere for the same seed, which the distributions of <random> are not.
class random_source {
 public:
  explicit random_source(std::uint32_t seed) : engine_{seed} {}
  /// In [-bound, bound).
  float uniform(float bound) { return bound * (static_cast<float>(engine_() >> 8) * 0x1p-23f - 1.0f); }
  /// In [0, n), n > 0.
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_()) * n >> 32; }

 private:
  std::mt19937 engine_;
};

/// Rows and columns of c, and the length of the sums.
struct product_shape {
  std::size_t rows, columns, inner;
};

/// c += a · b, a [rows, inner], b [inner, columns].
void add_product(product_shape s, float const* a, float const* b, float* c);
/// c += a · bᵀ, a [rows, inner], b [columns, inner].
void add_product_transposed(product_shape s, float const* a, float const* b, float* c);
/// c += aᵀ · b, a [inner, rows], b [inner, columns].
void add_transposed_product(product_shape s, float const* a, float const* b, float* c);

}  // namespace digits
