#include "mixbit/autoquant/solver_frontier.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "support/error_text.hpp"
#include "support/solved_points.hpp"
#include "support/solver_families.hpp"

namespace {

namespace solver = mixbit::solver;
using solver::candidate;
using solver::frontier_point;
using solver::problem;
using mixbit::test::error_text;
using mixbit::test::says;
using solver_families::generator;

constexpr solver::frontier_limits table{};
constexpr std::int64_t apart = 1'000'003;  // costs times this leave no table room

problem with_large_costs(problem input, generator& random) {
  for (candidate& one : input.candidates) one.cost = one.cost * apart + random.integer(0, 1);
  return input;
}

/// Every undominated (cost, score): all choices, whose scores must be whole multiples of 2^-20 below 2^30.
std::vector<frontier_point> all_points(problem const& input) {
  std::map<std::int64_t, double> least{{0, 0}};
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::map<std::int64_t, double> next;
    for (auto const& [cost, score] : least) {
      for (candidate const& one : input.group(g)) {
        auto const [at, added] = next.try_emplace(cost + one.cost, score + one.score);
        if (!added) at->second = std::min(at->second, score + one.score);
      }
    }
    least.swap(next);
  }
  std::vector<frontier_point> points;
  for (auto const& [cost, score] : least) {
    if (points.empty() || score < points.back().score) points.push_back({cost, score});
  }
  return points;
}

void check_choice(problem const& input, solver::pareto_frontier const& got, std::size_t i) {
  solver::detail::exact_sum score;
  std::int64_t cost = 0;
  auto const choice = got.choice(i);
  REQUIRE(choice.size() == input.groups());
  for (std::size_t g = 0; g < choice.size(); ++g) {
    candidate const& one = input.group(g)[static_cast<std::size_t>(choice[g])];
    score.add(one.score);
    cost += one.cost;
  }
  REQUIRE(cost == got.points()[i].cost);
  REQUIRE(score.rounded() == got.points()[i].score);
}

void check_against_brute_force(problem const& input) {
  auto const got = solver::frontier(input, table);
  auto const expected = all_points(input);
  REQUIRE(got.exact());
  REQUIRE(got.points().size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    REQUIRE(got.points()[i].cost == expected[i].cost);
    REQUIRE(got.points()[i].score == expected[i].score);
    check_choice(input, got, i);
  }
}

problem small_instance(generator& random, int digits, std::int64_t costs) {
  problem result;
  for (auto groups = random.integer(1, 6); groups > 0; --groups) {
    std::vector<candidate> group;
    for (auto count = random.integer(1, 4); count > 0; --count) {
      std::int64_t const limit = std::int64_t{1} << digits;
      auto const score = static_cast<double>(random.integer(random.integer(0, 2) == 0 ? -limit : 0, limit));
      group.push_back({std::ldexp(score, -20), random.integer(0, costs)});
      if (random.integer(0, 9) == 0) group.push_back(group.front());
    }
    result.add_group(group);
  }
  return result;
}

TEST_CASE("frontier: scores that the integers cannot hold leave a gap, not a false proof") {
  problem tiny;
  std::vector<candidate> const first{{1, 0}, {0, 1}}, second{{0x3p-170, 0}, {0x1p-170, 1}};
  tiny.add_group(first);
  tiny.add_group(second);
  tiny.budget = 2;
  auto const all = frontier(tiny);
  auto const best = all.within(2);
  auto const exact = solve(tiny);
  CHECK(exact.score == 0x1p-170);
  CHECK_FALSE(best.optimal);
  CHECK_FALSE(all.exact());
  CHECK(best.bound <= exact.score);
  CHECK(all.gap() < 1e-40);
}

}  // namespace

TEST_CASE("frontier: equals brute force on small instances, by table and by lists") {
  generator random{11};
  for (int round = 0; round < 4000; ++round) {
    CAPTURE(round);
    int const digits = round % 3 == 0 ? 2 : (round % 3 == 1 ? 8 : 28);
    problem const input = small_instance(random, digits, round % 4 == 0 ? 3 : 40);
    check_against_brute_force(input);
    check_against_brute_force(with_large_costs(input, random));
  }
}

TEST_CASE("frontier: table and lists agree with solve() at every budget, in full precision") {
  generator random{12};
  for (std::string const& family : solver_families::names()) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      CAPTURE(family);
      CAPTURE(seed);
      problem input = solver_families::make(family, 8, 4, 30, 0.5, seed);
      if (seed % 2 == 1) input = with_large_costs(std::move(input), random);
      auto const all = solver::frontier(input);
      REQUIRE(all.exact());
      auto const costs = solver::reachable(input);
      for (int step = 0; step <= 40; ++step) {
        input.budget = costs.minimum + (costs.maximum_useful - costs.minimum) / 40 * step;
        auto const expected = solver::solve(input);
        auto const got = all.within(input.budget);
        REQUIRE(got.score == expected.score);
        REQUIRE(got.cost == expected.cost);
        REQUIRE(got.optimal);
        check_choice(input, all, all.find(input.budget));
      }
    }
  }
}

TEST_CASE("frontier: a table of many costs agrees with solve(), at the end of the table too") {
  for (char const* const family : {"weakly_correlated", "wide_scales", "equal_scores", "uncorrelated"}) {
    problem input = solver_families::make(family, 60, 6, 100, 0.5, 3);
    auto const all = solver::frontier(input);
    REQUIRE(all.exact());
    auto const costs = all.reachable();
    for (int step = 0; step <= 60; ++step) {
      input.budget = costs.minimum + (costs.maximum_useful - costs.minimum) * step / 60;
      auto const expected = solver::solve(input);
      auto const got = all.within(input.budget);
      CAPTURE(family);
      CHECK(got.score == expected.score);
      CHECK(got.cost == expected.cost);
    }
  }
}

TEST_CASE("frontier: differences in the last bits, which only the low parts tell") {
  generator random{13};
  for (int round = 0; round < 300; ++round) {
    problem input;
    for (int g = 0; g < 6; ++g) {
      std::vector<candidate> group;
      for (int c = 0; c < 3; ++c)
        group.push_back({1 + 0x1p-52 * static_cast<double>(random.integer(0, 4)) - 0.125 * c, 10 + 2 * c});
      input.add_group(group);
    }
    mixbit::test::require_solved(input, solver::frontier(input));
  }
}

TEST_CASE("frontier: a table of several tiles where all choices of a cost differ in their last bits only") {
  generator random{16};
  constexpr std::int64_t one = std::int64_t{1} << 52, none = std::int64_t{1} << 62;
  problem input;
  std::vector<std::int64_t> least{0};  // by cost, in units of 2^-52
  for (int g = 0; g < 50; ++g) {
    std::vector<candidate> group;
    std::vector<std::int64_t> next(least.size() + 61, none);
    for (std::int64_t const cost : {0, 11, 12, 37, 61}) {
      std::int64_t const score = 8 * one - one / 8 * cost + random.integer(-9, 9) * 8;
      group.push_back({std::ldexp(static_cast<double>(score), -52), cost});
      for (std::size_t c = 0; c < least.size(); ++c)
        next[c + static_cast<std::size_t>(cost)] = std::min(next[c + static_cast<std::size_t>(cost)], least[c] + score);
    }
    input.add_group(group);
    least.swap(next);
  }
  auto const all = solver::frontier(input);
  std::size_t at = 0;
  std::int64_t last = none;
  for (std::size_t c = 0; c < least.size(); ++c) {
    if (least[c] >= last) continue;
    last = least[c];
    REQUIRE(at < all.points().size());
    REQUIRE(all.points()[at].cost == static_cast<std::int64_t>(c));
    REQUIRE(all.points()[at].score == std::ldexp(static_cast<double>(last), -52));
    if (at % 100 == 0) check_choice(input, all, at);
    ++at;
  }
  CHECK(at == all.points().size());
  CHECK(at > 2500);
}

TEST_CASE("frontier: the same points for scores times powers of two") {
  generator random{14};
  for (std::string const& family : solver_families::names()) {
    problem input = solver_families::make(family, 30, 4, 40, 0.5, 9);
    for (bool const large : {false, true}) {
      if (large) input = with_large_costs(std::move(input), random);
      solver::frontier_limits const limit{512, 1 << 24};
      auto const expected = solver::frontier(input, limit);
      for (int const k : {-900, -40, -7, 1, 40, 900}) {
        problem scaled = input;
        for (candidate& one : scaled.candidates) one.score = std::ldexp(one.score, k);
        auto const got = solver::frontier(scaled, limit);
        CAPTURE(family);
        CAPTURE(k);
        REQUIRE(got.points().size() == expected.points().size());
        for (std::size_t i = 0; i < expected.points().size(); ++i) {
          REQUIRE(got.points()[i].cost == expected.points()[i].cost);
          REQUIRE(got.points()[i].score == std::ldexp(expected.points()[i].score, k));
        }
        CHECK(got.choice(got.points().size() / 2) == expected.choice(expected.points().size() / 2));
      }
    }
  }
}

TEST_CASE("frontier: thinned lists hold real choices and say by how much a score may be missed") {
  generator random{15};
  int thinned = 0, missed = 0;
  for (std::string const& family : solver_families::names()) {
    for (std::size_t const points : {3, 4, 8, 60, 400}) {
      problem input = with_large_costs(solver_families::make(family, 24, 5, 1000, 0.5, points), random);
      auto const all = solver::frontier(input, {points, 1 << 28});
      CAPTURE(family);
      CAPTURE(points);
      CHECK(all.points().size() <= points);
      thinned += all.exact() ? 0 : 1;
      for (std::size_t i = 0; i < all.points().size(); ++i) check_choice(input, all, i);
      CHECK(all.points().front().cost == all.reachable().minimum);
      CHECK(all.points().back().cost == all.reachable().maximum_useful);
      for (int step = 0; step <= 20; ++step) {
        input.budget = all.reachable().minimum + (all.reachable().maximum_useful - all.reachable().minimum) / 20 * step;
        auto const best = solver::solve(input);
        auto const got = all.within(input.budget);
        REQUIRE(best.optimal);
        CHECK(got.bound <= best.score);
        CHECK(got.score >= best.score);
        CHECK(got.gap <= all.gap() * (1 + 1e-9) + 1e-300);
        missed += got.score > best.score ? 1 : 0;
      }
    }
  }
  CHECK(thinned > 20);
  CHECK(missed > 20);
}

TEST_CASE("frontier: the relaxation bounds every choice from below") {
  for (std::string const& family : solver_families::names()) {
    problem input = solver_families::make(family, 20, 5, 1000, 0.5, 4);
    auto const all = solver::detail::make_instance(input, solver::detail::check_input(input));
    solver::detail::hull_bound const hull{all};
    auto const costs = solver::reachable(input);
    input.budget = costs.maximum_useful;
    double const least = solver::solve(input).score;
    double tightest = HUGE_VAL;
    for (int step = 0; step <= 50; ++step) {
      input.budget = costs.minimum + (costs.maximum_useful - costs.minimum) * step / 50;
      double const above = solver::solve(input).score - least;
      double const bound = std::ldexp(hull.above_least(input.budget - costs.minimum), -all.shift);
      CHECK(bound <= above);
      tightest = std::min(tightest, above - bound);
    }
    CHECK(tightest <= 1e-3 * std::abs(least));  // met at both ends at least
  }
}

TEST_CASE("frontier: after a limit in seconds lists are short, and the gap says what that may have lost") {
  generator random{18};
  for (bool const by_table : {true, false}) {
    problem input = solver_families::modelopt(60, 5);
    if (!by_table)
      for (candidate& one : input.candidates) one.cost += random.integer(0, 100'000);
    auto const all = solver::frontier(input, {std::size_t{1} << 16, std::size_t{1} << 28, 1e-9});
    CAPTURE(by_table);
    CHECK(all.points().size() <= 64);
    CHECK_FALSE(all.exact());
    for (std::size_t i = 0; i < all.points().size(); ++i) check_choice(input, all, i);
    for (int percent = 0; percent <= 100; percent += 10) {
      input.budget = all.reachable().minimum +
                     (all.reachable().maximum_useful - all.reachable().minimum) / 100 * percent;
      auto const best = solver::solve(input);
      CHECK(all.within(input.budget).score >= best.score);
      CHECK(all.within(input.budget).bound <= best.score);
    }
    auto const unhurried = solver::frontier(input, {std::size_t{1} << 16, std::size_t{1} << 28, 1000});
    CHECK(unhurried.points().size() > 1000);
    CHECK(unhurried.exact());
  }
  CHECK(says(error_text(mixbit::error_id::search_input, [] { solver::frontier(problem{}, {9, 1 << 20, -1}); }),
             "a limit of -1 seconds"));
}

TEST_CASE("frontier: groups of many candidates leave fewer points to the same bytes") {
  generator random{19};
  for (std::size_t const candidates : {4, 60}) {
    problem const input = with_large_costs(solver_families::make("concave", 12, candidates, 100'000, 0.5, 2), random);
    std::size_t const bytes = 400'000;
    auto const all = solver::frontier(input, {std::size_t{1} << 16, bytes});
    double const largest = solver::detail::check_input(input);
    auto const units = solver::detail::make_long(solver::detail::make_instance(input, largest), largest);
    std::size_t most = 0;
    for (std::size_t g = 0; g < units.all.groups(); ++g)
      most = std::max<std::size_t>(most, units.all.first[g + 1] - units.all.first[g]);
    std::size_t const merged = most * sizeof(solver::detail::sparse_frontier::state);
    CHECK(all.points().size() * (merged + 12 * sizeof(solver::detail::sparse_frontier::decision)) <= bytes);
    CHECK(all.points().size() > 30);
    for (std::size_t i = 0; i < all.points().size(); i += 10) check_choice(input, all, i);
  }
}

TEST_CASE("frontier: simple cases and errors") {
  CHECK(solver::frontier(problem{}).points().size() == 1);
  CHECK(solver::frontier(problem{}).choice(0).empty());
  problem one;
  one.add_group(std::vector<candidate>{{3, 5}, {3, 4}, {1, 9}, {2, 9}, {4, 20}});
  auto const all = solver::frontier(one);
  REQUIRE(all.points().size() == 2);
  CHECK(all.choice(0) == std::vector<int>{1});
  CHECK(all.choice(1) == std::vector<int>{2});
  CHECK(all.find(8) == 0);
  CHECK(all.find(9) == 1);
  CHECK(all.find(1'000'000) == 1);
  using enum mixbit::error_id;
  CHECK(says(error_text(search_infeasible, [&] { all.find(3); }),
             "budget of 3 bits cannot be met: from 4 to 9 bits can be reached, and group 0 alone needs 4"));
  CHECK(says(error_text(search_input, [&] { solver::frontier(one, {2, 100}); }), "limits of 2 points"));
  CHECK(says(error_text(search_input, [&] { solver::frontier(one, {9, 23}); }), "23 bytes"));
  one.candidates[2].score = std::nan("");
  CHECK(says(error_text(search_input, [&] { solver::frontier(one); }), "group 0, candidate 2: score is nan"));
}

TEST_CASE("frontier: the costs that ModelOpt counts fit a table; exact bits of a whole model fit a limit") {
  problem const input = solver_families::modelopt(300, 1);
  auto const all = solver::frontier(input);
  CHECK(all.exact());
  CHECK(all.points().size() > 30'000);
  problem at = input;
  for (std::size_t i = 0; i < all.points().size(); i += all.points().size() / 40) {
    at.budget = all.points()[i].cost;
    auto const best = solver::solve(at);
    CHECK(best.score == all.points()[i].score);
    CHECK(best.cost == all.points()[i].cost);
    check_choice(input, all, i);
  }
  generator random{17};
  for (candidate& one : at.candidates) one.cost += random.integer(0, 100'000);  // scales, padding
  auto const some = solver::frontier(at, {4096, std::size_t{1} << 28});
  CHECK(some.points().size() <= 4096);
  CHECK_FALSE(some.exact());
  for (int percent = 10; percent <= 90; percent += 20) {
    at.budget = some.reachable().minimum + (some.reachable().maximum_useful - some.reachable().minimum) / 100 * percent;
    auto const best = solver::solve(at);
    auto const got = some.within(at.budget);
    CHECK(got.score <= best.score * 1.05);
    CHECK(got.bound <= best.score);
  }
}
