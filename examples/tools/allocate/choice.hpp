// The choice of formats: budgets of bits and time over the statistics, solved exactly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "options.hpp"
#include "statistics.hpp"

namespace allocate {

struct budgets {
  std::optional<std::int64_t> cost;  ///< in statistics::units to a bit
  std::optional<std::int64_t> nanoseconds;
  std::string cost_from = "size";  ///< for messages: the option that the cost comes from, with its value
};

struct choice {
  std::vector<int> of_group;  ///< index into its candidates
  std::int64_t cost = 0, nanoseconds = 0;
  double score = 0, bound = 0, gap = 0;
  double largest = 0, largest_bound = 0;  ///< of one group's score; the bound with --minimax alone
  bool optimal = false;
};

/// The smaller of --effective-bits and --max-bytes, in whole units of cost.
std::optional<std::int64_t> cost_budget(options const& o, statistics const& stats);

/// Which of them that is: "--effective-bits 4.5".
std::string cost_option(options const& o, statistics const& stats);

/// Throws search_infeasible naming the budget, the options that set it, and the group that makes it so.
choice choose(statistics const& stats, budgets const& given, bool minimax, solver_limits const& limit = {});

}  // namespace allocate
