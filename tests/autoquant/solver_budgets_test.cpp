#include "mixbit/autoquant/solver_budgets.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "mixbit/autoquant/solver_minimax.hpp"
#include "support/error_text.hpp"
#include "support/solver_families.hpp"

namespace {

namespace solver = mixbit::solver;
using solver::budgets_problem;
using solver::budgets_solution;
using mixbit::test::error_text;
using mixbit::test::says;
using solver_families::generator;

/// The best of all choices: by sum and by largest score, then sum. Sums must be exact in doubles.
struct best_choices {
  bool feasible = false;
  double sum = 0;
  double largest = 0, sum_of_largest = 0;
};

best_choices brute_force(budgets_problem const& input) {
  best_choices best;
  std::vector<std::size_t> at(input.groups());
  for (std::size_t g = 0; g < at.size(); ++g) at[g] = input.begin(g);
  while (true) {
    double sum = 0, largest = -HUGE_VAL;
    std::vector<std::int64_t> left = input.budgets;
    for (std::size_t const i : at) {
      sum += input.scores[i];
      largest = std::max(largest, input.scores[i]);
      for (std::size_t d = 0; d < left.size(); ++d) left[d] -= input.cost(i, d);
    }
    if (std::all_of(left.begin(), left.end(), [](std::int64_t l) { return l >= 0; })) {
      if (!best.feasible || sum < best.sum) best.sum = sum;
      if (!best.feasible || largest < best.largest || (largest == best.largest && sum < best.sum_of_largest)) {
        best.largest = largest;
        best.sum_of_largest = sum;
      }
      best.feasible = true;
    }
    std::size_t g = 0;
    while (g < at.size() && ++at[g] == input.ends[g]) {
      at[g] = input.begin(g);
      ++g;
    }
    if (g == at.size()) return best;
  }
}

budgets_problem small_instance(generator& random, std::size_t count) {
  budgets_problem result{std::vector<std::int64_t>(count)};
  std::vector<std::int64_t> low(count), high(count);
  bool const opposed = random.integer(0, 1) == 0;  // what is cheap in one is dear in the other
  int const digits = random.integer(0, 1) == 0 ? 2 : 30;
  for (auto groups = random.integer(1, 6); groups > 0; --groups) {
    std::vector<std::int64_t> least(count, 1000), most(count, 0);
    for (auto candidates = random.integer(1, 4); candidates > 0; --candidates) {
      std::vector<std::int64_t> costs;
      for (std::size_t d = 0; d < count; ++d) {
        costs.push_back(opposed && d == 1 ? 40 - costs[0] + random.integer(0, 5) : random.integer(0, 40));
        least[d] = std::min(least[d], costs[d]);
        most[d] = std::max(most[d], costs[d]);
      }
      auto const limit = std::int64_t{1} << digits;
      result.add_candidate(std::ldexp(static_cast<double>(random.integer(-limit / 4, limit)), -digits), costs);
    }
    result.end_group();
    for (std::size_t d = 0; d < count; ++d) {
      low[d] += least[d];
      high[d] += most[d];
    }
  }
  for (std::size_t d = 0; d < count; ++d) result.budgets[d] = low[d] + (high[d] - low[d]) * random.integer(-1, 20) / 20;
  return result;
}

void check_choice(budgets_problem const& input, budgets_solution const& got) {
  REQUIRE(got.choice.size() == input.groups());
  solver::detail::exact_sum sum;
  std::vector<std::int64_t> costs(input.budgets.size());
  for (std::size_t g = 0; g < input.groups(); ++g) {
    std::size_t const i = input.begin(g) + static_cast<std::size_t>(got.choice[g]);
    REQUIRE(i < input.ends[g]);
    sum.add(input.scores[i]);
    for (std::size_t d = 0; d < costs.size(); ++d) costs[d] += input.cost(i, d);
  }
  REQUIRE(got.costs == costs);
  REQUIRE(got.score == sum.rounded());
  for (std::size_t d = 0; d < costs.size(); ++d) REQUIRE(costs[d] <= input.budgets[d]);
}

TEST_CASE("budgets: a problem of very many groups that fits exactly is not taken for one that cannot be met") {
  for (auto const& [score, costs] : {std::pair{0.1, std::array<std::int64_t, 2>{3, 7}}, {1.0 / 3, {1, 2}}}) {
    budgets_problem many{{100'000 * costs[0], 100'000 * costs[0]}};
    for (int g = 0; g < 100'000; ++g) {
      many.add_candidate(score, {costs[0], costs[0]});
      many.add_candidate(0, {costs[1], costs[1]});
      many.end_group();
    }
    auto const best = solve(many, {1024, 0});
    CHECK(best.costs == many.budgets);
    CHECK(best.bound <= best.score);
  }
}

TEST_CASE("minimax: without a limit on costs a group still needs a candidate below the level") {
  budgets_problem two{{std::numeric_limits<std::int64_t>::max()}};
  two.add_candidate(1, {0});
  two.end_group();
  two.add_candidate(2, {7});
  two.end_group();
  auto const best = minimax(two);
  CHECK(best.largest == 2);
  CHECK(best.optimal);
}

}  // namespace

TEST_CASE("budgets: equal brute force on small instances, feasible or not; minimax as well") {
  generator random{21};
  int infeasible = 0, feasible = 0;
  for (int round = 0; round < 6000; ++round) {
    CAPTURE(round);
    auto const input = small_instance(random, 1 + static_cast<std::size_t>(round % 4));
    auto const expected = brute_force(input);
    if (!expected.feasible) {
      ++infeasible;
      CHECK_THROWS_AS(solver::solve(input), mixbit::error);
      CHECK_THROWS_AS(solver::minimax(input), mixbit::error);
      continue;
    }
    ++feasible;
    auto const got = solver::solve(input);
    check_choice(input, got);
    REQUIRE(got.score == expected.sum);
    REQUIRE(got.optimal);
    REQUIRE(got.gap == 0);
    auto const fair = solver::minimax(input);
    check_choice(input, fair.sum);
    REQUIRE(fair.largest == expected.largest);
    REQUIRE(fair.largest_bound == expected.largest);
    REQUIRE(fair.sum.score == expected.sum_of_largest);
    REQUIRE(fair.optimal);
  }
  CHECK(infeasible > 500);
  CHECK(feasible > 2000);
}

TEST_CASE("budgets: every family is proved, the same for scores times powers of two") {
  for (std::string const& family : solver_families::names()) {
    for (std::size_t const count : {2, 3}) {
      CAPTURE(family);
      CAPTURE(count);
      auto const from = solver_families::make(family, 12, 5, 100, 0.4, count);
      auto const input = solver_families::with_budgets(from, count, 0.5, 7);
      auto const got = solver::solve(input);
      check_choice(input, got);
      CHECK(got.optimal);
      for (int const k : {-700, -40, 13, 40, 700}) {
        auto scaled = input;
        for (double& score : scaled.scores) score = std::ldexp(score, k);
        auto const again = solver::solve(scaled);
        CHECK(again.choice == got.choice);
        CHECK(again.score == std::ldexp(got.score, k));
        CHECK(again.optimal);
      }
    }
  }
}

TEST_CASE("budgets: one that cannot bind changes nothing, and one that does costs no less") {
  auto const one = solver_families::make("llm", 60, 6, 0, 0.4, 2);
  auto const alone = solver::solve(one);
  budgets_problem both{{one.budget, std::int64_t{1} << 60}};
  for (std::size_t g = 0; g < one.groups(); ++g) {
    for (auto const& c : one.group(g)) both.add_candidate(c.score, {c.cost, c.cost / 3});
    both.end_group();
  }
  CHECK(solver::solve(both).choice == alone.choice);
  both.budgets[1] = alone.cost / 3 - alone.cost / 400;
  auto const tighter = solver::solve(both);
  check_choice(both, tighter);
  CHECK(tighter.score > alone.score);
  CHECK(tighter.optimal);
}

TEST_CASE("budgets: limits return a choice that fits and a bound that holds") {
  int limited = 0;
  for (std::string const& family : solver_families::names()) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      auto const from = solver_families::make(family, 14, 5, 2000, 0.4, seed);
      auto const input = solver_families::with_budgets(from, 2, 0.45, seed);
      auto const proved = solver::solve(input);
      REQUIRE(proved.optimal);
      for (std::size_t const states : {1, 4, 40}) {
        CAPTURE(family);
        CAPTURE(states);
        budgets_solution got;
        try {
          got = solver::solve(input, {states, 0});
        } catch (mixbit::error const& problem) {
          CHECK(says(problem.what(), "is not known, and more memory or time may tell"));
          continue;
        }
        check_choice(input, got);
        CHECK(got.score >= proved.score);
        CHECK(got.bound <= proved.score);
        CHECK(got.gap == got.score - got.bound);
        limited += got.optimal ? 0 : 1;
      }
    }
  }
  CHECK(limited > 20);
}

TEST_CASE("budgets: what cannot be met is explained by budget and group") {
  using enum mixbit::error_id;
  budgets_problem input{{50, 9}};
  input.add_candidate(1, {30, 1});
  input.add_candidate(2, {3, 4});
  input.end_group();
  input.add_candidate(0.5, {40, 2});
  input.add_candidate(2, {10, 7});
  input.end_group();
  CHECK(solver::solve(input).choice == std::vector<int>{1, 0});
  auto tight = input;
  tight.budgets[1] = 2;
  CHECK(says(error_text(search_infeasible, [&] { solver::solve(tight); }),
             "budget 1 of 2 cannot be met: 3 is the least that can be reached, and group 1 alone needs 2"));
  CHECK(says(error_text(search_infeasible, [&] { solver::minimax(tight); }), "budget 1 of 2"));
  auto together = input;
  together.budgets = {14, 7};
  CHECK(says(error_text(search_infeasible, [&] { solver::solve(together); }),
             "budgets 0 and 1 can be met each alone but not together; group 1 has no candidate"));
  CHECK(says(error_text(search_input, [&] { solver::solve(budgets_problem{{}}); }), "0 budgets; 1 to 4"));
  auto short_of = input;
  short_of.costs.pop_back();
  CHECK(says(error_text(search_input, [&] { solver::solve(short_of); }), "7 costs for 4 candidates and 2"));
  input.costs[5] = -1;
  CHECK(says(error_text(search_input, [&] { solver::solve(input); }), "group 1, candidate 0: cost is -1"));
}

TEST_CASE("minimax: a limit in seconds is for the whole call, and what it leaves open is said") {
  int open = 0;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    auto const from = solver_families::make("llm", 60, 6, 0, 0.4, seed);
    auto const input = solver_families::with_budgets(from, 3, 0.4, seed);
    auto const whole = solver::minimax(input);
    REQUIRE(whole.optimal);
    for (double const seconds : {1e-9, 1e-3, 2e-3, 100.0}) {
      CAPTURE(seed);
      CAPTURE(seconds);
      solver::minimax_solution got;
      try {
        got = solver::minimax(input, {std::size_t{1} << 18, seconds});
      } catch (mixbit::error const& e) {  // nothing was found in no time
        CHECK(seconds < 1);
        CHECK(e.id() == mixbit::error_id::search_infeasible);
        continue;
      }
      check_choice(input, got.sum);
      CHECK(got.largest >= whole.largest);
      CHECK(got.largest_bound <= whole.largest);
      CHECK(got.optimal == (got.sum.optimal && got.largest == got.largest_bound));
      CHECK(got.sum.bound <= got.sum.score);
      if (got.largest == whole.largest) CHECK(got.sum.bound <= whole.sum.score);
      if (seconds > 1) CHECK(got.optimal);
      open += got.optimal ? 0 : 1;
    }
  }
  CHECK(open > 0);
}

TEST_CASE("minimax: the choice that was found stands where there is no time for the least sum") {
  budgets_problem input{{10, 10}};
  for (int g = 0; g < 2; ++g) {
    input.add_candidate(3, {1, 6});
    input.add_candidate(2, {6, 1});
    input.end_group();
  }
  budgets_solution found;
  found.choice = {0, 1};
  found.score = 5;
  auto impossible = input;
  impossible.budgets = {2, 2};
  auto const kept = solver::detail::least_sum(impossible, solver::budgets_limits, found);
  CHECK(kept.choice == found.choice);
  CHECK(kept.bound == 4);
  CHECK(kept.gap == 1);
  CHECK_FALSE(kept.optimal);
  CHECK_THROWS_AS(solver::detail::least_sum(impossible, solver::budgets_limits, {}), mixbit::error);
}

TEST_CASE("minimax: large instances under one budget, and the tie goes to the least sum") {
  auto const one = solver_families::make("llm", 3000, 8, 0, 0.4, 3);
  budgets_problem input{{one.budget}};
  for (std::size_t g = 0; g < one.groups(); ++g) {
    for (auto const& c : one.group(g)) input.add_candidate(c.score, {c.cost});
    input.end_group();
  }
  auto const fair = solver::minimax(input);
  check_choice(input, fair.sum);
  CHECK(fair.optimal);
  auto const sum = solver::solve(input);
  double largest = 0;
  for (std::size_t g = 0; g < one.groups(); ++g)
    largest = std::max(largest, one.group(g)[static_cast<std::size_t>(sum.choice[g])].score);
  CHECK(fair.largest <= largest);
  CHECK(fair.sum.score >= sum.score);
}
