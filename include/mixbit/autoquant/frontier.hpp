// What any budget can buy: the Pareto frontier of a search's statistics in bits an element. The choices themselves are
// solver::frontier's (autoquant/solver_frontier.hpp); allocate() gives that of one budget.
#pragma once

#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/autoquant/solver_frontier.hpp"

namespace mixbit {

/// No choice has fewer bits and at most this score, but for what `missed` allows.
struct budget_point {
  double bits_per_element = 0, score = 0;
  double missed = 0;  ///< how much lower a score with as many bits may be, where limits stopped the search; else 0
};

/// Rising in bits, falling in score. Throws `search_input` as problem_of does, and for limits that hold nothing.
inline std::vector<budget_point> pareto_points(candidate_stats const& stats,
                                               solver::frontier_limits const& limits = {}) {
  auto const all = solver::frontier(problem_of(stats), limits);
  auto const elements = weighted_elements(stats);
  std::vector<budget_point> points;
  for (std::size_t i = 0; i < all.points().size(); ++i)
    points.push_back({bits_per_element(all.points()[i].cost, elements), all.points()[i].score, all.missed(i)});
  return points;
}

}  // namespace mixbit
