// Entropy, mse and percentile of a histogram, each against its definition written out.
#include "mixbit/calib/histogram_amax.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>

#include "support/error_text.hpp"

using namespace mixbit;

namespace {

using counts = std::vector<std::uint64_t>;

/// KL(reference || quantized) of keeping the first i bins, from the definition; infinite where it is undefined.
long double divergence(counts b, std::size_t i, std::size_t levels) {
  b[0] = b[1];
  std::vector<long double> reference(b.begin(), b.begin() + static_cast<std::ptrdiff_t>(i)), quantized(i);
  for (std::size_t k = i; k < b.size(); ++k) reference[i - 1] += b[k];
  std::vector<long double> sum(std::min(levels, i) + 1);  // more levels than bins: each bin has its own
  std::vector<int> held(sum.size());
  auto const level_of = [&](std::size_t k) { return levels >= i ? k : k * levels / i; };
  for (std::size_t k = 0; k < i; ++k) sum[level_of(k)] += b[k], held[level_of(k)] += b[k] != 0;
  for (std::size_t k = 0; k < i; ++k)
    if (b[k] != 0) quantized[k] = sum[level_of(k)] / held[level_of(k)];
  long double all = 0, kept = 0, result = 0;
  for (std::size_t k = 0; k < i; ++k) all += reference[k], kept += quantized[k];
  if (kept == 0) return INFINITY;
  for (std::size_t k = 0; k < i; ++k) {
    if (reference[k] == 0) continue;
    if (quantized[k] == 0) return INFINITY;
    result += reference[k] / all * std::log((reference[k] / all) / (quantized[k] / kept));
  }
  return result;
}

std::size_t entropy_by_definition(counts const& b, int log2_levels) {
  std::vector<long double> all(b.size() + 1, INFINITY);
  for (std::size_t i = 128; i <= b.size(); ++i) all[i] = divergence(b, i, std::size_t{1} << log2_levels);
  long double const least = *std::min_element(all.begin(), all.end());
  for (std::size_t i = b.size();; --i)
    if (all[i] <= least + 1e-12L) return i;
}

/// Of some shape, with from no to many empty bins.
counts random_histogram(unsigned seed, std::size_t bins) {
  std::mt19937 random{seed};
  counts b(bins);
  std::normal_distribution<double> normal;
  std::exponential_distribution<double> tail{seed % 3 == 0 ? 1.0 : 4.0};
  double const wide = 0.1 + 0.2 * static_cast<double>(seed % 7);
  std::size_t const n = seed % 5 == 0 ? 40 : 20000;  // few: mostly empty bins
  for (std::size_t e = 0; e < n; ++e) {
    double const x = seed % 2 ? std::abs(normal(random)) * wide : tail(random) * wide;
    auto const bin = static_cast<std::size_t>(x * static_cast<double>(bins));
    ++b[std::min(bin, bins - 1)];
  }
  if (seed % 4 == 1)
    for (std::size_t k = 0; k < bins; ++k)
      if (random() % 3 != 0) b[k] = 0;
  if (seed % 11 == 2)
    for (auto& c : b) c *= std::uint64_t{1} << (random() % 40);
  b[bins - 1] += 1;
  return b;
}

/// Every shape that a calibration can bring about at its edges.
std::vector<counts> adversarial(std::size_t bins) {
  auto const with = [&](auto fill) {
    counts b(bins);
    for (std::size_t k = 0; k < bins; ++k) b[k] = fill(k);
    return b;
  };
  std::size_t const last = bins - 1;
  return {with([](auto) { return 1u; }),                                        // uniform
          with([&](auto k) { return k == last ? 1u : 0u; }),                    // a constant
          with([&](auto k) { return k == last ? 1u : k == 0 ? 1000u : 0u; }),   // zeros and an outlier
          with([&](auto k) { return k == last || k == 1 ? 1u : 0u; }),
          with([&](auto k) { return k == last || k < 130 ? 7u : 0u; }),         // a gap
          with([](auto k) { return k == 5 ? 3u : 0u; }),                        // the end holds nothing
          with([](auto k) { return k % 2 ? 0u : 9u; }),
          with([](auto k) { return k % 64 == 63 ? 1000u : 0u; }),               // on the edges of levels
          with([](auto k) { return k % 64 == 0 ? 1000u : 1u; }),
          with([&](auto k) { return static_cast<std::uint64_t>(bins - k) << 30; }),
          with([&](auto k) { return k < 129 ? std::uint64_t{1} << 45 : 1u; }),  // a candidate next to the first
          with([](auto k) { return static_cast<std::uint64_t>(k * k + 1); })};
}

}  // namespace

TEST_CASE("entropy: the bin of the definition, on hundreds of histograms and every number of levels") {
  int compared = 0;
  for (unsigned seed = 0; seed < 240; ++seed) {
    std::size_t const bins = seed % 3 == 0 ? 128 + seed % 40 : 200 + seed;
    counts const b = random_histogram(seed, bins);
    int const log2_levels = static_cast<int>(seed % 10);
    CAPTURE(seed);
    CHECK(entropy_bin(b, log2_levels + 1) == entropy_by_definition(b, log2_levels));
    ++compared;
  }
  for (std::size_t const bins : {128, 129, 300})
    for (auto const& b : adversarial(bins))
      for (int const bits : {1, 2, 4, 8, 10, 24}) {
        CAPTURE(bins);
        CAPTURE(bits);
        CHECK(entropy_bin(b, bits) == entropy_by_definition(b, bits - 1));
        ++compared;
      }
  CHECK(compared >= 400);
  for (unsigned const seed : {1u, 6u}) {  // of the size that is used
    counts const b = random_histogram(seed, 2048);
    CHECK(entropy_bin(b, 8) == entropy_by_definition(b, 7));
    CHECK(entropy_bin(b, 8, true) == entropy_by_definition(b, 8));
    CHECK(entropy_bin(b, 4) == entropy_by_definition(b, 3));
  }
}

TEST_CASE("entropy: a constant keeps all bins; of equal candidates the last wins; bin 0 counts as bin 1") {
  counts b(2048);
  b[2047] = 5;
  CHECK(entropy_bin(b, 8) == 2048);
  b[0] = 1000000;  // zeros
  CHECK(entropy_bin(b, 8) == 2048);
  counts few(500);
  for (std::size_t const k : {1u, 40u, 90u}) few[k] = 10;  // each with a level of its own wherever one clips
  CHECK(entropy_bin(few, 8) == 500);
  few[0] = 99;
  CHECK(entropy_bin(few, 8) == 500);
}

TEST_CASE("mse: the first centre of the least squared error, by the definition") {
  auto const int4 = [](std::span<float const> amaxes, std::span<float const> c, std::span<float> q) {
    for (std::size_t a = 0; a < amaxes.size(); ++a)
      for (std::size_t k = 0; k < c.size(); ++k) {
        float const scale = 7.0f / amaxes[a];
        q[a * c.size() + k] = std::min(std::nearbyint(c[k] * scale), 7.0f) / scale;
      }
  };
  for (unsigned seed = 0; seed < 30; ++seed) {
    counts const b = random_histogram(seed, 129 + 17 * seed);
    std::vector<float> centers(b.size()), rounded(b.size());
    for (std::size_t k = 0; k < b.size(); ++k) centers[k] = (static_cast<float>(k) + 0.5f) * 0.01f;
    long double least = INFINITY;
    std::size_t expected = 0;
    for (std::size_t i = 128; i < b.size(); ++i) {
      int4({&centers[i], 1}, centers, rounded);
      long double sum = 0;
      for (std::size_t k = 0; k < b.size(); ++k)
        sum += static_cast<long double>(b[k]) * std::pow(static_cast<long double>(rounded[k]) - centers[k], 2);
      if (sum < least * (1 - 1e-12L)) least = sum, expected = i;
    }
    CHECK(mse_bin(b, centers, int4) == expected);
  }
  auto const exact = [](auto amaxes, auto c, std::span<float> q) {
    for (std::size_t a = 0; a < amaxes.size(); ++a) std::ranges::copy(c, q.subspan(a * c.size()).begin());
  };
  CHECK(mse_bin(counts(200, 1), std::vector<float>(200, 1.0f), exact) == 128);  // of equal candidates the first
}

TEST_CASE("percentile: the first bin at which the share is reached") {
  counts b(200);
  for (std::size_t k = 0; k < 100; ++k) b[k] = 1;  // arange(100) in bins of one
  CHECK(percentile_bin(b, 90) == 89);
  CHECK(percentile_bin(b, 89.5) == 89);
  CHECK(percentile_bin(b, 1e-9) == 0);
  counts const two{3, 0, 0, 1};  // exact in binary
  CHECK(percentile_bin(two, 75) == 0);
  CHECK(percentile_bin(two, 75.01) == 3);
  CHECK(percentile_bin(two, 100) == 3);
  // ten tenths add up to less than 1 in float64, in NumPy too
  CHECK(percentile_bin(counts(10, 1), 100) == 10);
}

TEST_CASE("histograms that cannot be looked at are refused, and so are percentiles outside of (0, 100]") {
  auto const refused = [](error_id id, auto call) { return test::error_text(id, call); };
  auto const value = error_id::config_value, empty = error_id::state_not_calibrated;
  std::vector<float> const centers(200, 1.0f);
  auto const copy = [](auto, auto, auto) { FAIL("nothing is to be rounded"); };
  counts const some(200, 1), none(200), short_one(127, 1), least(128, 1);
  CHECK(test::says(refused(value, [&] { entropy_bin(short_one, 8); }), "entropy", "127 bins", "128"));
  CHECK(test::says(refused(value, [&] { mse_bin(short_one, centers, copy); }), "mse", "127 bins", "128"));
  CHECK(test::says(refused(value, [&] { mse_bin(least, centers, copy); }), "mse", "no candidate"));
  CHECK(entropy_bin(least, 8) == 128);
  for (int const bits : {0, 24, 25}) {
    auto const look = [&] { entropy_bin(some, bits, bits == 24); };  // 24 are too many without a sign
    CHECK(test::says(refused(value, look), std::to_string(bits) + " bits"));
  }
  for (double const p : {0.0, -1.0, 100.1, std::nan("")})
    CHECK(test::says(refused(value, [&] { percentile_bin(some, p); }), "percentile: ", "(0, 100]"));
  CHECK(test::says(refused(empty, [&] { entropy_bin(none, 8); }), "entropy", "no counts"));
  CHECK(test::says(refused(empty, [&] { mse_bin(none, centers, copy); }), "mse", "no counts"));
  CHECK(test::says(refused(empty, [&] { percentile_bin(none, 50); }), "percentile", "no counts"));
}
