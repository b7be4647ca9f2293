// What --pareto writes: the frontier of bits and score, or what of it the options ask for.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/solver_frontier.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace allocate {

/// Takes a part of a text, the first first. A whole frontier can be gigabytes.
using text_sink = std::function<void(std::string_view)>;

struct frontier {
  mixbit::solver::pareto_frontier all;
  std::vector<std::size_t> shown;  ///< of its points, rising
};

/// Throws search_infeasible where no point lies in --pareto-range.
frontier frontier_of(options const& o, statistics const& stats);

/// How many points of how many, and how far each may be from the best: a line for the table.
std::string frontier_summary(statistics const& stats, frontier const& f);

void write_csv(statistics const& stats, frontier const& f, text_sink const& to);
void write_json(statistics const& stats, frontier const& f, text_sink const& to);

}  // namespace allocate
