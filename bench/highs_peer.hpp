// HiGHS beside which bench_solver times itself: bench/peers/highs.py, one process an instance, which times the solver
// alone.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <unistd.h>

#include "mixbit/autoquant/solver.hpp"

namespace bench {

class highs_peer {
 public:
  struct result {
    double milliseconds;
    double score;
    bool optimal;  // by its own account
  };

  /// Asks python3 (or MIXBIT_PYTHON) for HiGHS; where it is not there, `skipped: HiGHS: WHY` says so on stderr.
  highs_peer() {
    std::string const answer = run("");
    is_there_ = answer == "ready";
    if (!is_there_)
      std::fprintf(stderr, "skipped: HiGHS: %s\n", answer.empty() ? "python3 cannot be run" : answer.c_str());
  }

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
    std::string const answer = run(file.string());
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
  /// The script's last line.
  static std::string run(std::string const& file) {
    char const* const chosen = std::getenv("MIXBIT_PYTHON");
    std::string const python = chosen ? chosen : "python3";
    std::string const command = "'" + python + "' '" MIXBIT_BENCH_DIR "/peers/highs.py' '" +
                                file + "' 2>/dev/null";
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return "";
    std::string last;
    for (char text[512]; std::fgets(text, sizeof text, pipe);) last = text;
    ::pclose(pipe);
    while (!last.empty() && last.back() == '\n') last.pop_back();
    return last;
  }

  bool is_there_ = false;
};

}  // namespace bench
