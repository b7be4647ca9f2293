// bench_solver [--json] [--quick]: how long the exact solver takes, by family and size.
//
// Times are medians of 21 runs of the whole of solve(), checks and all; where a run took longer than a second, of
// three (`rounds` says how many). --quick leaves out the large and slow ones. JSON: one object a line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "../tests/support/solver_families.hpp"

namespace {

struct instance {
  std::string family;
  std::size_t groups;
  std::size_t candidates;
  std::int64_t scale;  // of costs; llm has its own
};

struct figure {
  double milliseconds;
  int rounds;
  mixbit::solver::solution best;
};

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

figure measure(instance const& one) {
  using clock = std::chrono::steady_clock;
  auto const problem = solver_families::make(one.family, one.groups, one.candidates, one.scale, 0.4, one.groups);
  figure result{};
  std::vector<double> times;
  for (int wanted = 21; static_cast<int>(times.size()) < wanted;) {
    auto const start = clock::now();
    result.best = mixbit::solver::solve(problem);
    times.push_back(std::chrono::duration<double, std::milli>(clock::now() - start).count());
    if (times.back() > 1000) wanted = 3;
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  result.milliseconds = times[times.size() / 2];
  result.rounds = static_cast<int>(times.size());
  return result;
}

void print(instance const& one, figure const& got, bool json) {
  char const* const format =
      json ? "{\"family\": \"%s\", \"groups\": %zu, \"candidates\": %zu, \"scale\": %lld, \"ms\": %.4f, "
             "\"rounds\": %d, \"score\": %.17g, \"gap\": %.17g, \"optimal\": %s, \"states\": %zu}\n"
           : "%-20s %7zu x %zu  scale %10lld  %10.3f ms (%d)  score %-12.6g gap %-8.3g %-5s  %zu states\n";
  std::printf(format, one.family.c_str(), one.groups, one.candidates, static_cast<long long>(one.scale),
              got.milliseconds, got.rounds, got.best.score, got.best.gap, got.best.optimal ? "true" : "false",
              got.best.states);
  std::fflush(stdout);
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
  for (instance const& one : instances(quick)) print(one, measure(one), json);
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "bench_solver: %s\n", problem.what());
  return 2;
}
