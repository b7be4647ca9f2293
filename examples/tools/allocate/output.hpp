// What allocate prints and writes.
#pragma once

#include <string>

#include "choice.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace allocate {

/// A line a group, and the totals with their proof.
std::string table_of(statistics const& stats, budgets const& given, choice const& c, bool minimax);

/// The plan of a choice. Throws what keeps it from standing on its own, naming file, group and format.
mixbit::quantization_plan plan_of(statistics const& stats, options const& o, budgets const& given, choice const& c);

}  // namespace allocate
