// Families of multiple-choice knapsack instances, for the solver's tests and its benchmark.
//
// `llm` is what the library meets: layer shapes times formats, lognormal sensitivities. The others are the hard ones
// of the literature (Pisinger 1995), turned from profits into scores. Integers and doubles come straight from a
// 64-bit generator, so that an instance is the same with every standard library.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "mixbit/autoquant/solver.hpp"

namespace solver_families {

using mixbit::solver::candidate;
using mixbit::solver::problem;

class generator {
 public:
  explicit generator(std::uint64_t seed) : engine_{seed} {}

  /// Uniform in [low, high].
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  /// Uniform in [0, 1).
  double real() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  /// Nearly normal: a sum of twelve uniform numbers.
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += real();
    return sum;
  }

 private:
  std::mt19937_64 engine_;
};

/// Names of all families, for loops.
inline std::vector<std::string> const& names() {
  static std::vector<std::string> const all{"llm",        "uncorrelated", "weakly_correlated", "strongly_correlated",
                                            "subset_sum", "concave",      "equal_scores",      "wide_scales"};
  return all;
}

inline std::vector<candidate> llm_group(std::size_t candidates, generator& random) {
  static constexpr std::array<std::int64_t, 5> elements{4096 * 4096, 4096 * 11008, 4096 * 1024, 2048 * 2048,
                                                        14336 * 4096};
  static constexpr std::array<double, 8> formats{4.5, 6, 8, 16, 3.25, 4.25, 5, 8.25};
  std::int64_t const size = elements[static_cast<std::size_t>(random.integer(0, 4))];
  double const sensitivity = std::exp(2 * random.normal());
  std::vector<candidate> group;
  for (std::size_t i = 0; i < candidates; ++i) {
    double const bits = formats[i % formats.size()];
    double const score = sensitivity * std::exp2(-1.7 * bits) * std::exp(0.3 * random.normal());
    group.push_back({bits == 16 ? 0 : score, static_cast<std::int64_t>(bits * 4) * size / 4});
  }
  return group;
}

/// Costs are in [1, scale] (`strongly_correlated`: their running sums).
inline std::vector<candidate> group(std::string const& family, std::size_t candidates, std::int64_t scale,
                                    generator& random) {
  if (family == "llm") return llm_group(candidates, random);
  std::vector<candidate> result;
  for (std::size_t i = 0; i < candidates; ++i) {
    std::int64_t const cost = random.integer(1, scale);
    auto const real_cost = static_cast<double>(cost);
    double score = -real_cost;  // subset_sum
    if (family == "uncorrelated") score = -static_cast<double>(random.integer(1, scale));
    if (family == "weakly_correlated") score = -static_cast<double>(cost + random.integer(-10, 10));
    if (family == "strongly_correlated") score = -static_cast<double>(cost + 10);
    if (family == "concave") score = -std::round(10 * std::sqrt(real_cost * static_cast<double>(scale)));
    if (family == "equal_scores") score = static_cast<double>(random.integer(1, 2));
    if (family == "wide_scales") score = std::exp(5 * random.normal());
    result.push_back({score, cost});
  }
  if (family != "strongly_correlated") return result;
  std::sort(result.begin(), result.end(), [](auto const& a, auto const& b) { return a.cost < b.cost; });
  for (std::size_t i = 1; i < candidates; ++i) {
    result[i].cost += result[i - 1].cost;
    result[i].score += result[i - 1].score;
  }
  return result;
}

/// A whole instance; the budget lies `fraction` of the way from the smallest to the largest useful cost.
inline problem make(std::string const& family, std::size_t groups, std::size_t candidates, std::int64_t scale,
                    double fraction, std::uint64_t seed) {
  generator random{seed};
  problem result;
  for (std::size_t g = 0; g < groups; ++g) result.add_group(group(family, candidates, scale, random));
  auto const costs = mixbit::solver::reachable(result);
  result.budget = costs.minimum + static_cast<std::int64_t>(
                                      fraction * static_cast<double>(costs.maximum_useful - costs.minimum));
  return result;
}

}  // namespace solver_families
