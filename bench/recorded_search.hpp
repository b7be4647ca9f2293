// The search that tests/golden/lm_autoquant.json records first, as ModelOpt ran it on byte_lm.
#pragma once

#include "mixbit/autoquant/search_options.hpp"
#include "mixbit/config/presets.hpp"

namespace bench {

inline mixbit::search_options recorded_search() {
  mixbit::search_options o;
  for (char const* f : {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG"})
    o.formats.push_back(mixbit::preset(f));
  o.target = 4.8;
  o.cost = mixbit::cost_model::modelopt;
  return o;
}

}  // namespace bench
