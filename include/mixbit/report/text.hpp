// Numbers and names as reports write them, whatever locale the program has set.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
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
  return std::string{without_recipe_suffix(g.name)};
}

inline char const* score_text(std::string_view method) {
  return method == "kl_div"        ? "Σ over scoring steps of KL(p_unquantized || p_recipe), one group quantized"
         : method == "degradation" ? "Σ over scoring steps of the metric with one group quantized, less without"
                                   : "Σ over scoring steps of (∂L/∂y · Δy)²";
}

/// "1.234e-05 ± 2.100e-07"; without an error where there are too few steps for one.
inline std::string scored(candidate_stat const& c) {
  double const e = c.standard_error();
  return scientific(c.score) + (std::isfinite(e) ? " ± " + scientific(e) : "");
}

/// A cost of an allocation, which counts in 1/unit bits, in bits.
inline std::string bits_text(std::int64_t cost, std::int64_t unit) {
  return unit == 1 ? std::to_string(cost) : decimals(static_cast<double>(cost) / static_cast<double>(unit), 2);
}

inline void add_item(std::string& list, std::string const& item) { list += (list.empty() ? "" : ", ") + item; }

/// What a choice was to keep to: "6 effective bits, 9000 bytes, 12.5 microseconds".
inline std::string asked_text(allocation const& a) {
  std::string text;
  if (a.asked.target.given() || !a.asked.any()) add_item(text, concat(a.target_bits, " effective bits"));
  if (a.asked.max_bytes) add_item(text, std::to_string(*a.asked.max_bytes) + " bytes");
  if (a.asked.max_nanoseconds) add_item(text, shown_microseconds(*a.asked.max_nanoseconds) + " microseconds");
  return text;
}

/// What it takes where that was limited, behind `before`: "8000 bytes, 12.25 microseconds"; else nothing.
inline std::string taken_text(allocation const& a, char const* before) {
  std::string text;
  if (a.asked.max_bytes) add_item(text, shown_bytes(a.stored_bits) + " bytes");
  if (a.asked.max_nanoseconds) add_item(text, shown_microseconds(a.nanoseconds) + " microseconds");
  return text.empty() ? text : before + text;
}

}  // namespace detail
}  // namespace mixbit
