// mixbit::solver: the choice whose worst group is least bad. Exact, under one budget or several.
//
// The largest score that any group gets is minimized; of the choices that reach this minimum the one with the least
// sum of scores is taken, and ties beyond that break as in solver.hpp or solver_budgets.hpp. A binary search over the
// scores there are asks whether candidates up to each suffice: under one budget by the sum of cheapest costs, under
// several by a search that ends at the first choice that fits. A limit in seconds is for the whole call, at most half
// of it for the maximum; what was not settled by then is left between `largest_bound` and `largest`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "mixbit/autoquant/solver_budgets.hpp"

namespace mixbit::solver {

struct minimax_solution {
  budgets_solution sum;      ///< the choice, and the proof that no other of the same maximum has a lower sum
  double largest = 0;        ///< the largest chosen score
  double largest_bound = 0;  ///< no choice has a lower maximum; equal to `largest` unless a limit was met
  bool optimal = false;      ///< both are proved
};

namespace detail {

/// The candidates that score at most `most`; a group of none stays empty.
struct capped {
  budgets_problem problem;
  std::vector<std::size_t> from;  // candidates of the input
};

inline capped cap(budgets_problem const& input, double most) {
  capped result{{input.budgets}, {}};
  for (std::size_t g = 0; g < input.groups(); ++g) {
    for (std::size_t i = input.begin(g); i < input.ends[g]; ++i) {
      if (input.scores[i] > most) continue;
      result.problem.add_candidate(input.scores[i],
                                   std::span{input.costs}.subspan(i * input.budgets.size(), input.budgets.size()));
      result.from.push_back(i);
    }
    result.problem.end_group();
  }
  return result;
}

/// Whether each budget alone could be met, and no group is empty.
inline bool meets_each_budget(budgets_problem const& input) {
  for (std::size_t g = 0; g < input.groups(); ++g)
    if (input.begin(g) == input.ends[g]) return false;
  return !shortage_of(input);
}

/// Whether some choice meets the budgets; `best` has one where several can bind.
inline attempt feasible(budgets_problem const& input, double largest, limits const& limit) {
  if (!meets_each_budget(input)) return {outcome::infeasible, {}};
  auto const kept = binding(input);
  if (kept.size() <= 1) return {outcome::found, {}};
  return search_budgets(input, make_priced(input, kept, largest), limit, true);
}

/// Under the least maximum: the least sum of scores, or the choice found before where there was no time for another.
inline budgets_solution least_sum(budgets_problem const& input, limits const& limit, budgets_solution found) {
  try {
    return solve(input, limit);
  } catch (error const& e) {
    if (found.choice.empty() || e.id() != error_id::search_infeasible) throw;
  }
  exact_sum least;  // all that is known of other choices
  for (std::size_t g = 0; g < input.groups(); ++g)
    least.add(*std::min_element(input.scores.begin() + static_cast<std::ptrdiff_t>(input.begin(g)),
                                input.scores.begin() + static_cast<std::ptrdiff_t>(input.ends[g])));
  found.bound = least.rounded();
  found.gap = found.score - found.bound;
  found.optimal = found.gap == 0;
  return found;
}

}  // namespace detail

/// Throws as solve() of several budgets does.
inline minimax_solution minimax(budgets_problem const& input, limits const& limit = budgets_limits) {
  double const magnitude = detail::check_budgets(input, limit);
  auto const deadline = detail::deadline_in(limit.seconds), halfway = detail::deadline_in(limit.seconds / 2);
  detail::require_each_budget(input);
  std::vector<double> levels = input.scores;
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  std::size_t refuted = 0, low = 0, high = levels.empty() ? 0 : levels.size() - 1;  // all below `refuted` are
  budgets_solution known;  // of the maximum at `high`
  while (low < high && !detail::is_over(halfway)) {
    std::size_t const middle = low + (high - low) / 2;
    limits const left{limit.max_states, detail::seconds_until(halfway)};
    auto found = detail::feasible(detail::cap(input, levels[middle]).problem, magnitude, left);
    if (found.how == detail::outcome::found) {
      high = middle;
      known = std::move(found.best);
    } else {
      low = middle + 1;
      if (found.how == detail::outcome::infeasible) refuted = std::max(refuted, low);
    }
  }
  minimax_solution result;
  auto const capped = detail::cap(input, levels.empty() ? 0 : levels[high]);
  limits const left{limit.max_states, detail::seconds_until(deadline)};
  result.sum = detail::least_sum(capped.problem, left, std::move(known));
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::size_t const i = capped.from[capped.problem.begin(g) + static_cast<std::size_t>(result.sum.choice[g])];
    result.sum.choice[g] = static_cast<int>(i - input.begin(g));
    result.largest = g == 0 ? input.scores[i] : std::max(result.largest, input.scores[i]);
  }
  result.largest_bound = levels.empty() ? 0 : levels[refuted];
  result.optimal = result.sum.optimal && result.largest_bound == result.largest;
  return result;
}

}  // namespace mixbit::solver
