// What both tables of bench_budgets search with and measure by: byte_lm's score windows.
#pragma once

#include "byte_lm/divergence.hpp"
#include "byte_lm/search_steps.hpp"
#include "golden_suites/lm_model.hpp"

namespace bench {

using lm_search = mixbit::search<byte_lm::backend>;

inline mixbit::search_steps score_window_steps(golden::lm_model& lm) {
  int const count = static_cast<int>(lm.score.size());
  return byte_lm::search_steps(lm.host, lm.score, count, lm.score, count);
}

inline byte_lm::divergence_since divergence_from_here(golden::lm_model& lm) {
  return {lm.host, lm.score, static_cast<int>(lm.score.size())};
}

}  // namespace bench
