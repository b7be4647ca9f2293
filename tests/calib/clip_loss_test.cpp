#include "mixbit/calib/clip_loss.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

using namespace mixbit;

namespace {

std::vector<float> random_values(std::size_t n, unsigned seed) {
  std::mt19937 generator{seed};
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(generator);
  return values;
}

/// The definition: for each row of d and each block, the mean over rows of x of the partial product's square.
std::vector<double> by_definition(std::vector<std::vector<float>> const& batches, std::vector<float> const& d,
                                  std::int64_t width, std::int64_t block) {
  std::vector<double> loss;
  for (std::size_t row = 0; row < d.size() / static_cast<std::size_t>(width); ++row)
    for (std::int64_t first = 0; first < width; first += block) {
      double total = 0;
      for (auto const& x : batches) {
        double sum = 0;
        std::size_t const rows = x.size() / static_cast<std::size_t>(width);
        for (std::size_t r = 0; r < rows; ++r) {
          double product = 0;
          for (std::int64_t i = first; i < std::min(first + block, width); ++i) {
            auto const at = static_cast<std::size_t>(i), w = static_cast<std::size_t>(width);
            product += double{x[r * w + at]} * d[row * w + at];
          }
          sum += product * product;
        }
        total += sum / static_cast<double>(rows);
      }
      loss.push_back(total);
    }
  return loss;
}

}  // namespace

TEST_CASE("clip loss: equal to its definition for whole and ragged blocks, and for rows that fill no vector") {
  struct shape {
    std::int64_t width, block, rows;
  };
  for (shape const each : {shape{8, 4, 16}, shape{10, 4, 17}, shape{7, 7, 1}, shape{5, 1, 3}, shape{64, 32, 33},
                           shape{3, 8, 2}}) {
    std::int64_t const width = each.width, block = each.block, rows = each.rows;  // clang 14 captures no bindings
    CAPTURE(width);
    std::vector<std::vector<float>> const batches{random_values(static_cast<std::size_t>(6 * width), 1),
                                                  random_values(static_cast<std::size_t>(width), 2)};
    auto const d = random_values(static_cast<std::size_t>(rows * width), 3);
    clip_grams grams{width, block};
    for (auto const& x : batches) grams.add(x);
    auto const expected = by_definition(batches, d, width, block);
    std::vector<double> loss(static_cast<std::size_t>(rows * grams.blocks()), -1);
    grams.losses(d, loss);
    REQUIRE(loss.size() == expected.size());
    for (std::size_t i = 0; i < loss.size(); ++i) CHECK(loss[i] == doctest::Approx(expected[i]).epsilon(1e-12));
  }
}

TEST_CASE("clip ratios: from the least to 1, which is always there") {
  CHECK(clip_ratios(0.5, 0.05).size() == 11);
  CHECK(clip_ratios(0.5, 0.05).front() == 0.5);
  CHECK(clip_ratios(0.5, 0.05).back() == 1.0);
  CHECK(clip_ratios(0.5, 0.2) == std::vector{0.5, 0.7, 0.9, 1.0});
  CHECK(clip_ratios(0.9, 1.0) == std::vector{0.9, 1.0});
}
