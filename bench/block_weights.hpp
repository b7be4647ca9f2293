// Weights in so few bits that no preset has them: integers in blocks of 32, as W4A16 has them in 4.
#pragma once

#include <string>

#include "mixbit/config/presets.hpp"

namespace bench {

/// INT_bits weights in blocks of 32 under this algorithm, whatever else the preset of blocks says.
inline mixbit::quantize_config block_weights(int bits, mixbit::algorithm_config const& algorithm) {
  auto config = mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  config.name = "INT" + std::to_string(bits) + "_B32";
  for (auto& entry : config.entries)
    if (entry.cfg)
      for (auto& a : *entry.cfg) {
        a.num_bits = mixbit::bit_spec{bits};
        a.block_sizes->axes = {{-1, 32}};
      }
  config.algorithm = algorithm;
  return config;
}

}  // namespace bench
