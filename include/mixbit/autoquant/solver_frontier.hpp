// mixbit::solver: every budget at once. The Pareto frontier of a multiple-choice knapsack: all (cost, score) that no
// other choice beats in one without losing in the other, each with a choice that reaches it.
//
//   solver::pareto_frontier const all = solver::frontier(problem);   // problem.budget is not looked at
//   for (solver::frontier_point const& one : all.points()) plot(one.cost, one.score);
//   solver::solution const best = all.within(6'000'000);              // a lookup: what solve() would return
//
// - Exact where costs, divided by what they have in common, leave a table that fits limits::bytes (elements times
//   nominal bits do: 300 groups x 8 make some 50 000 costs). Otherwise by lists, exact as long as they fit as well.
// - Where a list outgrows its limits it is thinned: every point is still a real choice, but there may be better ones.
//   missed(i) says how much lower a score may be within any budget from point i up to the next, the smaller of two
//   bounds: what thinning may have lost, and the linear relaxation. gap() is the largest of them. 0 says exact.
// - A limit in seconds is for the whole call. A table that is not done by then is given up, and lists are short from
//   there on, so that the call ends a moment later, with a gap as above.
// - Scores are compared as integers of 192 bits: the same points for scores times any power of two. (Scores below
//   2^-112 of the largest are rounded in comparisons; gap() allows for it.)
// - Ties: among choices of equal cost and score the order of the search decides, the same on every run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/deadline.hpp"
#include "mixbit/autoquant/detail/dense_frontier.hpp"
#include "mixbit/autoquant/detail/hull_bound.hpp"
#include "mixbit/autoquant/detail/long_score.hpp"
#include "mixbit/autoquant/detail/score_split.hpp"
#include "mixbit/autoquant/detail/sparse_frontier.hpp"
#include "mixbit/autoquant/solver.hpp"

namespace mixbit::solver {

/// What a frontier may take. Below `points` lists are exact; a table's size is limited by `bytes` alone.
struct frontier_limits {
  std::size_t points = std::size_t{1} << 16;  ///< of a list, at least 3
  std::size_t bytes = std::size_t{1} << 28;   ///< for all that grows with them: decisions, and lists while they merge
  double seconds = 0;                         ///< 0: no limit; looked at once a group
};

struct frontier_point {
  std::int64_t cost = 0;
  double score = 0;  ///< the exact sum, rounded once
};

class pareto_frontier {
 public:
  /// Rising in cost, falling in score; the first is the cheapest choice, the last one of the lowest score.
  std::span<frontier_point const> points() const noexcept { return points_; }

  /// A candidate's index for each group.
  std::vector<int> choice(std::size_t point) const {
    std::vector<int> result(input_.all.groups());
    auto const take = [&](std::size_t g, std::size_t number) {
      result[g] = static_cast<int>(input_.all.items[input_.all.first[g] + number].index);
      return input_.costs[input_.all.first[g] + number];
    };
    std::size_t at = places_[point];
    for (std::size_t level = order_.size(); level-- > 0;)  // from a table: `at` is a cost
      at -= static_cast<std::size_t>(take(order_[level], table_[table_begins_[level] + at]));
    for (std::size_t g = levels_.size(); g-- > 0;) {  // from lists: `at` is a decision
      take(g, levels_[g][at].number);
      at = levels_[g][at].before;
    }
    return result;
  }

  /// How much lower the score of another choice may be within any budget from this point up to the next.
  double missed(std::size_t point) const { return missed_.empty() ? 0.0 : missed_[point]; }
  double gap() const { return missed_.empty() ? 0.0 : *std::max_element(missed_.begin(), missed_.end()); }
  bool exact() const { return gap() == 0; }

  /// The last point within the budget. Throws search_infeasible as solve() does.
  std::size_t find(std::int64_t budget) const {
    detail::require_budget(reachable_, budget);
    auto const above = std::upper_bound(points_.begin(), points_.end(), budget,
                                        [](std::int64_t b, frontier_point const& p) { return b < p.cost; });
    return static_cast<std::size_t>(above - points_.begin()) - 1;
  }

  /// The best choice within a budget, as solve() would return it: `states` is 0, nothing is searched.
  solution within(std::int64_t budget) const {
    std::size_t const i = find(budget);
    double const score = points_[i].score;
    double const bound = missed(i) == 0 ? score : std::nextafter(score - missed(i), -HUGE_VAL);
    return {choice(i), score, points_[i].cost, bound, score - bound, bound == score, 0};
  }

  range const& reachable() const noexcept { return reachable_; }

 private:
  friend pareto_frontier frontier(problem const&, frontier_limits const&);

  void add(detail::long_score const& score, std::int64_t cost, std::size_t place) {
    points_.push_back({input_.cheapest + cost * input_.step, input_.score(score)});
    places_.push_back(static_cast<std::uint32_t>(place));
  }

  /// Whether the table was done by the deadline.
  template <class Low>
  bool take(detail::dense_frontier<Low> table) {
    if (!table.complete()) return false;
    order_ = table.order();
    std::size_t length = 1, begin = 0;
    for (std::size_t const g : order_) {
      length += static_cast<std::size_t>(input_.span(g));
      table_begins_.push_back(begin);
      begin += length;
    }
    detail::long_score last;
    for (std::size_t cost = 0; cost < table.size(); ++cost) {
      if (!table.is_reached(cost)) continue;
      auto const score = table.score(cost);
      if (!points_.empty() && score >= last) continue;
      add(score, static_cast<std::int64_t>(cost), cost);
      last = score;
    }
    table_ = table.take_choices();
    return true;
  }

  bool take_table(detail::time_point deadline) {
    detail::score_split const split{input_};
    if (split.low_bits < 64) return take(detail::dense_frontier<std::uint64_t>{input_, split, deadline});
    return take(detail::dense_frontier<detail::unsigned_wide>{input_, split, deadline});
  }

  void take(detail::sparse_frontier lists) {
    for (std::size_t i = 0; i < lists.states().size(); ++i) add(lists.states()[i].score, lists.states()[i].cost, i);
    levels_ = lists.take_levels();
    double const lost = detail::to_double(lists.missed(), input_.grid);
    if (lost > 0) bound(lost, lists.states());
  }

  /// Sets missed_ from what thinning may have lost and from the relaxation. Doubles, rounded to the safe side.
  void bound(double lost, std::vector<detail::sparse_frontier::state> const& states) {
    detail::hull_bound const hull{input_.all};
    double const unit = std::ldexp(1.0, -input_.all.shift);
    for (std::size_t i = 0; i < states.size(); ++i) {
      bool const last = i + 1 == states.size();
      std::int64_t const room = last ? reachable_.maximum_useful : (states[i + 1].cost * input_.step - 1);
      double const above = detail::to_double(states[i].score, input_.grid);
      double const missed = std::min(lost, above - hull.above_least(room)) * (1 + 0x1p-50);
      missed_.push_back(last ? 0.0 : std::max(missed, 0.0) * unit);
    }
  }

  /// Integers that do not hold every score are off by less than a unit a group, in the point and in what it missed.
  void allow_rounding() {
    double const unit = std::ldexp(1.0, input_.grid - input_.all.shift);
    double const off = 2 * static_cast<double>(input_.all.groups()) * std::max(unit, 0x1p-1074);
    missed_.resize(points_.size());
    for (double& one : missed_) one += off;
  }

  detail::long_instance input_;
  range reachable_;
  std::vector<frontier_point> points_;
  std::vector<std::uint32_t> places_;       // where each point's choice is found
  std::vector<double> missed_;              // empty: nothing
  std::vector<std::size_t> order_, table_begins_;
  std::vector<std::uint8_t> table_;
  std::vector<std::vector<detail::sparse_frontier::decision>> levels_;
};

namespace detail {

/// Whether a table holds all decisions, and is not much larger than the lists would be.
inline bool prefers_table(long_instance const& input, frontier_limits const& limit) {
  double length = 1, table = 0, choices = 1, lists = 0;
  for (std::size_t const g : order_by_span(input)) {
    std::size_t const count = input.all.first[g + 1] - input.all.first[g];
    if (count > most_table_items) return false;
    length += static_cast<double>(input.span(g));
    choices = std::min(choices * static_cast<double>(count), length);
    table += length;
    lists += choices;
  }
  // beside the decisions two rows of at most 24 bytes a cost
  return table + 48 * length <= static_cast<double>(limit.bytes) && table <= 8 * lists + 4096;
}

}  // namespace detail

/// All undominated points. Throws search_input as solve() does, and for limits that hold nothing.
inline pareto_frontier frontier(problem const& input, frontier_limits const& limit = {}) {
  if (!(limit.seconds >= 0))
    fail(error_id::search_input, "solver: a limit of ", limit.seconds, " seconds; at least 0 is needed");
  auto const deadline = detail::deadline_in(limit.seconds);
  double const largest = detail::check_input(input);
  pareto_frontier result;
  result.input_ = detail::make_long(detail::make_instance(input, largest), largest);
  result.reachable_ = detail::range_of(result.input_.all);
  std::size_t const point = detail::sparse_frontier::bytes_a_point(result.input_);
  std::size_t const points = std::min(limit.points, limit.bytes / point);
  if (points < 3)
    fail(error_id::search_input, "solver: limits of ", limit.points, " points and ", limit.bytes,
         " bytes; at least 3 points and ", 3 * point, " bytes are needed");
  if (!detail::prefers_table(result.input_, limit) || !result.take_table(deadline))
    result.take(detail::sparse_frontier{result.input_, points, deadline});
  if (!result.input_.exact) result.allow_rounding();
  return result;
}

}  // namespace mixbit::solver
