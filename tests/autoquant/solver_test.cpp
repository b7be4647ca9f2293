#include "mixbit/autoquant/solver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/solver_families.hpp"

namespace {

namespace solver = mixbit::solver;
using solver::candidate;
using solver::problem;
using solver::solution;
using solver_families::generator;

__extension__ typedef __int128 wide;

problem make_problem(std::vector<std::vector<candidate>> const& groups, std::int64_t budget) {
  problem result;
  for (auto const& group : groups) result.add_group(group);
  result.budget = budget;
  return result;
}

/// A score in units of 2^grid, exactly; it is an error of the test if it is not whole.
wide units(double score, int grid) {
  int exponent = 0;
  auto const mantissa = static_cast<std::int64_t>(std::ldexp(std::frexp(score, &exponent), 53));
  int const shift = exponent - 53 - grid;
  REQUIRE((shift >= 0 || score == 0 || mantissa % (std::int64_t{1} << -shift) == 0));
  return shift >= 0 ? wide{mantissa} * (wide{1} << shift) : wide{mantissa >> -shift};
}

/// The exact total of a choice.
struct total {
  wide score = 0;
  std::int64_t cost = 0;
  friend bool operator==(total const&, total const&) = default;
  bool operator<(total const& other) const { return score != other.score ? score < other.score : cost < other.cost; }
};

total total_of(problem const& input, std::vector<int> const& choice, int grid) {
  REQUIRE(choice.size() == input.groups());
  total sum;
  for (std::size_t g = 0; g < input.groups(); ++g) {
    REQUIRE(choice[g] >= 0);
    REQUIRE(static_cast<std::size_t>(choice[g]) < input.group(g).size());
    candidate const& chosen = input.group(g)[static_cast<std::size_t>(choice[g])];
    sum.score += units(chosen.score, grid);
    sum.cost += chosen.cost;
  }
  return sum;
}

/// Tries every choice. Returns whether one fits, and the lowest (score, cost).
std::pair<bool, total> brute_force(problem const& input, int grid) {
  std::vector<std::vector<total>> groups;
  for (std::size_t g = 0; g < input.groups(); ++g) {
    groups.emplace_back();
    for (candidate const& one : input.group(g)) groups.back().push_back({units(one.score, grid), one.cost});
  }
  std::vector<std::size_t> choice(groups.size(), 0);
  std::pair<bool, total> best{false, {}};
  while (true) {
    total sum;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      sum.score += groups[g][choice[g]].score;
      sum.cost += groups[g][choice[g]].cost;
    }
    if (sum.cost <= input.budget && (!best.first || sum < best.second)) best = {true, sum};
    std::size_t g = 0;
    while (g < groups.size() && ++choice[g] == groups[g].size()) choice[g++] = 0;
    if (g == groups.size()) return best;
  }
}

/// The least score for every cost up to the budget, by a table over whole numbers; the score at the budget.
std::int64_t dense_table(problem const& input) {
  constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max() / 2;
  std::vector<std::int64_t> best(static_cast<std::size_t>(input.budget) + 1, 0);
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::vector<std::int64_t> next(best.size(), none);
    for (candidate const& one : input.group(g)) {
      for (auto c = static_cast<std::size_t>(one.cost); c < best.size(); ++c) {
        std::int64_t const before = best[c - static_cast<std::size_t>(one.cost)];
        next[c] = std::min(next[c], before + static_cast<std::int64_t>(one.score));
      }
    }
    best.swap(next);
  }
  return best.back();
}

/// Checks a proved solution against every choice there is.
void check_against_brute_force(problem const& input, int grid) {
  auto const [feasible, best] = brute_force(input, grid);
  if (!feasible) {
    CHECK_THROWS_AS(solver::solve(input), mixbit::error);
    return;
  }
  solution const got = solver::solve(input);
  REQUIRE(total_of(input, got.choice, grid) == best);
  REQUIRE(got.cost == best.cost);
  REQUIRE(got.cost <= input.budget);
  REQUIRE(got.optimal);
  REQUIRE(got.gap == 0);
  REQUIRE(got.bound == got.score);
  REQUIRE(got.score == std::ldexp(static_cast<double>(best.score), grid));  // __int128 to double rounds once
}

/// Random small groups of many shapes: few distinct scores and costs make ties, `digits` bits of score make none.
problem small_instance(generator& random, int digits, std::int64_t costs) {
  problem result;
  std::int64_t total = 0;
  auto const groups = random.integer(1, 6);
  for (std::int64_t g = 0; g < groups; ++g) {
    std::vector<candidate> group;
    auto const count = random.integer(1, 4);
    for (std::int64_t c = 0; c < count; ++c) {
      std::int64_t const limit = std::int64_t{1} << digits;
      auto const score = static_cast<double>(random.integer(random.integer(0, 2) == 0 ? -limit : 0, limit));
      group.push_back({std::ldexp(score, -digits), random.integer(0, costs)});
      if (random.integer(0, 9) == 0) group.push_back(group.front());
    }
    total += std::max_element(group.begin(), group.end(), [](auto const& a, auto const& b) {
               return a.cost < b.cost;
             })->cost;
    result.add_group(group);
  }
  result.budget = random.integer(0, total + 1);
  return result;
}

std::string message_of(problem const& input, mixbit::error_id id, solver::limits const& limit = {}) {
  try {
    solver::solve(input, limit);
  } catch (mixbit::error const& problem) {
    CHECK(problem.id() == id);
    return problem.what();
  }
  return "no error";
}

bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("solver: equals brute force on small instances, ties included") {
  generator random{1};
  for (int round = 0; round < 6000; ++round) {
    CAPTURE(round);
    int const digits = round % 3 == 0 ? 2 : (round % 3 == 1 ? 8 : 50);
    std::int64_t const costs = round % 5 == 0 ? 3 : (round % 5 == 1 ? 1'000'000'000'007 : 40);
    check_against_brute_force(small_instance(random, digits, costs), -60);
  }
}

TEST_CASE("solver: equals brute force on small instances of every family, at full precision") {
  for (std::string const& family : solver_families::names()) {
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
      CAPTURE(family);
      CAPTURE(seed);
      std::size_t const groups = 2 + seed % 5;
      std::int64_t const scale = seed % 2 == 0 ? 20 : 1'000'000'000;
      double const fraction = static_cast<double>(seed % 11) / 10;
      int const grid = family == "llm" || family == "wide_scales" ? -90 : 0;
      check_against_brute_force(solver_families::make(family, groups, 4, scale, fraction, seed), grid);
    }
  }
}

TEST_CASE("solver: equals brute force where scores differ in the last bit only") {
  generator random{2};
  for (int round = 0; round < 600; ++round) {
    problem input;
    for (int g = 0; g < 6; ++g) {
      std::vector<candidate> group;
      for (int c = 0; c < 3; ++c) {
        group.push_back({1 + 0x1p-52 * static_cast<double>(random.integer(0, 4)) - 0.125 * c, 10 + 2 * c});
      }
      input.add_group(group);
    }
    input.budget = random.integer(60, 84);
    CAPTURE(round);
    check_against_brute_force(input, -60);
  }
}

TEST_CASE("solver: equals brute force where many choices tie in score and differ in cost") {
  generator random{3};
  for (int round = 0; round < 4000; ++round) {
    problem input;
    std::int64_t total = 0;
    for (std::int64_t g = random.integer(3, 7); g > 0; --g) {
      std::vector<candidate> group;
      for (int c = 0; c < 3; ++c) {
        group.push_back({static_cast<double>(random.integer(0, 3) * (3 - c)), 9 * c + random.integer(0, 9)});
      }
      total += 18;
      input.add_group(group);
    }
    input.budget = random.integer(total / 4, total);
    CAPTURE(round);
    check_against_brute_force(input, 0);
  }
}

TEST_CASE("solver: differences that no double holds are compared exactly") {
  // One of two groups can be improved, from 1 to 2^-60 or to 2^-61; as doubles both differences are -1.
  std::vector<candidate> const worse{{1, 1}, {0x1p-60, 2}};
  std::vector<candidate> const better{{1, 1}, {0x1p-61, 2}};
  CHECK(solver::solve(make_problem({worse, better}, 3)).choice == std::vector<int>{0, 1});
  CHECK(solver::solve(make_problem({better, worse}, 3)).choice == std::vector<int>{1, 0});
}

TEST_CASE("solver: equals a table over all budgets on medium instances with integer scores") {
  for (std::string const& family : solver_families::names()) {
    if (family == "llm" || family == "wide_scales") continue;  // not integers
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      CAPTURE(family);
      CAPTURE(seed);
      problem const input = solver_families::make(family, 60, 6, 100, 0.08 * static_cast<double>(seed + 1), seed);
      solution const got = solver::solve(input);
      CHECK(got.score == static_cast<double>(dense_table(input)));
      CHECK(got.cost <= input.budget);
      CHECK(got.optimal);
      problem tighter = input;  // one bit below the cost found the score must be worse: the tie went to the cheapest
      tighter.budget = got.cost - 1;
      if (tighter.budget < solver::reachable(input).minimum) continue;
      CHECK(static_cast<double>(dense_table(tighter)) > got.score);
    }
  }
}

TEST_CASE("solver: the choice is the same for scores times every power of two from -40 to 40, and far beyond") {
  for (std::string const& family : solver_families::names()) {
    problem const input = solver_families::make(family, 80, 6, 1000, 0.45, 7);
    solution const expected = solver::solve(input);
    for (int k = -1000; k <= 980; k += (k < -40 || k >= 40) ? 60 : 1) {
      problem scaled = input;
      for (candidate& one : scaled.candidates) one.score = std::ldexp(one.score, k);
      bool const exact = std::equal(scaled.candidates.begin(), scaled.candidates.end(), input.candidates.begin(),
                                    [k](auto const& a, auto const& b) { return std::ldexp(a.score, -k) == b.score; });
      if (!exact) continue;  // scaling itself lost bits below the smallest normal double
      CAPTURE(family);
      CAPTURE(k);
      solution const got = solver::solve(scaled);
      CHECK(got.choice == expected.choice);
      CHECK(got.score == std::ldexp(expected.score, k));
      CHECK(got.optimal);
    }
  }
}

TEST_CASE("solver: scores times powers of ten keep the optimum within 1e-12") {
  for (char const* const family : {"llm", "wide_scales", "uncorrelated", "weakly_correlated"}) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      problem const input = solver_families::make(family, 200, 4, 10'000, 0.3, seed);
      double const expected = solver::solve(input).score;
      for (int k = -12; k <= 12; ++k) {
        double const factor = std::pow(10.0, k);
        problem scaled = input;
        for (candidate& one : scaled.candidates) one.score *= factor;
        solution const got = solver::solve(scaled);
        CAPTURE(family);
        CAPTURE(k);
        CHECK(got.optimal);
        CHECK(got.cost <= input.budget);
        CHECK(std::abs(got.score - expected * factor) <= 1e-12 * std::abs(expected * factor));
        double original = 0;  // the same choice, priced with the scores before scaling
        for (std::size_t g = 0; g < input.groups(); ++g) {
          original += input.group(g)[static_cast<std::size_t>(got.choice[g])].score;
        }
        CHECK(std::abs(original - expected) <= 1e-12 * std::abs(expected));
      }
    }
  }
}

TEST_CASE("solver: mixed magnitudes within one problem") {
  // A pair at 1e250 must not drown the choice between scores of 1e-300.
  problem const input = make_problem(
      {{{1e250, 1}, {1e-300, 5}}, {{2.5e-300, 1}, {1e-300, 2}}, {{3e-300, 1}, {1e-300, 2}}}, 5 + 1 + 2);
  solution const got = solver::solve(input);
  CHECK(got.choice == std::vector<int>{1, 0, 1});
  CHECK(got.score == doctest::Approx(4.5e-300).epsilon(1e-15));
  CHECK(got.cost == 8);
  CHECK(got.optimal);

  // Sums that cancel: naive addition of 1e16, 1 and -1e16 loses the 1.
  solution const cancel = solver::solve(make_problem({{{1e16, 1}}, {{1, 1}}, {{-1e16, 1}}}, 3));
  CHECK(cancel.score == 1);
  CHECK(cancel.bound == 1);
}

TEST_CASE("solver: simple cases") {
  SUBCASE("no groups") {
    solution const got = solver::solve(problem{});
    CHECK(got.choice.empty());
    CHECK(got.optimal);
    CHECK(got.score == 0);
  }
  SUBCASE("single candidates") {
    solution const got = solver::solve(make_problem({{{0.5, 3}}, {{0.25, 4}}}, 7));
    CHECK(got.choice == std::vector<int>{0, 0});
    CHECK(got.score == 0.75);
    CHECK(got.cost == 7);
  }
  SUBCASE("costs of zero") {
    CHECK(solver::solve(make_problem({{{2, 0}, {1, 0}}, {{0, 0}, {-1, 1}}}, 0)).choice == std::vector<int>{1, 0});
  }
  SUBCASE("equal scores take the lowest cost, equal candidates the first") {
    CHECK(solver::solve(make_problem({{{1, 9}, {1, 4}, {1, 4}, {1, 6}}}, 100)).choice == std::vector<int>{1});
  }
  SUBCASE("equal totals take the lower cost") {  // {1, 0} and {0, 1} both score 1; the second costs less
    CHECK(solver::solve(make_problem({{{1, 0}, {0, 5}}, {{1, 0}, {0, 4}}}, 5)).choice == std::vector<int>{0, 1});
  }
  SUBCASE("a budget beyond the maximum gives every group its best score") {
    problem const input = make_problem({{{3, 1}, {1, 8}, {2, 4}}, {{1, 1}, {7, 90}}}, 1'000'000);
    CHECK(solver::solve(input).choice == std::vector<int>{1, 0});
    CHECK(solver::reachable(input).maximum_useful == 9);
  }
  SUBCASE("a budget at the minimum is met, and costs near 2^62 do not overflow") {
    std::int64_t const large = std::int64_t{1} << 61;
    problem const input = make_problem({{{3, large - 1}, {1, large}}, {{4, large - 1}, {1, large}}}, 2 * large - 1);
    CHECK(solver::solve(input).choice == std::vector<int>{0, 1});
    problem exact = input;
    exact.budget = 2 * large - 2;
    CHECK(solver::solve(exact).choice == std::vector<int>{0, 0});
  }
}

TEST_CASE("solver: the same result on every call") {
  for (std::string const& family : solver_families::names()) {
    problem const input = solver_families::make(family, 200, 5, 300, 0.5, 3);
    solution const first = solver::solve(input);
    for (int i = 0; i < 3; ++i) {
      solution const again = solver::solve(input);
      CHECK(again.choice == first.choice);
      CHECK(again.states == first.states);
    }
  }
}

TEST_CASE("solver: errors name the group, the candidate and the value") {
  using enum mixbit::error_id;
  double const inf = std::numeric_limits<double>::infinity();
  CHECK(contains(message_of(make_problem({{{1, 1}}, {{1, 1}, {std::nan(""), 2}}}, 9), search_input),
                 "group 1, candidate 1: score is nan"));
  CHECK(contains(message_of(make_problem({{{inf, 1}}}, 9), search_input), "group 0, candidate 0: score is inf"));
  CHECK(contains(message_of(make_problem({{{1, 1}, {1, -4}}}, 9), search_input), "group 0, candidate 1: cost is -4"));
  CHECK(contains(message_of(make_problem({{{1, 1}}, {}}, 9), search_input), "group 1 has no candidates"));
  std::int64_t const most = std::numeric_limits<std::int64_t>::max();
  CHECK(contains(message_of(make_problem({{{1, 1}}, {{1, 1}, {0, most}}}, 9), search_input),
                 "group 1, candidate 1: cost 9223372036854775807 makes the sum of costs overflow"));
  CHECK(contains(message_of(make_problem({{{1.5e308, 1}}, {{1.5e308, 1}}}, 9), search_input), "overflows a double"));
  std::string const tight = message_of(make_problem({{{1, 3}, {0, 8}}, {{1, 40}, {0, 50}, {0, 60}}}, 42),
                                       search_infeasible);
  CHECK(contains(tight, "budget of 42 bits"));
  CHECK(contains(tight, "from 43 to 58 bits"));
  CHECK(contains(tight, "group 1 alone needs 40"));
  CHECK(contains(message_of(problem{{}, {}, -1}, search_infeasible), "budget of -1"));
  CHECK(contains(message_of(problem{{{1, 1}}, {2}, 5}, search_input), "end at candidate 2 of 1"));
  CHECK(contains(message_of(problem{{{1, 1}, {2, 2}}, {200000, 2}, 5}, search_input),
                 "group 0 ends at candidate 200000 of 2"));
  CHECK(contains(message_of(problem{{{1, 1}}, {}, 5}, search_input), "end at candidate 0 of 1"));
  CHECK(contains(message_of(make_problem({{{1, 1}}}, 5), search_input, {0, 0}), "limits of 0 states"));
  CHECK(contains(message_of(make_problem({{{1, 1}}}, 5), search_input, {9, -1}), "-1 seconds"));
}

TEST_CASE("solver: reachable costs") {
  solver::range const costs = solver::reachable(make_problem({{{1, 3}, {0, 8}, {5, 99}}, {{1, 40}, {0, 50}}}, 0));
  CHECK(costs.minimum == 43);
  CHECK(costs.maximum_useful == 58);
  CHECK(costs.largest_group == 1);
  CHECK(costs.largest_minimum == 40);
}

TEST_CASE("solver: a limit on states returns a feasible choice and a bound that holds") {
  int limited = 0;
  for (std::string const& family : solver_families::names()) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      problem const input = solver_families::make(family, 40, 6, 5000, 0.4, seed);
      solution const proved = solver::solve(input);
      REQUIRE(proved.optimal);
      for (std::size_t const states : {1, 2, 16, 300}) {
        CAPTURE(family);
        CAPTURE(seed);
        CAPTURE(states);
        solution const got = solver::solve(input, {states, 0});
        CHECK(got.cost <= input.budget);
        CHECK(got.score >= proved.score);
        CHECK(got.bound <= proved.score);
        CHECK(got.gap == got.score - got.bound);
        CHECK(got.optimal == (got.gap == 0));
        limited += got.optimal ? 0 : 1;
      }
    }
  }
  CHECK(limited > 20);
}

TEST_CASE("solver: hard instances stay within their limits and say their gap") {
  for (char const* const family : {"weakly_correlated", "strongly_correlated", "subset_sum"}) {
    problem const input = solver_families::make(family, 400, 8, 1'000'000'000, 0.4, 5);
    solution const got = solver::solve(input, {4096, 0});
    CAPTURE(family);
    CHECK(got.cost <= input.budget);
    CHECK(got.bound <= got.score);
    CHECK(got.gap <= 1e-6 * std::abs(got.score));
    CHECK_FALSE(got.optimal);
  }
}

TEST_CASE("solver: a time limit ends the search") {
  problem const input = solver_families::make("strongly_correlated", 2000, 8, 1'000'000'000, 0.4, 5);
  auto const start = std::chrono::steady_clock::now();
  solution const got = solver::solve(input, {std::size_t{1} << 20, 0.02});
  CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < 5);
  CHECK_FALSE(got.optimal);
  CHECK(got.gap > 0);
  CHECK(got.cost <= input.budget);
}

TEST_CASE("solver: large instances of the kind the library meets are proved") {
  problem const input = solver_families::make("llm", 10'000, 8, 0, 0.4, 1);
  solution const got = solver::solve(input);
  CHECK(got.optimal);
  CHECK(got.cost <= input.budget);
  CHECK(got.choice.size() == 10'000);
}
