// Candidate statistics: what a search has measured, apart from any model. From these alone another budget is solved in
// microseconds; nothing is scored again. The shape is ModelOpt's `candidate_stats`, with raw scores kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/budget.hpp"
#include "mixbit/autoquant/solver.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/order.hpp"

namespace mixbit {

/// One format for one group.
struct candidate_stat {
  std::string format;           ///< "INT8_DEFAULT_CFG(effective-bits: 8.0)"
  int recipe = 0;               ///< index into the search's formats; -1: do not quantize
  double score = 0;             ///< sum over steps, or what search_options::monotone_scores makes of it
  std::vector<double> by_step;  ///< for its standard error
  std::int64_t bits = 0;        ///< what the group takes in bits under the search's cost model
  std::optional<std::int64_t> nanoseconds = std::nullopt;  ///< where the search has a latency_table

  /// What was measured: the sum over steps, where there are any.
  double raw_score() const {
    double sum = 0;
    for (double const s : by_step) sum += s;
    return by_step.empty() ? score : sum;
  }
  /// Standard error of it over the steps; NaN below two steps.
  double standard_error() const {
    auto const n = static_cast<double>(by_step.size());
    if (by_step.size() < 2) return std::nan("");
    double const mean = raw_score() / n;
    double squares = 0;
    for (double s : by_step) squares += (s - mean) * (s - mean);
    return std::sqrt(squares / (n - 1) * n);  // n times the mean's error sqrt(var / n)
  }
};

/// The part of a group's bits that counts against a budget, in lowest terms; 0/1 for nothing.
struct cost_weight {
  std::int64_t numerator = 1, denominator = 1;

  double value() const { return static_cast<double>(numerator) / static_cast<double>(denominator); }
  friend bool operator==(cost_weight const&, cost_weight const&) = default;
};

/// What a group's name has behind its first module's, as in ModelOpt.
inline constexpr std::string_view recipe_suffix = ".quant_recipe";

inline std::string_view without_recipe_suffix(std::string_view group) {
  return group.ends_with(recipe_suffix) ? group.substr(0, group.size() - recipe_suffix.size()) : group;
}
inline std::string with_recipe_suffix(std::string_view module) { return std::string{module}.append(recipe_suffix); }

/// A format's label without "(effective-bits: ...)".
inline std::string_view without_bits(std::string_view label) {
  return label.substr(0, label.find("(effective-bits: "));
}

/// One group of modules that share a recipe.
struct group_stats {
  std::string name;  ///< first member's name + recipe_suffix
  std::vector<std::string> modules;
  std::string rule;            ///< what made it, grouping rule or tied weight; empty: a module alone
  std::string disabled_by;     ///< the pattern that keeps it unquantized; empty: none
  std::int64_t elements = 0;   ///< weight elements, tied ones counted once
  std::vector<candidate_stat> candidates;  ///< ascending in nominal bits, "NONE" last
  cost_weight weight = {};     ///< of its bits and its elements, in budgets
  std::string space = {};      ///< whose formats its candidates are, if not the search's own
  bool fixed = false;          ///< is its one candidate fixed_quantization_config?

  /// Is there anything to choose? What has one candidate has that one while the others are scored.
  bool is_open() const { return candidates.size() > 1; }
};

using candidate_stats = std::vector<group_stats>;

namespace detail {

/// a + b. Throws `search_input` where it does not fit 63 bits; both are >= 0.
inline std::int64_t cost_sum(std::int64_t a, std::int64_t b, std::string_view group) {
  if (b > std::numeric_limits<std::int64_t>::max() - a)
    fail(error_id::search_input, group, ": costs of ", b, " make a sum of ", a, " overflow 63 bits");
  return a + b;
}

/// a · b. Throws `search_input` where it does not fit 63 bits; both are >= 0.
inline std::int64_t cost_product(std::int64_t a, std::int64_t b, std::string_view group) {
  if (a != 0 && b > std::numeric_limits<std::int64_t>::max() / a)
    fail(error_id::search_input, group, ": costs of ", a, " times ", b, " overflow 63 bits");
  return a * b;
}

}  // namespace detail

inline std::int64_t total_elements(candidate_stats const& stats) {
  std::int64_t n = 0;
  for (auto const& g : stats) n = detail::cost_sum(n, g.elements, g.name);
  return n;
}

/// Budgets count in 1/unit bits, so that parts of bits add up exactly: the least common denominator of the weights.
/// Throws `search_input` for a denominator below 1, and where it does not fit 63 bits.
inline std::int64_t cost_unit(candidate_stats const& stats) {
  std::int64_t unit = 1;
  for (auto const& g : stats) {
    auto const& w = g.weight;
    if (w.denominator < 1 || w.numerator < 0)
      fail(error_id::search_input, g.name, ": a cost weight of ", w.numerator, "/", w.denominator);
    unit = detail::cost_product(unit, w.denominator / std::gcd(unit, w.denominator), g.name);
  }
  return unit;
}

/// Bits (or elements) of a group as a budget counts them, in 1/unit. Throws `search_input` where that overflows.
inline std::int64_t weighted(group_stats const& g, std::int64_t bits, std::int64_t unit) {
  return detail::cost_product(bits, detail::cost_product(g.weight.numerator, unit / g.weight.denominator, g.name),
                              g.name);
}

/// The elements that a budget in bits an element is multiplied by, in 1/unit.
inline std::int64_t weighted_elements(candidate_stats const& stats) {
  std::int64_t n = 0, unit = cost_unit(stats);
  for (auto const& g : stats) n = detail::cost_sum(n, weighted(g, g.elements, unit), g.name);
  return n;
}

/// The sensitivity of a group, which reports rank by: the score of its first candidate, that of the fewest nominal
/// bits. It need not be the one that costs least: scales are charged too. NaN for a group without a choice: it was not
/// scored.
inline double sensitivity(group_stats const& g) { return g.is_open() ? g.candidates.front().score : std::nan(""); }

/// Groups from the most to the least sensitive, then those whose score is NaN, last those without a choice; equal ones
/// in their own order.
inline std::vector<std::size_t> ranked(candidate_stats const& stats) {
  auto const before = [&](std::size_t a, std::size_t b) {
    if (stats[a].is_open() != stats[b].is_open()) return stats[a].is_open();
    double const left = sensitivity(stats[a]), right = sensitivity(stats[b]);
    return std::isnan(right) ? !std::isnan(left) : left > right;
  };
  return detail::stable_order(stats.size(), before);
}

/// A choice of one candidate a group.
struct allocation {
  std::vector<int> choice;  ///< index into each group's candidates
  std::int64_t bits = 0, budget = 0;  ///< in 1/unit bits
  double score = 0, bound = 0, gap = 0;
  bool optimal = false;
  double bits_per_element = 0;
  double target_bits = 0;  ///< effective bits asked for, or what `budget` is an element
  std::int64_t unit = 1;   ///< cost_unit of the statistics
  search_limits asked = {};      ///< by limits.hpp
  std::int64_t stored_bits = 0;  ///< of all that is stored; by limits.hpp
  std::int64_t nanoseconds = 0;  ///< where there is a latency_table
};

/// The fewest and the most bits that any choice costs, in 1/unit, and the group that contributes most to the fewest.
struct reachable_bits {
  std::int64_t minimum = 0, maximum = 0;
  std::size_t largest_group = 0;
};

inline reachable_bits reachable(candidate_stats const& stats) {
  reachable_bits r;
  std::int64_t largest = -1;
  std::int64_t const unit = cost_unit(stats);
  for (std::size_t g = 0; g < stats.size(); ++g) {
    auto const by_bits = [](candidate_stat const& a, candidate_stat const& b) { return a.bits < b.bits; };
    auto const [low, high] = std::minmax_element(stats[g].candidates.begin(), stats[g].candidates.end(), by_bits);
    if (low == stats[g].candidates.end()) fail(error_id::search_input, stats[g].name, ": no candidate format");
    std::int64_t const least = weighted(stats[g], low->bits, unit);
    r.minimum = detail::cost_sum(r.minimum, least, stats[g].name);
    r.maximum = detail::cost_sum(r.maximum, weighted(stats[g], high->bits, unit), stats[g].name);
    if (least > largest) {
      largest = least;
      r.largest_group = g;
    }
  }
  return r;
}

namespace detail {

/// Bits an element, rounded up to millionths, so that a target of this text can be met.
inline std::string least_target(std::int64_t bits, std::int64_t elements) {
  __extension__ using wide = __int128;
  constexpr std::int64_t million = 1'000'000;
  auto const micro = static_cast<std::int64_t>((static_cast<wide>(bits) * million + elements - 1) / elements);
  std::string places = std::to_string(million + micro % million).substr(1);
  places.erase(places.find_last_not_of('0') + 1);
  return std::to_string(micro / million) + (places.empty() ? "" : "." + places);
}

}  // namespace detail

/// Throws `search_infeasible`, naming the reachable range, where no choice fits; needs no scores.
inline void require_feasible(candidate_stats const& stats, effective_bits target) {
  if (stats.empty()) fail(error_id::search_input, "nothing to search: no module is quantizable");
  std::int64_t const unit = cost_unit(stats), elements = weighted_elements(stats), budget = target.budget(elements);
  auto const r = reachable(stats);
  if (budget >= r.minimum) return;
  auto const& worst = stats[r.largest_group];
  auto const by_bits = [](auto const& a, auto const& b) { return a.bits < b.bits; };
  auto const least = std::min_element(worst.candidates.begin(), worst.candidates.end(), by_bits)->bits;
  auto const whole = [&](std::int64_t cost) { return (cost + unit - 1) / unit; };
  fail(error_id::search_infeasible, "a target of ", target.text(), " effective bits (", budget / unit,
       " bits) cannot be met: ", detail::least_target(r.minimum, elements), " to ",
       bits_per_element(r.maximum, elements), " bits (", whole(r.minimum), " to ", whole(r.maximum),
       ") can be reached; ", worst.name, " alone needs ", whole(weighted(worst, least, unit)),
       worst.disabled_by.empty() ? "" : " because it is disabled by '" + worst.disabled_by + "'");
}

/// What a solver takes: the groups' candidates with their costs in 1/unit bits, and no budget yet. Throws
/// `search_input` for scores that are not finite, naming group and format.
inline solver::problem problem_of(candidate_stats const& stats) {
  solver::problem problem;
  std::int64_t const unit = cost_unit(stats);
  for (auto const& g : stats) {
    for (auto const& c : g.candidates) {
      if (!std::isfinite(c.score))
        fail(error_id::search_input, g.name, ": the score of ", c.format, " is ", c.score,
             "; an overflow in the loss or in its gradient reaches this layer");
      problem.candidates.push_back({c.score, weighted(g, c.bits, unit)});
    }
    problem.end_group();
  }
  return problem;
}

/// The best choice within the target, exactly. Throws what problem_of throws, and `search_infeasible` as
/// require_feasible does.
inline allocation allocate(candidate_stats const& stats, effective_bits target, solver::limits const& limits = {}) {
  require_feasible(stats, target);
  std::int64_t const unit = cost_unit(stats), elements = weighted_elements(stats);
  auto problem = problem_of(stats);
  problem.budget = target.budget(elements);
  auto const best = solver::solve(problem, limits);
  return {best.choice, best.cost,    problem.budget, best.score, best.bound,
          best.gap,    best.optimal, bits_per_element(best.cost, elements), target.value(), unit};
}

}  // namespace mixbit
