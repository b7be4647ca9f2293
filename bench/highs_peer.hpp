// HiGHS beside which bench_solver times itself: bench/peers/highs.py, one process an instance, which times the solver
// alone.
#pragma once

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <unistd.h>

#include "mixbit/autoquant/solver.hpp"
#include "python_peer.hpp"

namespace bench {

class highs_peer {
 public:
  struct result {
    double milliseconds;
    double score;
    bool optimal;  // by its own account
  };

  bool is_there() const noexcept { return is_there_; }

  std::optional<result> solve(mixbit::solver::problem const& problem) {
    auto const file = std::filesystem::temp_directory_path() / ("mixbit-highs-" + std::to_string(::getpid()));
    {
      std::ofstream out{file};
      out.precision(17);
      out << problem.budget << '\n';
      for (std::size_t g = 0; g < problem.groups(); ++g) {
        for (auto const& one : problem.group(g)) out << one.score << ' ' << one.cost << ' ';
        out << '\n';
      }
    }
    std::string const answer = last_line_of("highs.py", file.string());
    std::filesystem::remove(file);
    result found{};
    int optimal = 0;
    if (std::sscanf(answer.c_str(), "%lf %lf %d", &found.milliseconds, &found.score, &optimal) != 3) {
      std::fprintf(stderr, "skipped: HiGHS: %s\n", answer.c_str());
      return std::nullopt;
    }
    found.optimal = optimal != 0;
    return found;
  }

 private:
  bool is_there_ = is_peer_there("HiGHS", "highs.py");
};

}  // namespace bench
