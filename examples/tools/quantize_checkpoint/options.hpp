// The command line of quantize_checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/budget.hpp"
#include "mixbit/io/safetensors_shards.hpp"

namespace quantize_checkpoint {

extern char const* const usage_text;

struct options {
  bool help = false, dry_run = false;
  std::string model, out, to = "modelopt";
  std::string preset, config, plan;                 ///< one of these,
  std::optional<mixbit::effective_bits> target;     ///< or this with
  std::vector<std::string> formats;
  std::string activations;
  int threads = 0;  ///< 0: one a core
  std::int64_t memory = std::int64_t{1} << 30;
  std::int64_t shard_bytes = mixbit::default_shard_bytes;  ///< no option sets it: tests do
};

/// Throws mixbit::error (usage) for what is unknown, missing, repeated, malformed or contradicting.
options parse_options(int count, char const* const* arguments);

}  // namespace quantize_checkpoint
