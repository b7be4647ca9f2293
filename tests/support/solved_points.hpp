// A frontier beside solve(), which finds its points by another way.
#pragma once

#include <doctest/doctest.h>

#include "mixbit/autoquant/solver_frontier.hpp"

namespace mixbit::test {

/// Each point is what solve() finds under a budget of its cost.
inline void require_solved(solver::problem input, solver::pareto_frontier const& all) {
  for (solver::frontier_point const& point : all.points()) {
    input.budget = point.cost;
    auto const expected = solver::solve(input);
    REQUIRE(expected.cost == point.cost);
    REQUIRE(expected.score == point.score);
  }
}

}  // namespace mixbit::test
