// layer-sensitivity-report.md: what a search found, for people. Rows go from the most to the least sensitive group;
// the unquantized candidate is left out of the columns, as its score is zero by definition.
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/core/text_stream.hpp"
#include "mixbit/report/text.hpp"

namespace mixbit {

namespace detail {

/// A text in a cell of a table, which a bar would end.
inline std::string cell(std::string_view text) {
  std::string escaped;
  for (char const c : text) {
    if (c == '|') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

inline std::string score_cell(group_stats const& g, std::string const& label) {
  for (auto const& c : g.candidates)
    if (c.format == label && g.is_open()) return scored(c);
  return "-";
}

inline void write_summary(text_stream& out, candidate_stats const& stats, quantization_plan const& plan,
                          std::optional<measured_loss> const& loss) {
  auto const& a = plan.achieved;
  auto const range = reachable(stats);
  std::int64_t const elements = weighted_elements(stats), unit = cost_unit(stats);
  auto const bits = [&](std::int64_t cost) { return bits_text(cost, unit); };
  out << "| | |\n|---|---|\n"
      << "| target | " << asked_text(a) << " (" << plan.cost_model << " cost) |\n"
      << "| achieved | " << decimals(a.bits_per_element, 4) << " effective bits, " << bits(a.bits) << " of "
      << bits(a.budget) << " bits" << taken_text(a, ", ") << " |\n"
      << "| reachable | " << decimals(bits_per_element(range.minimum, elements), 4) << " to "
      << decimals(bits_per_element(range.maximum, elements), 4) << " effective bits |\n"
      << "| total score | " << scientific(a.score)
      << (a.optimal ? " (proven least)" : " (gap " + scientific(a.gap) + ")") << " |\n"
      << "| weight elements | " << total_elements(stats) << " in " << stats.size() << " groups |\n";
  if (loss)
    out << "| measured loss | " << decimals(loss->unquantized, 6) << " unquantized, " << decimals(loss->quantized, 6)
        << " quantized |\n";
}

inline void write_sensitivities(text_stream& out, candidate_stats const& stats, quantization_plan const& plan) {
  out << "| rank | group | chosen | bits |";
  for (auto const& f : plan.formats) out << ' ' << cell(f.label) << " |";
  out << "\n|---:|---|---|---:|";
  for (std::size_t i = 0; i < plan.formats.size(); ++i) out << "---:|";
  out << '\n';
  int rank = 0;
  for (std::size_t const i : ranked(stats)) {
    auto const& g = stats[i];
    auto const& chosen = g.candidates[static_cast<std::size_t>(plan.achieved.choice[i])];
    out << "| " << (g.is_open() ? std::to_string(++rank) : "-") << " | " << cell(group_name(g)) << " | "
        << cell(chosen.format) << " | "
        << decimals(bits_per_element(chosen.bits, g.elements), 3) << " |";
    for (auto const& f : plan.formats) out << ' ' << score_cell(g, f.label) << " |";
    out << '\n';
  }
}

}  // namespace detail

/// The whole report as markdown. Throws `search_input` for a plan without the choice that was made from these
/// statistics: one that was read from JSON has none.
inline std::string sensitivity_report(candidate_stats const& stats, quantization_plan const& plan,
                                      std::optional<measured_loss> const& loss = {}) {
  require_choice(stats, plan.achieved);
  detail::text_stream out;
  out << "# Layer sensitivity report\n\n";
  detail::write_summary(out, stats, plan, loss);
  out << "\n## Groups by sensitivity\n\nScore: " << detail::score_text(plan.method)
      << ", ± its standard error over the steps. A group's\nsensitivity is the score of its format of the fewest "
         "nominal bits.\n\n";
  detail::write_sensitivities(out, stats, plan);
  out << "\n## Modules\n\n| module | recipe | rule |\n|---|---|---|\n";
  for (auto const& m : plan.modules) 
    out << "| " << detail::cell(m.name) << " | " << detail::cell(m.recipe) << " | " << detail::cell(m.rule) << " |\n";
  return out.take();
}

}  // namespace mixbit
