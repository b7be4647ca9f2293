#include "mixbit/calib/gptq.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "mixbit/core/thread_pool.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"

using namespace mixbit;
using test::error_text;
using test::plain_linalg;
using test::says;
using test::wide;

namespace {

/// A layer: a weight, its inputs' Hessian and a grid whose step differs by row and by group of columns.
struct problem {
  std::int64_t rows, columns, group;
  std::vector<float> weight, hessian, steps;

  problem(std::int64_t r, std::int64_t c, std::int64_t g, unsigned seed) : rows{r}, columns{c}, group{g} {
    std::mt19937 random{seed};
    std::normal_distribution<float> normal;
    weight.resize(size(r, c));
    for (float& v : weight) v = normal(random);
    std::int64_t const tokens = 2 * c;
    std::vector<float> x(size(tokens, c));
    for (std::int64_t t = 0; t < tokens; ++t) {
      float const common = normal(random);
      for (std::int64_t k = 0; k < c; ++k) x[size(t, c) + size(k, 1)] = normal(random) + common * (k % 5 == 0 ? 3 : 1);
    }
    input_gram gram{c};
    gram.add(plain_linalg{}, dense_matrix<float const>(x.data(), tokens, c));
    auto const h = gram.hessian();
    hessian.assign(h.data, h.data + c * c);
    for (std::int64_t i = 0; i < r * ((c + g - 1) / g); ++i)
      steps.push_back(0.2f + 0.05f * static_cast<float>(i % 7));
  }
  static std::size_t size(std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); }

  float step(std::int64_t row, std::int64_t column) const {
    return steps[static_cast<std::size_t>(row * ((columns + group - 1) / group) + column / group)];
  }
  float rounded(std::int64_t row, std::int64_t column, double x) const {
    double const s = step(row, column);
    return static_cast<float>(std::nearbyint(x / s) * s);
  }

  std::vector<float> rounded() const {
    auto q = weight;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t k = 0; k < columns; ++k) q[size(i, columns) + size(k, 1)] = rounded(i, k, at(i, k));
    return q;
  }
  float at(std::int64_t row, std::int64_t column) const { return weight[size(row, columns) + size(column, 1)]; }

  std::vector<float> gptq(gptq_options const& options, gptq_outcome* outcome = nullptr, any_linalg l = plain_linalg{}) {
    auto w = weight, h = hessian;
    auto const quantize = [&](std::int64_t column, std::int64_t row, std::int64_t n, float const* x, float* q) {
      for (std::int64_t i = 0; i < n; ++i) q[i] = rounded(row + i, column, x[i]);
    };
    auto const to = dense_matrix(w.data(), rows, columns), by = dense_matrix(h.data(), columns, columns);
    auto const result = mixbit::gptq(l, to, by, options, quantize);
    if (outcome) *outcome = result;
    return w;
  }

  /// Optimal brain quantization without blocks or factors, in float64: the inverse Hessian of the columns that are left
  /// is updated after each (Frantar and Alistarh, 2022, "Optimal Brain Compression", equations 5 to 7).
  std::vector<float> direct(double damping, std::vector<std::int64_t> const& order) const {
    auto const n = static_cast<std::size_t>(columns);
    wide h(n * n);
    double mean = 0;
    for (std::size_t i = 0; i < n; ++i) {
      mean += hessian[i * n + i] / static_cast<double>(n);
      for (std::size_t k = 0; k < n; ++k) h[i * n + k] = hessian[std::min(i, k) * n + std::max(i, k)];
    }
    for (std::size_t i = 0; i < n; ++i) h[i * n + i] += damping * mean;
    wide inverse = test::inverse_of(h, n), w(weight.begin(), weight.end());
    std::vector<float> q(weight.size());
    for (std::size_t step = 0; step < n; ++step) {
      auto const j = static_cast<std::size_t>(order[step]);
      for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
        q[row * n + j] = rounded(static_cast<std::int64_t>(row), order[step], w[row * n + j]);
        double const error = (w[row * n + j] - q[row * n + j]) / inverse[j * n + j];
        for (std::size_t k = step; k < n; ++k) {
          auto const later = static_cast<std::size_t>(order[k]);
          w[row * n + later] -= error * inverse[j * n + later];
        }
      }
      wide const before = inverse;
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k < n; ++k)
          inverse[i * n + k] -= before[i * n + j] * before[j * n + k] / before[j * n + j];
    }
    return q;
  }

  /// Σ over rows of dᵀ H d.
  double output_error(std::vector<float> const& q) const {
    double total = 0;
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t i = 0; i < columns; ++i)
        for (std::int64_t k = 0; k < columns; ++k) {
          auto const d = [&](std::int64_t c) { return double{q[size(row, columns) + size(c, 1)]} - at(row, c); };
          total += d(i) * hessian[size(std::min(i, k), columns) + size(std::max(i, k), 1)] * d(k);
        }
    return total;
  }
};

double largest_difference(std::vector<float> const& a, std::vector<float> const& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

std::vector<std::int64_t> in_order(std::int64_t n) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

}  // namespace

TEST_CASE("gptq: equal to optimal brain quantization without blocks, in float64") {
  problem p{37, 45, 16, 3};
  auto const expected = p.direct(0.01, in_order(p.columns));
  for (std::int64_t block : {1, 7, 16, 45, 128}) {
    CAPTURE(block);
    CHECK(largest_difference(p.gptq({.block = block}), expected) < 1e-6);
  }
  CHECK(largest_difference(p.gptq({.damping = 0.5}), p.direct(0.5, in_order(p.columns))) < 1e-6);
}

TEST_CASE("gptq: errs less on the outputs than rounding each column") {
  problem p{64, 48, 16, 4};
  CHECK(p.output_error(p.gptq({})) < 0.5 * p.output_error(p.rounded()));
}

TEST_CASE("gptq: pieces of rows and threads do not change a bit") {
  problem p{4 * detail::gptq_rows + 44, 40, 8, 5};  // four whole pieces and a short one
  auto const alone = p.gptq({.block = 16});
  CHECK(largest_difference(alone, p.direct(0.01, in_order(p.columns))) < 1e-6);
  for (int threads : {2, 3}) {
    thread_pool pool{threads};
    CHECK(p.gptq({.block = 16}, nullptr, plain_linalg{pool}) == alone);
  }
}

TEST_CASE("gptq: more rows than differences are kept of at a time") {
  problem p{detail::gptq_slab + 3, 6, 2, 12};  // steps differ by row
  CHECK(largest_difference(p.gptq({.block = 2}), p.direct(0.01, in_order(p.columns))) < 1e-6);
}

TEST_CASE("gptq: in activation order each column keeps the scale of its own group") {
  problem p{21, 40, 8, 6};
  auto const n = static_cast<std::size_t>(p.columns);
  auto order = in_order(p.columns);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return p.hessian[static_cast<std::size_t>(a) * (n + 1)] > p.hessian[static_cast<std::size_t>(b) * (n + 1)];
  });
  REQUIRE(order != in_order(p.columns));
  auto const got = p.gptq({.block = 16, .activation_order = true});
  CHECK(largest_difference(got, p.direct(0.01, order)) < 1e-6);
  CHECK(largest_difference(got, p.gptq({.block = 16})) > 0.1);
}

TEST_CASE("gptq: columns of zeros stay zero and bear on no other") {
  problem p{20, 24, 24, 8};
  auto const n = static_cast<std::size_t>(p.columns);
  std::vector<std::int64_t> alive;
  for (std::int64_t k = 0; k < p.columns; ++k)
    if (k != 0 && k != 11) alive.push_back(k);
  for (std::size_t row = 0; row < 20; ++row) p.weight[row * n] = p.weight[row * n + 11] = 0;
  gptq_outcome outcome;
  auto const got = p.gptq({.block = 8}, &outcome);
  CHECK(outcome.dead_columns == 2);
  problem rest{20, 22, 22, 8};
  double mean = 2;  // of the diagonal: a dead column has 1
  for (std::size_t i = 0; i < alive.size(); ++i) {
    mean += p.hessian[static_cast<std::size_t>(alive[i]) * (n + 1)];
    for (std::size_t k = 0; k < alive.size(); ++k)
      rest.hessian[i * 22 + k] = p.hessian[static_cast<std::size_t>(std::min(alive[i], alive[k])) * n +
                                           static_cast<std::size_t>(std::max(alive[i], alive[k]))];
    for (std::size_t row = 0; row < 20; ++row)
      rest.weight[row * 22 + i] = p.weight[row * n + static_cast<std::size_t>(alive[i])];
  }
  rest.steps = p.steps;
  double own = 0;
  for (std::size_t i = 0; i < 22; ++i) own += rest.hessian[i * 23];
  auto const expected = rest.direct(0.01 * (mean / 24) / (own / 22), in_order(22));
  for (std::size_t row = 0; row < 20; ++row) {
    CHECK(got[row * n] == 0);
    CHECK(got[row * n + 11] == 0);
    for (std::size_t i = 0; i < alive.size(); ++i)
      CHECK(got[row * n + static_cast<std::size_t>(alive[i])] == doctest::Approx(expected[row * 22 + i]).epsilon(1e-6));
  }
}

TEST_CASE("gptq: a Hessian that is not positive definite is damped more, and says so") {
  problem p{200, 10, 10, 9};
  std::fill(p.hessian.begin(), p.hessian.end(), 0.9f);
  for (std::size_t i = 0; i < 10; ++i) p.hessian[i * 11] = 1;
  p.hessian[1] = 1.05f;  // an eigenvalue of -0.05
  gptq_outcome outcome;
  auto const got = p.gptq({}, &outcome);
  CHECK(outcome.damping == doctest::Approx(0.1));
  REQUIRE(outcome.notes.size() == 1);
  CHECK(outcome.notes[0].find("raised to 0.1") != std::string::npos);
  CHECK(largest_difference(got, p.direct(0.1, in_order(10))) < 1e-6);
  CHECK(largest_difference(got, p.direct(0.11, in_order(10))) > 0.1);  // by so much as one that is not raised but added
}

TEST_CASE("gptq: without a usable Hessian each column is rounded on its own") {
  problem p{9, 10, 5, 10};
  auto const rounded = p.rounded();
  float const nan = std::numeric_limits<float>::quiet_NaN();
  for (float const value : {0.0f, nan, -1.0f}) {
    CAPTURE(value);
    std::fill(p.hessian.begin(), p.hessian.end(), value);
    gptq_outcome outcome;
    CHECK(p.gptq({}, &outcome) == rounded);
    CHECK(outcome.damping == 0);
    REQUIRE(outcome.notes.size() == 1);
    CHECK(outcome.notes[0].find("rounded on its own") != std::string::npos);
  }
  std::fill(p.hessian.begin(), p.hessian.end(), 0.0f);
  for (std::size_t i = 0; i < 10; ++i) p.hessian[i * 11] = 1;
  p.hessian[1] = 1e6f;  // indefinite however damped
  gptq_outcome outcome;
  CHECK(p.gptq({}, &outcome) == rounded);
  CHECK(outcome.notes.size() == 1);
}

TEST_CASE("input_gram: 2/n of the sum, over batches of any size") {
  std::vector<float> const x{1, 2, 3, 4, -5, 6, 0.5f, 1, 1, 7, 7, 7};
  input_gram gram{3};
  gram.add(plain_linalg{}, dense_matrix<float const>(x.data(), 1, 3));
  gram.add(plain_linalg{}, dense_matrix<float const>(nullptr, 0, 3));
  gram.add(plain_linalg{}, dense_matrix<float const>(x.data() + 3, 3, 3));
  CHECK(gram.tokens() == 4);
  auto const h = gram.hessian();
  for (int i = 0; i < 3; ++i)
    for (int k = i; k < 3; ++k) {
      double sum = 0;
      for (std::size_t t = 0; t < 12; t += 3)
        sum += double{x[t + static_cast<std::size_t>(i)]} * x[t + static_cast<std::size_t>(k)];
      CHECK(h(i, k) == doctest::Approx(sum / 2));
    }
}

TEST_CASE("gptq refuses options and shapes that it cannot use, and writes nothing") {
  problem p{3, 8, 4, 5};
  auto const refused = [&](gptq_options const& o, char const* why) {
    CHECK(says(error_text(error_id::config_value, [&] { p.gptq(o); }), why));
  };
  refused({.block = 0}, "gptq: block is 0, and must be at least 1");
  refused({.damping = -1}, "gptq: damping is -1, and must not be negative");
  refused({.damping = std::numeric_limits<double>::quiet_NaN()}, "gptq: damping is nan");
  auto w = p.weight, h = p.hessian;
  auto const of_w = dense_matrix(w.data(), 3, 8), of_h = dense_matrix(h.data(), 7, 7);
  auto const never = [](std::int64_t, std::int64_t, std::int64_t, float const*, float*) { CHECK(false); };
  CHECK(says(error_text(error_id::tensor_shape, [&] { gptq(plain_linalg{}, of_w, of_h, {}, never); }),
             "gptq: the Hessian of a weight of 8 columns is 7 x 7"));
  CHECK(w == p.weight);
  CHECK(h == p.hessian);
}
