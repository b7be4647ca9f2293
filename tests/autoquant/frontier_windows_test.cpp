#include "mixbit/autoquant/detail/frontier_windows.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "mixbit/autoquant/solver_frontier.hpp"
#include "support/solved_points.hpp"
#include "support/solver_families.hpp"

namespace {

namespace solver = mixbit::solver;
using solver::problem;
using solver::detail::cost_window;
using solver::detail::frontier_windows;

constexpr std::int64_t nothing = std::numeric_limits<std::int64_t>::max();

/// Scores in whole units of 2^-20, so that 64 bits hold every sum.
problem in_units(problem input) {
  for (solver::candidate& one : input.candidates) one.score = std::ldexp(std::round(std::ldexp(one.score, 20)), -20);
  return input;
}

/// The least score of every cost, in units of 2^-20, by plain sums over all candidates.
std::vector<std::int64_t> least_of(problem const& input) {
  std::vector<std::int64_t> least{0}, next;
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::int64_t most = 0;
    for (auto const& one : input.group(g)) most = std::max(most, one.cost);
    next.assign(least.size() + static_cast<std::size_t>(most), nothing);
    for (auto const& one : input.group(g)) {
      auto const units = static_cast<std::int64_t>(std::ldexp(one.score, 20));
      for (std::size_t c = 0; c < least.size(); ++c) {
        if (least[c] == nothing) continue;
        std::int64_t& to = next[c + static_cast<std::size_t>(one.cost)];
        to = std::min(to, least[c] + units);
      }
    }
    least.swap(next);
  }
  return least;
}

void check_points(problem const& input, solver::pareto_frontier const& got) {
  auto const least = least_of(input);
  std::size_t at = 0;
  std::int64_t last = nothing;
  for (std::size_t c = 0; c < least.size(); ++c) {
    if (least[c] >= last) continue;
    last = least[c];
    REQUIRE(at < got.points().size());
    REQUIRE(got.points()[at].cost == static_cast<std::int64_t>(c));
    REQUIRE(got.points()[at].score == std::ldexp(static_cast<double>(last), -20));
    ++at;
  }
  CHECK(at == got.points().size());
}

/// An instance as the table has it, and its windows for allowances as tight as they can be.
struct windowed {
  solver::detail::long_instance all;
  std::vector<std::size_t> order;
  std::size_t size = 1;
  std::vector<double> best;

  windowed(problem const& input, solver::pareto_frontier const& points) {
    double const largest = solver::detail::check_input(input);
    all = solver::detail::make_long(solver::detail::make_instance(input, largest), largest);
    order = solver::detail::order_by_span(all);
    for (std::size_t const g : order) size += static_cast<std::size_t>(all.span(g));
    best.assign(size, HUGE_VAL);
    double const least = points.points().back().score;
    for (auto const& p : points.points())
      best[static_cast<std::size_t>((p.cost - all.cheapest) / all.step)] = std::ldexp(p.score - least, -all.grid);
  }

  double sums() const {
    double result = 0, length = 1;
    for (std::size_t const g : order) {
      result += length * (all.all.first[g + 1] - all.all.first[g]);
      length += static_cast<double>(all.span(g));
    }
    return result;
  }
};

}  // namespace

TEST_CASE("frontier windows: tables of families that windows suit are those of plain sums") {
  for (char const* const family : {"uncorrelated", "wide_scales", "weakly_correlated", "equal_scores", "concave"}) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      CAPTURE(family);
      CAPTURE(seed);
      problem const input = in_units(solver_families::make(family, 70, 6, 120, 0.5, seed));
      auto const got = solver::frontier(input);
      REQUIRE(got.exact());
      check_points(input, got);
    }
  }
  problem const many = in_units(solver_families::make("uncorrelated", 40, 200, 300, 0.5, 1));
  check_points(many, solver::frontier(many));
}

TEST_CASE("frontier windows: layers of a language model, where a table uses them, are those of plain sums") {
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    problem input = in_units(solver_families::modelopt(60, seed));
    for (solver::candidate& one : input.candidates) one.cost /= 4096 * 2048 / 2;
    auto const got = solver::frontier(input);
    windowed const at{input, got};
    frontier_windows windows{at.all, at.order, at.size};
    CHECK(windows.open_part() <= 0.5);
    windows.allow(at.best);
    CHECK(windows.sums() <= 0.5 * at.sums());
    check_points(input, got);
  }
}

TEST_CASE("frontier windows: every undominated choice lies in them, and most of the sums do not") {
  int suited = 0;
  for (char const* const family : {"uncorrelated", "wide_scales", "weakly_correlated", "equal_scores", "concave"}) {
    problem const input = in_units(solver_families::make(family, 60, 6, 150, 0.5, 7));
    auto const points = solver::frontier(input);
    windowed const at{input, points};
    frontier_windows windows{at.all, at.order, at.size};
    windows.allow(at.best);
    suited += windows.sums() < 0.65 * at.sums() ? 1 : 0;
    CAPTURE(family);
    for (std::size_t p = 0; p < points.points().size(); ++p) {
      auto const choice = points.choice(p);
      std::size_t cost = 0;
      for (std::size_t const g : at.order) {
        std::size_t item = at.all.all.first[g];
        while (static_cast<int>(at.all.all.items[item].index) != choice[g]) ++item;
        cost_window const& window = windows[item];
        REQUIRE(window.from <= cost);
        REQUIRE(cost < window.to);
        cost += static_cast<std::size_t>(at.all.costs[item]);
      }
    }
  }
  CHECK(suited >= 4);
}

TEST_CASE("frontier windows: what is known of no budget leaves everything open") {
  problem const input = in_units(solver_families::make("uncorrelated", 60, 6, 150, 0.5, 7));
  windowed const at{input, solver::frontier(input)};
  frontier_windows windows{at.all, at.order, at.size};
  windows.allow(std::vector<double>(at.size, HUGE_VAL));
  auto const last = at.order.back();
  for (std::size_t i = at.all.all.first[last]; i < at.all.all.first[last + 1]; ++i) {
    CHECK(windows[i].from == 0);
    CHECK(windows[i].to == at.size - static_cast<std::size_t>(at.all.span(last)));
  }
}

TEST_CASE("frontier: scores whose low parts need more than 64 bits") {
  solver_families::generator random{21};
  for (int round = 0; round < 40; ++round) {
    problem input;
    for (int g = 0; g < 8; ++g) {
      std::vector<solver::candidate> group;
      for (int c = 0; c < 4; ++c)
        group.push_back({static_cast<double>(8 - 2 * c), 3 * c + random.integer(0, 1)});
      input.add_group(group);
      group.clear();
      for (int c = 0; c < 4; ++c)
        group.push_back({std::ldexp(static_cast<double>(40 - 9 * c + random.integer(0, 5)), -112), 2 * c});
      input.add_group(group);
    }
    auto const all = solver::frontier(input);
    REQUIRE(all.exact());
    solver::detail::long_instance const units =
        solver::detail::make_long(solver::detail::make_instance(input, 8), 8);
    CHECK(solver::detail::score_split{units}.low_bits >= 64);
    mixbit::test::require_solved(input, all);
  }
}

TEST_CASE("frontier: integers of 192 bits are cut and measured where their bits are") {
  using solver::detail::long_score;
  long_score const one = solver::detail::shifted(0x8421u, 120);
  CHECK(solver::detail::width(one) == 136);
  CHECK(solver::detail::trailing_zeros(one) == 120);
  CHECK(solver::detail::bits_above(one, 125) == 0x421);
  CHECK(solver::detail::bits_above(one, 130) == 0x21);
  CHECK(solver::detail::bits_above(solver::detail::shifted(5, 64), 0) == solver::detail::unsigned_wide{5} << 64);
  CHECK(solver::detail::shifted(3, 0) == long_score{0, 3});
  CHECK(solver::detail::shifted(3, 129) == long_score{6, 0});
  CHECK(solver::detail::trailing_zeros(solver::detail::shifted(1, 150)) == 150);
  CHECK(solver::detail::width(solver::detail::shifted(1, 70)) == 71);
}
