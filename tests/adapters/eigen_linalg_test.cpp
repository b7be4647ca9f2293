#include "mixbit/adapters/eigen_linalg.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "mixbit/core/thread_pool.hpp"
#include "support/plain_linalg.hpp"

using namespace mixbit;
using test::plain_linalg;

namespace {

std::vector<float> random_values(std::int64_t n, unsigned seed) {
  std::mt19937 random{seed};
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

double largest_difference(std::vector<float> const& a, std::vector<float> const& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

/// A well-conditioned symmetric matrix: its upper triangle, 7 below.
std::vector<float> positive_definite(std::int64_t n, unsigned seed) {
  std::vector<float> h(static_cast<std::size_t>(n * n), 0.0f);
  auto const x = random_values(2 * n * n, seed);
  plain_linalg{}.accumulate_gram(1.0f / static_cast<float>(n), dense_matrix<float const>(x.data(), 2 * n, n),
                                 dense_matrix(h.data(), n, n));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < i; ++k) h[static_cast<std::size_t>(i * n + k)] = 7;
  return h;
}

/// |a - left right|², a being [n, m].
double residual(std::vector<double> const& a, low_rank_factors const& f, std::int64_t n, std::int64_t m,
                std::int64_t rank) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < m; ++k) {
      double d = a[static_cast<std::size_t>(i * m + k)];
      for (std::int64_t r = 0; r < rank; ++r)
        d -= f.left[static_cast<std::size_t>(i * rank + r)] * f.right[static_cast<std::size_t>(r * m + k)];
      sum += d * d;
    }
  return sum;
}

template <class F>
void check_same_bits_on_threads(std::vector<float> const& start, F&& f) {
  auto alone = start;
  f(eigen_linalg{}, alone);
  for (int threads : {2, 3}) {
    thread_pool pool{threads};
    auto other = start;
    f(eigen_linalg{pool}, other);
    CHECK(other == alone);
  }
}

}  // namespace

TEST_CASE("eigen_linalg: the upper triangle of a Gram matrix, from rows with a stride") {
  for (std::int64_t n : {1, 5, 256, 300}) {  // a tile, and one with a rest
    CAPTURE(n);
    std::int64_t const tokens = 33, stride = n + 3;
    auto const x = random_values(tokens * stride, 1), h = random_values(n * n, 2);
    matrix_ref<float const> const shown{x.data(), tokens, n, stride};
    auto expected = h, got = h;
    plain_linalg{}.accumulate_gram(0.5f, shown, dense_matrix(expected.data(), n, n));
    eigen_linalg{}.accumulate_gram(0.5f, shown, dense_matrix(got.data(), n, n));
    CHECK(largest_difference(got, expected) < 1e-4);
    bool below_untouched = true;
    for (std::int64_t i = 0; i < n; ++i)
      below_untouched &= std::equal(got.begin() + i * n, got.begin() + i * n + i, h.begin() + i * n);
    CHECK(below_untouched);
    check_same_bits_on_threads(h, [&](eigen_linalg const& l, std::vector<float>& to) {
      l.accumulate_gram(0.5f, shown, dense_matrix(to.data(), n, n));
    });
  }
}

TEST_CASE("eigen_linalg: products are added, in both forms, tile by tile") {
  struct size { std::int64_t rows, inner, columns; };
  for (size const s : {size{3, 4, 5}, size{300, 20, 7}, size{10, 9, 1100}}) {
    CAPTURE(s.rows);
    auto const a = random_values(s.rows * s.inner, 3), b = random_values(s.inner * s.columns, 4);
    auto const c = random_values(s.rows * s.columns, 5);
    for (factor const f : {factor::as_is, factor::transposed}) {
      auto const right = f == factor::as_is ? dense_matrix(b.data(), s.inner, s.columns)
                                            : dense_matrix(b.data(), s.columns, s.inner);
      auto const left = dense_matrix(a.data(), s.rows, s.inner);
      auto expected = c, got = c;
      plain_linalg{}.multiply_add(-2.0f, left, right, f, dense_matrix(expected.data(), s.rows, s.columns));
      eigen_linalg{}.multiply_add(-2.0f, left, right, f, dense_matrix(got.data(), s.rows, s.columns));
      CHECK(largest_difference(got, expected) < 1e-4);
      check_same_bits_on_threads(c, [&](eigen_linalg const& l, std::vector<float>& to) {
        l.multiply_add(-2.0f, left, right, f, dense_matrix(to.data(), s.rows, s.columns));
      });
    }
  }
}

TEST_CASE("eigen_linalg: the upper Cholesky factor, from the last column up") {
  for (std::int64_t n : {1, 2, 127, 128, 129, 300, 641}) {  // around a panel, several tiles
    CAPTURE(n);
    auto const h = positive_definite(n, 6);
    auto expected = h, got = h;
    REQUIRE(plain_linalg{}.upper_factor(dense_matrix(expected.data(), n, n)));
    REQUIRE(eigen_linalg{}.upper_factor(dense_matrix(got.data(), n, n)));
    CHECK(largest_difference(got, expected) < 1e-5);
    check_same_bits_on_threads(h, [&](eigen_linalg const& l, std::vector<float>& to) {
      CHECK(l.upper_factor(dense_matrix(to.data(), n, n)));
    });
  }
}

TEST_CASE("eigen_linalg: a matrix that is not positive definite is refused and left as it was") {
  for (std::int64_t at : {0, 150, 299}) {
    CAPTURE(at);
    for (float const value : {-1.0f, 0.0f, std::numeric_limits<float>::quiet_NaN()}) {
      auto h = positive_definite(300, 7);
      h[static_cast<std::size_t>(at * 301)] = value;
      auto const before = h;
      CHECK_FALSE(eigen_linalg{}.upper_factor(dense_matrix(h.data(), 300, 300)));
      CHECK(std::memcmp(h.data(), before.data(), h.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("eigen_linalg: no matrix of that rank is nearer (Eckart and Young)") {
  // a = Q1 diag(s) Q2ᵀ by two Householder reflections, so its singular values are known
  std::int64_t const rows = 30, columns = 20, rank = 6;
  auto const p = random_values(rows, 8), q = random_values(columns, 9);
  auto const reflection = [](std::vector<float> const& v, std::size_t i, std::size_t k) {
    double norm = 0;
    for (float const x : v) norm += double{x} * x;
    return (i == k ? 1.0 : 0.0) - 2.0 * v[i] * v[k] / norm;
  };
  std::vector<double> values, a(static_cast<std::size_t>(rows * columns), 0.0);
  for (std::int64_t i = 0; i < columns; ++i) values.push_back(std::pow(0.8, static_cast<double>(i)));
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i)
    for (std::size_t k = 0; k < static_cast<std::size_t>(columns); ++k)
      for (std::size_t t = 0; t < static_cast<std::size_t>(columns); ++t)
        a[i * 20 + k] += reflection(p, i, t) * values[t] * reflection(q, t, k);
  double tail = 0;
  for (std::size_t i = rank; i < values.size(); ++i) tail += values[i] * values[i];

  for (bool const wide : {false, true}) {  // the same of the transposed
    CAPTURE(wide);
    std::int64_t const n = wide ? columns : rows, m = wide ? rows : columns;
    std::vector<double> shown(a.size());
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t k = 0; k < m; ++k)
        shown[static_cast<std::size_t>(i * m + k)] = a[static_cast<std::size_t>(wide ? k * columns + i : i * m + k)];
    auto const f = eigen_linalg{}.low_rank(dense_matrix<double const>(shown.data(), n, m), rank);
    auto const dot = [&](std::int64_t r, std::int64_t s) {  // rows of right are orthonormal
      double sum = 0;
      for (std::int64_t k = 0; k < m; ++k)
        sum += f.right[static_cast<std::size_t>(r * m + k)] * f.right[static_cast<std::size_t>(s * m + k)];
      return sum;
    };
    for (std::int64_t r = 0; r < rank; ++r)
      for (std::int64_t s = 0; s < rank; ++s) CHECK(dot(r, s) == doctest::Approx(r == s ? 1 : 0).epsilon(1e-12));
    CHECK(residual(shown, f, n, m, rank) == doctest::Approx(tail).epsilon(1e-10));
    for (std::int64_t r = 0; r < rank; ++r) {  // left is U S: columns of falling length
      double length = 0;
      for (std::int64_t i = 0; i < n; ++i) length += std::pow(f.left[static_cast<std::size_t>(i * rank + r)], 2);
      CHECK(std::sqrt(length) == doctest::Approx(values[static_cast<std::size_t>(r)]).epsilon(1e-10));
    }
  }
}

TEST_CASE("eigen_linalg: equal singular values, missing ones and a single row") {
  auto const least = [](std::vector<double> const& a, std::int64_t n, std::int64_t m, std::int64_t rank) {
    return residual(a, eigen_linalg{}.low_rank(dense_matrix<double const>(a.data(), n, m), rank), n, m, rank);
  };
  std::vector<double> identity(40 * 40, 0.0), product(40 * 30, 0.0), zeros(12, 0.0);
  for (std::size_t i = 0; i < 40; ++i) identity[i * 41] = 2;
  CHECK(least(identity, 40, 40, 15) == doctest::Approx(25 * 4).epsilon(1e-12));
  auto const u = random_values(40 * 3, 10), v = random_values(30 * 3, 11);
  for (std::size_t i = 0; i < 40; ++i)
    for (std::size_t k = 0; k < 30; ++k)
      for (std::size_t r = 0; r < 3; ++r) product[i * 30 + k] += double{u[i * 3 + r]} * v[k * 3 + r];
  CHECK(least(product, 40, 30, 10) < 1e-20);
  CHECK(least(zeros, 3, 4, 2) == 0);
  CHECK(least({3, 4}, 1, 2, 1) < 1e-20);
  CHECK(least({3, 4}, 2, 1, 1) < 1e-20);
}
