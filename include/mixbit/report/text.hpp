// Numbers and names as reports write them, whatever locale the program has set.
#pragma once

#include <charconv>
#include <string>
#include <string_view>

#include "mixbit/autoquant/candidate_stats.hpp"

namespace mixbit {

/// Losses measured before and after, where the host measured them.
struct measured_loss {
  double unquantized = 0, quantized = 0;
};

namespace detail {

inline std::string written(double value, std::chars_format how, int places) {
  char digits[350];  // the largest double has 309 digits before the point
  return {digits, std::to_chars(digits, digits + sizeof digits, value, how, places).ptr};
}
inline std::string scientific(double value) { return written(value, std::chars_format::scientific, 3); }
inline std::string decimals(double value, int places) { return written(value, std::chars_format::fixed, places); }

inline std::string group_name(group_stats const& g) {
  constexpr std::string_view suffix = ".quant_recipe";
  return g.name.ends_with(suffix) ? g.name.substr(0, g.name.size() - suffix.size()) : g.name;
}

inline char const* score_text(std::string_view method) {
  return method == "kl_div"        ? "Σ over scoring steps of KL(p_unquantized || p_recipe), one group quantized"
         : method == "degradation" ? "Σ over scoring steps of the metric with one group quantized, less without"
                                   : "Σ over scoring steps of (∂L/∂y · Δy)²";
}

/// A cost of an allocation, which counts in 1/unit bits, in bits.
inline std::string bits_text(std::int64_t cost, std::int64_t unit) {
  return unit == 1 ? std::to_string(cost) : decimals(static_cast<double>(cost) / static_cast<double>(unit), 2);
}

}  // namespace detail
}  // namespace mixbit
