// mixbit::solver: one candidate a group, least total score, within several budgets at once: bits, bytes, latency, ...
//
//   solver::budgets_problem problem{{bits, nanoseconds}};
//   for (auto const& layer : layers) {
//     for (auto const& c : layer.candidates) problem.add_candidate(c.score, {c.bits, c.nanoseconds});
//     problem.end_group();
//   }
//   solver::budgets_solution const best = solver::solve(problem);
//
// - Exact with its proof, as solver.hpp: costs are integers, no budget is exceeded by one unit, and what is compared
//   are exact sums. `bound` is what no choice within the budgets can score below.
// - Formats that some layer's kernel or shape does not allow are simply candidates that its group is not given.
// - Budgets that cannot bind are left out, and one that remains alone is solved as solver.hpp does it, in its time. Two
//   or more make the problem harder: the proof may need more states than the limit allows, and then the gap says so.
// - Ties: the lowest score; among choices of equal score the order of the search decides, the same on every run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/budget_search.hpp"
#include "mixbit/autoquant/solver.hpp"

namespace mixbit::solver {

inline constexpr std::size_t max_budgets = detail::most_budgets;

/// Groups, one after another, and budgets for the sums of each kind of cost.
struct budgets_problem {
  std::vector<std::int64_t> budgets;  ///< 1 to max_budgets
  std::vector<double> scores = {};    ///< a candidate each; finite, lower is better
  std::vector<std::int64_t> costs = {};  ///< of candidate i: costs[i * budgets.size()] and on; >= 0
  std::vector<std::size_t> ends = {};    ///< group g ends before candidate ends[g]

  std::size_t groups() const noexcept { return ends.size(); }
  std::size_t begin(std::size_t g) const noexcept { return g == 0 ? 0 : ends[g - 1]; }
  std::int64_t cost(std::size_t candidate, std::size_t budget) const {
    return costs[candidate * budgets.size() + budget];
  }
  void add_candidate(double score, std::span<std::int64_t const> its_costs) {
    scores.push_back(score);
    for (std::int64_t const one : its_costs) costs.push_back(one);
  }
  void add_candidate(double score, std::initializer_list<std::int64_t> its_costs) {
    add_candidate(score, std::span<std::int64_t const>{its_costs.begin(), its_costs.size()});
  }
  void end_group() { ends.push_back(scores.size()); }
};

struct budgets_solution {
  std::vector<int> choice;          ///< a candidate's index for each group
  double score = 0;                 ///< the exact sum of the chosen scores, rounded once
  std::vector<std::int64_t> costs;  ///< the exact sums of the chosen costs
  double bound = 0;                 ///< no choice within the budgets has an exact sum that rounds to less
  double gap = 0;                   ///< score - bound; 0 if optimal
  bool optimal = false;             ///< proved: bound == score
  std::size_t states = 0;           ///< partial choices looked at
};

/// A budget that no choice meets, alone.
struct shortage {
  std::size_t budget = 0;    ///< the first such
  std::int64_t minimum = 0;  ///< of it, over all groups
  std::size_t group = 0;     ///< that needs most of it
  std::int64_t least = 0;    ///< what that group needs
};

/// Of groups that all have candidates and costs whose sums fit 63 bits.
inline std::optional<shortage> shortage_of(budgets_problem const& input) {
  for (std::size_t d = 0; d < input.budgets.size(); ++d) {
    shortage found{d};
    for (std::size_t g = 0; g < input.groups(); ++g) {
      std::int64_t least = std::numeric_limits<std::int64_t>::max();
      for (std::size_t i = input.begin(g); i < input.ends[g]; ++i) least = std::min(least, input.cost(i, d));
      found.minimum += least;
      if (least > found.least) {
        found.least = least;
        found.group = g;
      }
    }
    if (input.budgets[d] < found.minimum) return found;
  }
  return std::nullopt;
}

/// Lists of several budgets take more memory a state than those of one; a time limit is the same.
inline constexpr limits budgets_limits{std::size_t{1} << 18, 0};

namespace detail {

inline void check_shape(budgets_problem const& input) {
  std::size_t const count = input.budgets.size();
  if (count == 0 || count > max_budgets)
    fail(error_id::search_input, "solver: ", count, " budgets; 1 to ", max_budgets, " are possible");
  if (input.costs.size() != input.scores.size() * count)
    fail(error_id::search_input, "solver: ", input.costs.size(), " costs for ", input.scores.size(),
         " candidates and ", count, " budgets");
}

/// The problem under one of its budgets.
inline problem single(budgets_problem const& input, std::size_t d) {
  problem result{{}, input.ends, input.budgets[d]};
  result.candidates.reserve(input.scores.size());
  for (std::size_t i = 0; i < input.scores.size(); ++i)
    result.candidates.push_back({input.scores[i], input.cost(i, d)});
  return result;
}

/// Throws search_infeasible where a budget alone cannot be met, naming it and the group that needs most of it.
inline void require_each_budget(budgets_problem const& input) {
  if (auto const s = shortage_of(input))
    fail(error_id::search_infeasible, "solver: budget ", s->budget, " of ", input.budgets[s->budget],
         " cannot be met: ", s->minimum, " is the least that can be reached, and group ", s->group, " alone needs ",
         s->least);
}

/// The undominated candidates, with the budgets that can bind alone.
inline priced_instance make_priced(budgets_problem const& input, std::vector<std::size_t> const& kept, double largest) {
  priced_instance result;
  result.count = kept.size();
  for (std::size_t d = 0; d < kept.size(); ++d) result.budget[d] = input.budgets[kept[d]];
  result.shift = largest == 0 ? 0 : -std::ilogb(largest);  // squares in multipliers.hpp must not underflow
  result.first.push_back(0);
  std::vector<priced_item> group;
  for (std::size_t g = 0; g < input.groups(); ++g) {
    group.clear();
    for (std::size_t i = input.begin(g); i < input.ends[g]; ++i) {
      priced_item one{std::ldexp(input.scores[i], result.shift), {}, static_cast<std::uint32_t>(i - input.begin(g))};
      for (std::size_t d = 0; d < kept.size(); ++d) one.cost[d] = input.cost(i, kept[d]);
      group.push_back(one);
    }
    auto const covers = [&](priced_item const& a, priced_item const& b) {  // a rules b out
      if (a.index == b.index || a.score > b.score) return false;
      for (std::size_t d = 0; d < kept.size(); ++d) {
        if (a.cost[d] > b.cost[d]) return false;
      }
      return a.score < b.score || a.cost != b.cost || a.index < b.index;
    };
    for (priced_item const& one : group) {
      if (std::none_of(group.begin(), group.end(), [&](priced_item const& other) { return covers(other, one); }))
        result.items.push_back(one);
    }
    result.first.push_back(static_cast<std::uint32_t>(result.items.size()));
  }
  return result;
}

/// The budgets that some choice exceeds.
inline std::vector<std::size_t> binding(budgets_problem const& input) {
  std::vector<std::size_t> kept;
  for (std::size_t d = 0; d < input.budgets.size(); ++d) {
    std::int64_t most = 0;
    for (std::size_t g = 0; g < input.groups(); ++g) {
      std::int64_t largest = 0;
      for (std::size_t i = input.begin(g); i < input.ends[g]; ++i) largest = std::max(largest, input.cost(i, d));
      most += largest;
    }
    if (most > input.budgets[d]) kept.push_back(d);
  }
  return kept;
}

/// The group whose candidates trade one budget for another hardest: what it needs above its cheapest in each, as parts
/// of the budgets, is largest.
inline std::size_t tightest_group(priced_instance const& input) {
  std::size_t worst = 0;
  double most = -1;
  for (std::size_t g = 0; g < input.groups(); ++g) {
    double least = HUGE_VAL;
    for (std::uint32_t i = input.first[g]; i < input.first[g + 1]; ++i) {
      double above = 0;
      for (std::size_t d = 0; d < input.count; ++d) {
        std::int64_t cheapest = input.items[i].cost[d];
        for (std::uint32_t j = input.first[g]; j < input.first[g + 1]; ++j)
          cheapest = std::min(cheapest, input.items[j].cost[d]);
        above += static_cast<double>(input.items[i].cost[d] - cheapest) /
                 std::max(static_cast<double>(input.budget[d]), 1.0);
      }
      least = std::min(least, above);
    }
    if (least > most) {
      most = least;
      worst = g;
    }
  }
  return worst;
}

[[noreturn]] inline void fail_together(priced_instance const& input, std::vector<std::size_t> const& kept) {
  std::string names;
  for (std::size_t d = 0; d < kept.size(); ++d)
    names += (d == 0 ? "" : d + 1 == kept.size() ? " and " : ", ") + std::to_string(kept[d]);
  fail(error_id::search_infeasible, "solver: budgets ", names, " can be met each alone but not together; group ",
       tightest_group(input), " has no candidate that is cheap in all of them");
}

inline budgets_solution evaluate(budgets_problem const& input, std::vector<int> choice) {
  budgets_solution result;
  exact_sum total;
  result.costs.assign(input.budgets.size(), 0);
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::size_t const i = input.begin(g) + static_cast<std::size_t>(choice[g]);
    total.add(input.scores[i]);
    for (std::size_t d = 0; d < input.budgets.size(); ++d) result.costs[d] += input.cost(i, d);
  }
  result.choice = std::move(choice);
  result.score = total.rounded();
  if (!std::isfinite(result.score)) fail(error_id::search_input, "solver: the sum of scores overflows a double");
  return result;
}

/// Sets the proved bound beside the score.
inline void set_bound(budgets_solution& result, priced_instance const& input, budget_search const& search) {
  exact_sum total;
  for (std::size_t g = 0; g < input.groups(); ++g) total.add(input.items[search.choice()[g]].score);
  budget_core const& core = search.problem();
  total.add(search.bound() - search.best_score(), core.grid);
  if (!core.exact) total.add(-4 * static_cast<wide>(input.groups()), core.grid);
  if (input.shift < 0) total.add(-std::ldexp(static_cast<double>(input.groups()), -1073));
  result.bound = std::min(result.score, std::ldexp(total.rounded(), -input.shift));
  result.gap = result.score - result.bound;
  result.optimal = result.bound == result.score;
  result.states = search.generated();
}

/// How a search ended that may have found nothing.
enum class outcome : std::uint8_t { found, infeasible, unknown };

struct attempt {
  outcome how = outcome::unknown;
  budgets_solution best;
};

/// Two or more budgets that can bind. `any`: the first choice that fits.
inline attempt search_budgets(budgets_problem const& input, priced_instance const& priced, limits const& limit,
                              bool any) {
  multipliers const prices{priced};
  if (prices.prove_infeasible()) return {outcome::infeasible, {}};
  budget_search search{budget_core_builder{priced, prices.best()}.take(), limit.max_states, deadline_in(limit.seconds)};
  search.run(any);
  if (!search.found()) return {search.limited() ? outcome::unknown : outcome::infeasible, {}};
  std::vector<int> choice;
  for (std::uint32_t const i : search.choice()) choice.push_back(static_cast<int>(priced.items[i].index));
  attempt result{outcome::found, evaluate(input, std::move(choice))};
  set_bound(result.best, priced, search);
  return result;
}

/// Checks everything but whether the budgets can be met; returns the largest |score|.
inline double check_budgets(budgets_problem const& input, limits const& limit) {
  if (limit.max_states == 0 || !(limit.seconds >= 0))
    fail(error_id::search_input, "solver: limits of ", limit.max_states, " states and ", limit.seconds,
         " seconds; at least 1 and 0 are needed");
  check_shape(input);
  double largest = 0;
  for (std::size_t d = 0; d < input.budgets.size(); ++d) largest = check_input(single(input, d));
  return largest;
}

}  // namespace detail

/// Of budgets that can be met each alone but not together: the group whose candidates trade them hardest, which an
/// error names.
inline std::size_t tightest_group(budgets_problem const& input) {
  return detail::tightest_group(detail::make_priced(input, detail::binding(input), 0));
}

/// The best choice within all budgets. Throws search_input as solve() of one budget does, and search_infeasible if a
/// budget cannot be met (naming it and the group that needs most), if they cannot be met together, or if nothing was
/// found within the limits.
inline budgets_solution solve(budgets_problem const& input, limits const& limit = budgets_limits) {
  double const largest = detail::check_budgets(input, limit);
  detail::require_each_budget(input);
  auto const kept = detail::binding(input);
  if (kept.size() <= 1) {
    auto best = solve(detail::single(input, kept.empty() ? 0 : kept.front()), limit);
    auto result = detail::evaluate(input, std::move(best.choice));
    result.bound = best.bound;
    result.gap = best.gap;
    result.optimal = best.optimal;
    result.states = best.states;
    return result;
  }
  auto const priced = detail::make_priced(input, kept, largest);
  detail::attempt found = detail::search_budgets(input, priced, limit, false);
  if (found.how == detail::outcome::infeasible) detail::fail_together(priced, kept);
  if (found.how == detail::outcome::unknown)
    fail(error_id::search_infeasible, "solver: no choice was found within ", limit.max_states, " states and ",
         limit.seconds,
         " seconds; whether the budgets can be met together is not known, and more memory or time may tell");
  return std::move(found.best);
}

}  // namespace mixbit::solver
