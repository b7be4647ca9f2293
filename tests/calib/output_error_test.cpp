#include "mixbit/calib/output_error.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "support/plain_linalg.hpp"

using namespace mixbit;

namespace {

struct rows {
  std::int64_t count, width;
  std::vector<float> values;

  rows(std::int64_t n, std::int64_t columns, unsigned seed)
      : count{n}, width{columns}, values(static_cast<std::size_t>(n * columns)) {
    std::mt19937 generator{seed};
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(generator) + 0.5f;
  }
  matrix_ref<float const> view() const { return dense_matrix(values.data(), count, width); }
};

/// The definition.
double by_definition(std::vector<rows> const& batches, rows const& d) {
  double total = 0;
  for (auto const& x : batches) {
    double sum = 0;
    for (std::int64_t r = 0; r < x.count; ++r)
      for (std::int64_t o = 0; o < d.count; ++o) {
        double product = 0;
        for (std::int64_t k = 0; k < d.width; ++k) product += double{x.view()(r, k)} * d.view()(o, k);
        sum += product * product;
      }
    total += sum / static_cast<double>(x.count * d.count);
  }
  return total;
}

double computed(std::vector<rows> const& batches, rows const& d) {
  any_linalg const l = test::plain_linalg{};
  output_error seen{d.width};
  for (auto const& x : batches) seen.add(l, x.view());
  return seen.of(l, d.view());
}

}  // namespace

TEST_CASE("output_error: the sum over batches of the mean squared change, from rows and from their Gram matrix") {
  for (std::int64_t const width : {1, 7, 40, 300}) {
    rows const d{5, width, 1};
    for (std::vector<std::int64_t> const& counts :
         std::vector<std::vector<std::int64_t>>{{1}, {3, 9}, {2, 1, 1}, {160}, {100, 90, 7}}) {
      std::vector<rows> batches;
      for (auto const n : counts) batches.emplace_back(n, width, static_cast<unsigned>(batches.size() + 2));
      CHECK(computed(batches, d) == doctest::Approx(by_definition(batches, d)).epsilon(2e-6));
    }
  }
}

TEST_CASE("output_error: a change across large means of the inputs is not lost in them") {
  std::int64_t const width = 48;
  for (std::vector<std::int64_t> const& counts :  // from the Gram matrix at once, after rows, of more than a slab
       std::vector<std::vector<std::int64_t>>{{160, 90}, {5, 7, 60}, {1500}}) {
    std::vector<rows> batches;
    for (auto const n : counts) {
      batches.emplace_back(n, width, static_cast<unsigned>(batches.size() + 12));
      for (std::size_t i = 0; i < batches.back().values.size(); ++i)
        batches.back().values[i] += i % 2 == 0 ? 2000.0f : -1000.0f;
    }
    rows d{5, width, 11};
    for (std::size_t i = 0; i < d.values.size(); i += 2) d.values[i + 1] = 2 * d.values[i];  // 2000 d - 1000 · 2 d
    CHECK(computed(batches, d) == doctest::Approx(by_definition(batches, d)).epsilon(2e-5));
    d.values[3] += 1;
    CHECK(computed(batches, d) == doctest::Approx(by_definition(batches, d)).epsilon(2e-5));
  }
}

TEST_CASE("output_error: one large token does not cost the others their precision, wherever it comes") {
  std::int64_t const width = 48;
  for (std::size_t const place : {0u, 22u, 23u, 24u, 100u}) {  // H takes the place of rows at the 24th
    std::vector<rows> batches;
    for (unsigned i = 0; i < 400; ++i) batches.emplace_back(1, width, i + 100);
    for (float& v : batches[place].values) v = 300 * (v - 0.5f);
    rows d{1, width, 17};
    double along = 0, length = 0;
    for (std::size_t k = 0; k < d.values.size(); ++k) {
      along += double{d.values[k]} * batches[place].values[k];
      length += double{batches[place].values[k]} * batches[place].values[k];
    }
    for (std::size_t k = 0; k < d.values.size(); ++k)
      d.values[k] -= static_cast<float>(along / length * batches[place].values[k]);
    CHECK(computed(batches, d) == doctest::Approx(by_definition(batches, d)).epsilon(1e-3));
  }
}

TEST_CASE("output_error: more outputs than are multiplied at a time, and none of a change of nothing") {
  rows const d{1030, 24, 3};
  std::vector<rows> const batches{{30, 24, 4}, {5, 24, 5}};
  CHECK(computed(batches, d) == doctest::Approx(by_definition(batches, d)).epsilon(2e-6));
  rows nothing = d;
  std::fill(nothing.values.begin(), nothing.values.end(), 0.0f);
  CHECK(computed(batches, nothing) == 0);
  CHECK(computed({}, d) == 0);
}

TEST_CASE("output_error: NaN and infinities of inputs or of the change make it infinite") {
  for (float const bad : {NAN, INFINITY})
    for (std::int64_t const count : {2, 40}) {
      rows x{count, 24, 6}, d{4, 24, 7};
      rows const good = d;
      d.values[30] = bad;
      CHECK(computed({x}, d) == INFINITY);
      x.values[5] = bad;
      CHECK(computed({x}, good) == INFINITY);
    }
}
