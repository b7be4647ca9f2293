// The command line of digits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace digits {

extern char const* const usage_text;

struct options {
  bool help = false;
  std::string data, out;
  std::vector<std::string> formats{"INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG", "INT4_B16_WEIGHT_ONLY"};
  std::string effective_bits = "7.0";
  std::uint32_t seed = 1;
  int epochs = 10;
};

/// Throws mixbit::error (usage) for what is unknown, missing, repeated or malformed.
options parse_options(int count, char const* const* arguments);

}  // namespace digits
