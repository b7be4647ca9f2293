// bench_solver [--json] [--quick]: how long the exact solvers take, by family and size.
//
// Times are medians of 21 runs of the whole call, checks and all; where a run took longer than a second, of three
// (`rounds` says how many). `solve` is one budget, `frontier` every budget, `budgets` two or three at once, `minimax`
// the least bad worst group. Where python3 has HiGHS (PyPI's highspy), it solves the same instances of one budget in
// the same run, with a gap of 0 asked for. --quick leaves out the large and slow ones. JSON: one object a line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "../tests/support/solver_families.hpp"
#include "highs_peer.hpp"
#include "mixbit/autoquant/solver_frontier.hpp"
#include "mixbit/autoquant/solver_minimax.hpp"

namespace {

struct instance {
  std::string family;
  std::size_t groups;
  std::size_t candidates;
  std::int64_t scale;  // of costs; llm has its own
};

struct figure {
  char const* kind;
  double milliseconds;
  int rounds;
  double score, gap;
  bool optimal;
  std::size_t states;  // of a frontier its points
};

/// Runs `call`, which fills in what it found, and takes the median of the times.
template <class Call>
figure timed(char const* kind, Call const& call) {
  using clock = std::chrono::steady_clock;
  figure result{kind, 0, 0, 0, 0, false, 0};
  std::vector<double> times;
  for (int wanted = 21; static_cast<int>(times.size()) < wanted;) {
    auto const start = clock::now();
    call(result);
    times.push_back(std::chrono::duration<double, std::milli>(clock::now() - start).count());
    if (times.back() > 1000) wanted = 3;
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  result.milliseconds = times[times.size() / 2];
  result.rounds = static_cast<int>(times.size());
  return result;
}

void fill(figure& into, auto const& best) {
  into.score = best.score;
  into.gap = best.gap;
  into.optimal = best.optimal;
  into.states = best.states;
}

void print(instance const& one, figure const& got, bool json) {
  char const* const format =
      json ? "{\"kind\": \"%s\", \"family\": \"%s\", \"groups\": %zu, \"candidates\": %zu, \"scale\": %lld, "
             "\"ms\": %.4f, \"rounds\": %d, \"score\": %.17g, \"gap\": %.17g, \"optimal\": %s, \"states\": %zu}\n"
           : "%-9s %-20s %7zu x %zu  scale %10lld  %10.3f ms (%d)  score %-12.6g gap %-8.3g %-5s  %zu\n";
  std::printf(format, got.kind, one.family.c_str(), one.groups, one.candidates, static_cast<long long>(one.scale),
              got.milliseconds, got.rounds, got.score, got.gap, got.optimal ? "true" : "false", got.states);
  std::fflush(stdout);
}

std::vector<instance> instances(bool quick) {
  std::vector<instance> all{{"llm", 300, 4, 0}, {"llm", 1000, 8, 0}, {"llm", 10'000, 8, 0}};
  if (!quick) all.push_back({"llm", 100'000, 8, 0});
  for (std::string const& family : solver_families::names()) {
    if (family == "llm") continue;
    all.push_back({family, 100, 8, 1'000});
    if (quick) continue;
    all.push_back({family, 100, 8, 1'000'000'000});
    for (std::size_t const groups : {1'000, 10'000, 100'000}) all.push_back({family, groups, 8, 100'000});
  }
  return all;
}

void solve_all(bool quick, bool json) {
  bench::highs_peer highs;
  for (instance const& one : instances(quick)) {
    auto const problem = solver_families::make(one.family, one.groups, one.candidates, one.scale, 0.4, one.groups);
    print(one, timed("solve", [&](figure& f) { fill(f, mixbit::solver::solve(problem)); }), json);
    if (one.groups > (one.family == "llm" && !quick ? 10'000 : 1'000) || !highs.is_there()) continue;
    if (auto const peer = highs.solve(problem))
      print(one, {"HiGHS", peer->milliseconds, 1, peer->score, 0, peer->optimal, 0}, json);
  }
}

/// All budgets: `modelopt` costs are exact by table; exact bits, here with scales of arbitrary size, by lists.
void frontiers(bool quick, bool json) {
  using namespace mixbit::solver;
  for (std::size_t const groups : quick ? std::vector<std::size_t>{300} : std::vector<std::size_t>{300, 1'000}) {
    problem input = solver_families::modelopt(groups, 1);
    auto const run = [&](figure& f) {
      auto const all = frontier(input);
      f.gap = all.gap();
      f.optimal = all.exact();
      f.states = all.points().size();
      f.score = all.points().front().score;
    };
    print({"modelopt", groups, 8, 0}, timed("frontier", run), json);
    solver_families::generator random{2};
    for (candidate& one : input.candidates) one.cost += random.integer(0, 100'000);
    print({"exact_bits", groups, 8, 0}, timed("frontier", run), json);
  }
}

void several(bool quick, bool json) {
  using namespace mixbit::solver;
  std::vector<std::size_t> sizes{100, 300};
  if (!quick) sizes.insert(sizes.end(), {1'000, 10'000});
  for (std::size_t const groups : sizes) {
    auto const from = solver_families::make("llm", groups, 8, 0, 0.4, groups);
    for (std::size_t const count : {2, 3}) {
      auto const input = solver_families::with_budgets(from, count, 0.4, 3);
      std::string const family = "llm, " + std::to_string(count) + " budgets";
      print({family, groups, 8, 0}, timed("budgets", [&](figure& f) { fill(f, solve(input)); }), json);
      print({family, groups, 8, 0}, timed("minimax", [&](figure& f) {
              auto const best = minimax(input);
              fill(f, best.sum);
              f.score = best.largest;
              f.gap = best.largest - best.largest_bound;
              f.optimal = best.optimal;
            }), json);
    }
  }
  for (char const* const family : {"weakly_correlated", "strongly_correlated", "subset_sum", "concave"}) {
    auto const from = solver_families::make(family, 100, 8, 1'000, 0.4, 1);
    auto const input = solver_families::with_budgets(from, 2, 0.4, 3);
    print({family, 100, 8, 1'000}, timed("budgets", [&](figure& f) { fill(f, solve(input)); }), json);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  bool json = false;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view const option{argv[i]};
    if (option == "--help" && argc == 2) {
      std::puts("bench_solver [--json] [--quick]\n  --json   one JSON object a line\n  --quick  small instances only");
      return 0;
    }
    bool* const flag = option == "--json" ? &json : option == "--quick" ? &quick : nullptr;
    if (flag == nullptr || *flag) {
      std::fprintf(stderr, "bench_solver: '%s' is %s; bench_solver [--json] [--quick]\n", argv[i],
                   flag == nullptr ? "an unknown option" : "given twice");
      return 2;
    }
    *flag = true;
  }
  solve_all(quick, json);
  frontiers(quick, json);
  several(quick, json);
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "bench_solver: %s\n", problem.what());
  return 2;
}
