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
#include "mixbit/autoquant/solver_budgets.hpp"

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

/// What ModelOpt's costs make of a Llama-like model: four groups a layer (q/k/v, o, gate/up, down), elements times
/// nominal bits in half bits, so that all costs have much in common.
inline problem modelopt(std::size_t groups, std::uint64_t seed) {
  static constexpr std::array<std::int64_t, 4> elements{4096 * 6144, 4096 * 4096, 4096 * 28672, 4096 * 14336};
  static constexpr std::array<double, 8> formats{4, 4.5, 5, 6, 8, 3, 6.5, 16};
  generator random{seed};
  problem result;
  for (std::size_t g = 0; g < groups; ++g) {
    double const sensitivity = std::exp(2 * random.normal());
    std::vector<candidate> group;
    for (double const bits : formats) {
      double const score = sensitivity * std::exp2(-1.7 * bits) * std::exp(0.3 * random.normal());
      group.push_back({bits == 16 ? 0 : score, static_cast<std::int64_t>(2 * bits) * elements[g % 4] / 2});
    }
    result.add_group(group);
  }
  return result;
}

/// Under the instance's own budget and others of a like kind: each candidate's cost times what differs by layer (a
/// kernel's speed on its shape) and by candidate. Budgets lie at `fraction` of what can be reached.
inline mixbit::solver::budgets_problem with_budgets(problem const& from, std::size_t count, double fraction,
                                                    std::uint64_t seed) {
  generator random{seed};
  mixbit::solver::budgets_problem result{std::vector<std::int64_t>(count)};
  std::vector<std::int64_t> low(count), high(count), costs(count);
  for (std::size_t g = 0; g < from.groups(); ++g) {
    std::vector<std::int64_t> least(count, std::int64_t{1} << 60), most(count, 0);
    double const layer = 0.5 + random.real();
    for (candidate const& one : from.group(g)) {
      for (std::size_t d = 0; d < count; ++d) {
        double const factor = d == 0 ? 1 : layer * (0.7 + 0.6 * random.real());
        costs[d] = d == 0 ? one.cost : static_cast<std::int64_t>(static_cast<double>(one.cost) * factor);
        least[d] = std::min(least[d], costs[d]);
        most[d] = std::max(most[d], costs[d]);
      }
      result.add_candidate(one.score, costs);
    }
    result.end_group();
    for (std::size_t d = 0; d < count; ++d) {
      low[d] += least[d];
      high[d] += most[d];
    }
  }
  for (std::size_t d = 0; d < count; ++d)
    result.budgets[d] = low[d] + static_cast<std::int64_t>(fraction * static_cast<double>(high[d] - low[d]));
  return result;
}

}  // namespace solver_families
