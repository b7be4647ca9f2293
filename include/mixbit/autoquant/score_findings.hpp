// What looks wrong about scores, and why it may be. A search by scores that are zero gives a layer the fewest bits,
// and one by scores that are not finite gives nothing; neither is worth believing unseen.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit {

namespace detail {

/// "steps 0, 3 and 5 others"
inline std::string steps_where(candidate_stat const& c, bool (*bad)(double)) {
  std::string text;
  int count = 0;
  for (std::size_t i = 0; i < c.by_step.size(); ++i)
    if (bad(c.by_step[i]) && ++count <= 3) text += (text.empty() ? "" : ", ") + std::to_string(i);
  if (count > 3) text += " and " + std::to_string(count - 3) + (count == 4 ? " other" : " others");
  return (count == 1 ? "step " : "steps ") + text;
}

inline bool is_nan(double s) { return std::isnan(s); }
inline bool is_infinite(double s) { return std::isinf(s); }

/// What NaN and infinite scores come from, by what is measured.
inline char const* why_nan(std::string_view method) {
  return method == "gradient" ? "the loss or its gradient is NaN there; look at those batches, and for a layer that "
                                "divides by what quantization made zero"
         : method == "kl_div" ? "logits are NaN there, or none is finite; look at those batches, and for a layer that "
                                "divides by what quantization made zero"
                              : "the metric is NaN there; look at those batches";
}
inline char const* why_infinite(std::string_view method) {
  return method == "gradient" ? "a value or gradient overflows there; scale the loss down or compute in a wider type"
         : method == "kl_div" ? "logits overflow there, or an outcome that had a chance has none left; compute them "
                                "in a wider type"
                              : "the metric overflows there";
}

inline std::string why_zero(group_stats const& g, std::string_view method, bool saw_data) {
  std::string const& name = g.modules.front();
  if (!saw_data) return name + " was shown no data: does a router keep it from these batches? Give it others";
  if (method == "gradient")
    return "the gradient of " + name + "'s output is zero: the loss does not reach it; it would get the fewest bits";
  return "quantizing " + name + " changes nothing that is measured: does the output depend on it? It would get the "
         "fewest bits";
}

}  // namespace detail

/// A line for each group whose formats all score zero, for each format that does so alone, and for each score that is
/// not finite, with its likely cause. `saw_data` says of a module whether any pass has shown it data.
inline std::vector<std::string> score_findings(candidate_stats const& stats, std::string_view method,
                                               std::function<bool(std::string const&)> const& saw_data) {
  std::vector<std::string> lines;
  for (auto const& g : stats) {
    if (!g.is_open()) continue;
    auto const zero = [](candidate_stat const& c) { return c.recipe < 0 || c.score == 0; };
    auto const seen = std::any_of(g.modules.begin(), g.modules.end(), saw_data);
    if (std::all_of(g.candidates.begin(), g.candidates.end(), zero)) {
      lines.push_back(detail::concat(g.name, ": all formats score 0: ", detail::why_zero(g, method, seen)));
      continue;
    }
    for (auto const& c : g.candidates) {
      std::string const what = g.name + ": " + c.format + " scores ";
      if (c.recipe >= 0 && c.score == 0)
        lines.push_back(what +
                        "0 where others do not: it changes nothing here, as it may where weights fit it exactly");
      else if (std::any_of(c.by_step.begin(), c.by_step.end(), detail::is_nan))
        lines.push_back(what + "NaN (" + detail::steps_where(c, detail::is_nan) +
                        "): " + detail::why_nan(method));
      else if (std::any_of(c.by_step.begin(), c.by_step.end(), detail::is_infinite) || !std::isfinite(c.score))
        lines.push_back(what + "inf (" + detail::steps_where(c, detail::is_infinite) +
                        "): " + detail::why_infinite(method));
    }
  }
  return lines;
}

}  // namespace mixbit
