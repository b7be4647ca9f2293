// The command line of conformance.
#pragma once

#include <optional>
#include <string>

#include "mixbit/core/format.hpp"

namespace conformance {

extern char const* const usage_text;

struct options {
  bool help = false;
  std::string format, quantizer = "weight_quantizer";
  std::string input, output, codes, scales, tensor_scale, amax, tensor_amax;
  std::optional<int> axis, block;
  std::optional<mixbit::policy> policy;
  std::optional<mixbit::scale_rule> mx;
  std::optional<mixbit::packing> layout;
  std::optional<mixbit::dtype> scale_type;
  mixbit::dtype type = mixbit::dtype::f32;  ///< of vectors
  std::string json, vectors;
};

/// Throws mixbit::error (usage) for what is unknown, missing, repeated, malformed or contradicting.
options parse_options(int count, char const* const* arguments);

}  // namespace conformance
