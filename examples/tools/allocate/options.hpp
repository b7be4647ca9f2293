// The command line of allocate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "mixbit/autoquant/budget.hpp"

namespace allocate {

extern char const* const usage_text;

/// What solving may take, of each the choice and the frontier. Where it ends a search the gap is said.
struct solver_limits {
  double seconds = 0;                     ///< 0: no limit
  std::optional<std::int64_t> memory = {};  ///< bytes; none: what the solvers' own limits are
};

struct options {
  bool help = false;
  std::string stats;
  std::optional<mixbit::effective_bits> target;
  std::optional<std::int64_t> max_bytes;
  std::string latency;
  bool minimax = false, raw_scores = false;
  std::string pareto, out;
  std::size_t pareto_points = 1000;                    ///< at most as many are written
  std::optional<std::pair<double, double>> pareto_range;  ///< of effective bits
  solver_limits limit;
};

/// Throws mixbit::error (usage) for what is unknown, missing, repeated or malformed.
options parse_options(int count, char const* const* arguments);

}  // namespace allocate
