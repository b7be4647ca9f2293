// A linalg of plain loops in float64: what a host's own would be held to. It is not fast, and has no truncated SVD
// beyond what power iterations find.
#pragma once

#include <cmath>
#include <random>

#include "mixbit/core/linalg.hpp"

namespace mixbit::test {

using wide = std::vector<double>;

/// The inverse of a symmetric n x n matrix by elimination with pivots of the diagonal; empty where one is not positive.
inline wide inverse_of(wide h, std::size_t n) {
  wide inverse(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (std::size_t k = 0; k < n; ++k) {
    double const pivot = h[k * n + k];
    if (!(pivot > 0) || !std::isfinite(pivot)) return {};
    for (std::size_t c = 0; c < n; ++c) h[k * n + c] /= pivot, inverse[k * n + c] /= pivot;
    for (std::size_t i = 0; i < n; ++i) {
      double const f = h[i * n + k];
      if (i == k || f == 0) continue;
      for (std::size_t c = 0; c < n; ++c) {
        h[i * n + c] -= f * h[k * n + c];
        inverse[i * n + c] -= f * inverse[k * n + c];
      }
    }
  }
  return inverse;
}

struct plain_linalg {
  executor_ref pool{};

  void accumulate_gram(float alpha, matrix_ref<float const> x, matrix_ref<float> h) const {
    for (std::int64_t i = 0; i < h.rows; ++i)
      for (std::int64_t k = i; k < h.rows; ++k) {
        double sum = 0;
        for (std::int64_t t = 0; t < x.rows; ++t) sum += double{x(t, i)} * x(t, k);
        h(i, k) += static_cast<float>(alpha * sum);
      }
  }
  void multiply_add(float alpha, matrix_ref<float const> a, matrix_ref<float const> b, factor f,
                    matrix_ref<float> c) const {
    for (std::int64_t i = 0; i < c.rows; ++i)
      for (std::int64_t k = 0; k < c.columns; ++k) {
        double sum = 0;
        for (std::int64_t t = 0; t < a.columns; ++t) sum += double{a(i, t)} * (f == factor::as_is ? b(t, k) : b(k, t));
        c(i, k) += static_cast<float>(alpha * sum);
      }
  }
  /// The definition, column by column from the last.
  bool upper_factor(matrix_ref<float> h) const {
    auto const n = static_cast<std::size_t>(h.rows);
    wide r(n * n, 0.0);
    for (std::size_t k = n; k-- > 0;)
      for (std::size_t i = k + 1; i-- > 0;) {
        double v = h(static_cast<std::int64_t>(i), static_cast<std::int64_t>(k));
        for (std::size_t t = k + 1; t < n; ++t) v -= r[i * n + t] * r[k * n + t];
        if (i == k && (!(v > 0) || !std::isfinite(v))) return false;
        r[i * n + k] = i == k ? std::sqrt(v) : v / r[k * n + k];
      }
    for (std::size_t i = 0; i < n * n; ++i) h.data[i / n * static_cast<std::size_t>(h.stride) + i % n] =
        static_cast<float>(r[i]);
    return true;
  }
  /// Power iterations, one vector at a time, each orthogonal to those before it.
  low_rank_factors low_rank(matrix_ref<double const> a, std::int64_t rank) const {
    low_rank_factors found{wide(static_cast<std::size_t>(a.rows * rank)), {}};
    std::mt19937 random{7};
    std::normal_distribution<double> normal;
    for (std::int64_t r = 0; r < rank; ++r) {
      wide v(static_cast<std::size_t>(a.columns)), u(static_cast<std::size_t>(a.rows));
      for (double& x : v) x = normal(random);
      for (int step = 0; step < 500; ++step) {
        orthonormalize(v, found.right);
        multiply(a, v, u);
        std::fill(v.begin(), v.end(), 0.0);
        for (std::int64_t i = 0; i < a.rows; ++i)
          for (std::int64_t k = 0; k < a.columns; ++k)
            v[static_cast<std::size_t>(k)] += a(i, k) * u[static_cast<std::size_t>(i)];
      }
      orthonormalize(v, found.right);
      multiply(a, v, u);
      found.right.insert(found.right.end(), v.begin(), v.end());
      for (std::int64_t i = 0; i < a.rows; ++i)
        found.left[static_cast<std::size_t>(i * rank + r)] = u[static_cast<std::size_t>(i)];
    }
    return found;
  }
  executor_ref threads() const { return pool; }

 private:
  static void multiply(matrix_ref<double const> a, wide const& v, wide& u) {
    for (std::int64_t i = 0; i < a.rows; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < a.columns; ++k) sum += a(i, k) * v[static_cast<std::size_t>(k)];
      u[static_cast<std::size_t>(i)] = sum;
    }
  }
  static void orthonormalize(wide& v, wide const& rows) {
    for (std::size_t first = 0; first < rows.size(); first += v.size()) {
      double along = 0;
      for (std::size_t k = 0; k < v.size(); ++k) along += v[k] * rows[first + k];
      for (std::size_t k = 0; k < v.size(); ++k) v[k] -= along * rows[first + k];
    }
    double norm = 0;
    for (double const x : v) norm += x * x;
    for (double& x : v) x /= std::sqrt(norm);
  }
};

static_assert(linalg<plain_linalg>);

}  // namespace mixbit::test
