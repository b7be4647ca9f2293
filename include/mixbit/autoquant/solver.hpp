// mixbit::solver: one candidate a group, least total score, total cost within a budget. Exact, with its proof.
//
// This is the multiple-choice knapsack problem that bit allocation comes down to: a group is what shares one recipe,
// a candidate is a recipe's score (how much it hurts; any finite number) and its cost (bits, an integer). The header
// can be used alone: it needs the standard library and mixbit's error type.
//
//   solver::problem problem;
//   for (auto const& layer : layers) problem.add_group(layer.candidates);  // {score, cost} each
//   problem.budget = 6'000'000;
//   solver::solution const best = solver::solve(problem);  // best.choice[g]: index into group g
//
// What is guaranteed, and tested:
// - The cost is never above the budget, not by one bit.
// - No rounding decides: what is left open after the relaxation is compared as exact sums, 118 bits wide. So the
//   choice is the same for scores times any power of two, however small or large they are. (Only where candidates
//   that are still open differ by more than 2^60 in magnitude may differences below 2^-110 of them be lost; `bound`
//   allows for it.)
// - Ties: the lowest score; among those the lowest cost; of a group's equal candidates the one listed first. If
//   different groups may trade (equal score and equal cost in total), the order of the search decides, which depends
//   on nothing but the input: the same on every run.
// - Memory is bounded by limits::max_states. A search that meets a limit goes on for a while with a narrow list to
//   better its choice, and returns the best one found, the bound that it did prove, and the gap between them.
//
// The Pareto frontier (solver_frontier.hpp), several budgets and the minimax objective (solver_budgets.hpp,
// solver_minimax.hpp) are solvers of their own beside this one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/core.hpp"
#include "mixbit/autoquant/detail/deadline.hpp"
#include "mixbit/autoquant/detail/exact_sum.hpp"
#include "mixbit/autoquant/detail/relaxation.hpp"
#include "mixbit/autoquant/detail/state_search.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit::solver {

struct candidate {
  double score;       ///< finite; lower is better
  std::int64_t cost;  ///< bits, >= 0
};

/// Groups, one after another in one array, and the budget for the sum of costs.
struct problem {
  std::vector<candidate> candidates;
  std::vector<std::size_t> ends;  ///< group g ends before candidates[ends[g]]
  std::int64_t budget = 0;

  std::size_t groups() const noexcept { return ends.size(); }
  std::span<candidate const> group(std::size_t g) const noexcept {
    std::size_t const begin = g == 0 ? 0 : ends[g - 1];
    return {candidates.data() + begin, ends[g] - begin};
  }
  void add_group(std::span<candidate const> group) {
    for (candidate const& one : group) candidates.push_back(one);
    end_group();
  }
  /// What was added to `candidates` since the last group is one.
  void end_group() { ends.push_back(candidates.size()); }
};

/// When to stop. A state is one undominated partial choice and takes at most about 300 bytes, all lists together.
struct limits {
  std::size_t max_states = std::size_t{1} << 20;
  double seconds = 0;  ///< 0: no limit; looked at once a group of the search
};

struct solution {
  std::vector<int> choice;  ///< a candidate's index for each group
  double score = 0;         ///< the exact sum of the chosen scores, rounded once
  std::int64_t cost = 0;    ///< the exact sum of the chosen costs
  double bound = 0;         ///< no choice within the budget has an exact sum that rounds to less
  double gap = 0;           ///< score - bound; 0 if optimal
  bool optimal = false;     ///< proved: bound == score
  std::size_t states = 0;   ///< partial choices looked at, the size of the search
};

/// What a budget can buy.
struct range {
  std::int64_t minimum = 0;         ///< the cheapest choice; below it nothing is feasible
  std::int64_t maximum_useful = 0;  ///< the cheapest choice with the lowest score; above it more does not help
  std::size_t largest_group = 0;    ///< the group with the largest minimum
  std::int64_t largest_minimum = 0; ///< and that minimum
};

namespace detail {

inline void check_candidate(candidate const& one, std::size_t g, std::size_t c) {
  if (!std::isfinite(one.score)) {
    fail(error_id::search_input, "solver: group ", g, ", candidate ", c, ": score is ", one.score, ", not finite");
  }
  if (one.cost < 0) {
    fail(error_id::search_input, "solver: group ", g, ", candidate ", c, ": cost is ", one.cost, ", below 0");
  }
}

/// Checks every group and candidate and returns the largest |score|.
inline double check_input(problem const& input) {
  std::size_t const last = input.ends.empty() ? 0 : input.ends.back();
  if (last != input.candidates.size()) {
    fail(error_id::search_input, "solver: groups end at candidate ", last, " of ", input.candidates.size());
  }
  if (input.candidates.size() >= std::numeric_limits<std::uint32_t>::max()) {
    fail(error_id::search_input, "solver: ", input.candidates.size(), " candidates, at most 2^32 - 2 are possible");
  }
  double largest = 0;
  std::int64_t total = 0;
  std::size_t begin = 0;
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::size_t const end = input.ends[g];
    if (end <= begin) fail(error_id::search_input, "solver: group ", g, " has no candidates");
    if (end > last) {
      fail(error_id::search_input, "solver: group ", g, " ends at candidate ", end, " of ", input.candidates.size());
    }
    std::size_t dearest = begin;
    for (std::size_t i = begin; i < end; ++i) {
      check_candidate(input.candidates[i], g, i - begin);
      largest = std::max(largest, std::abs(input.candidates[i].score));
      if (input.candidates[i].cost > input.candidates[dearest].cost) dearest = i;
    }
    std::int64_t const cost = input.candidates[dearest].cost;
    if (cost > std::numeric_limits<std::int64_t>::max() - total) {
      fail(error_id::search_input, "solver: group ", g, ", candidate ", dearest - begin, ": cost ", cost,
           " makes the sum of costs overflow 63 bits");
    }
    total += cost;
    begin = end;
  }
  return largest;
}

/// Undominated candidates of checked groups.
inline instance make_instance(problem const& input, double largest) {
  instance result;
  result.shift = safe_shift(largest);
  double const scale = std::ldexp(1.0, result.shift);
  result.items.reserve(input.candidates.size());
  result.first.reserve(input.groups() + 1);
  result.first.push_back(0);
  for (std::size_t g = 0; g < input.groups(); ++g) append_group(input.group(g), scale, result);
  return result;
}

inline range range_of(instance const& all) {
  range result;
  for (std::size_t g = 0; g < all.groups(); ++g) {
    std::int64_t const least = all.items[all.first[g]].cost;
    result.minimum += least;
    result.maximum_useful += all.items[all.first[g + 1] - 1].cost;
    if (least > result.largest_minimum) {
      result.largest_group = g;
      result.largest_minimum = least;
    }
  }
  return result;
}

/// Throws search_infeasible, naming the group that needs most.
inline void require_budget(range const& costs, std::int64_t budget) {
  if (budget >= costs.minimum) return;
  fail(error_id::search_infeasible, "solver: a budget of ", budget, " bits cannot be met: from ", costs.minimum,
       " to ", costs.maximum_useful, " bits can be reached, and group ", costs.largest_group, " alone needs ",
       costs.largest_minimum);
}

/// Evaluates the best choice from its candidates and sets the proved bound beside it.
inline solution evaluate(instance const& all, state_search const& search) {
  solution result;
  exact_sum total;
  std::vector<std::uint32_t> const items = search.choice();
  result.choice.reserve(items.size());
  for (std::uint32_t const i : items) {
    total.add(all.items[i].score);
    result.cost += all.items[i].cost;
    result.choice.push_back(static_cast<int>(all.items[i].index));
  }
  result.score = std::ldexp(total.rounded(), -all.shift);
  if (!std::isfinite(result.score)) fail(error_id::search_input, "solver: the sum of scores overflows a double");
  core const& open = search.problem();
  // What is not proved: the search's gap, and what rounding to the grid or scaling down may have hidden.
  total.add(search.bound() - search.best_score(), open.grid);
  if (!open.exact) total.add(-4 * static_cast<wide>(open.groups_at_start), open.grid);
  if (all.shift < 0) total.add(-std::ldexp(static_cast<double>(items.size()), -1073));
  result.bound = std::min(result.score, std::ldexp(total.rounded(), -all.shift));
  result.gap = result.score - result.bound;
  result.optimal = result.bound == result.score;
  result.states = search.generated();
  return result;
}

}  // namespace detail

/// The costs that can be reached. Throws search_input as solve() does; the budget is not looked at.
inline range reachable(problem const& input) {
  return detail::range_of(detail::make_instance(input, detail::check_input(input)));
}

/// The best choice. Throws search_input if a score is not finite, a cost is negative, a group is empty or the sums
/// overflow, and search_infeasible if no choice fits the budget. A problem without groups has an empty choice.
inline solution solve(problem const& input, limits const& limit = {}) {
  if (limit.max_states == 0 || !(limit.seconds >= 0)) {
    fail(error_id::search_input, "solver: limits of ", limit.max_states, " states and ", limit.seconds,
         " seconds; at least 1 and 0 are needed");
  }
  auto const deadline = detail::deadline_in(limit.seconds);
  detail::instance all = detail::make_instance(input, detail::check_input(input));
  range const costs = detail::range_of(all);
  detail::require_budget(costs, input.budget);
  detail::relaxation const relaxed = detail::relax(all, input.budget - costs.minimum);
  double const gap = detail::gap_bound(all, relaxed);
  detail::state_search search{detail::core_builder{all, relaxed, gap}.take(), limit.max_states, deadline};
  search.run();
  return detail::evaluate(all, search);
}

}  // namespace mixbit::solver
