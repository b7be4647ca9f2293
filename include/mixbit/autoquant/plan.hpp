// A plan: which recipe every module gets, by what rule, and what that was found to cost. It stands on its own: the
// formats it names are in it, so applying it needs no search.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/config/quantize_config.hpp"

namespace mixbit {

/// The label of "do not quantize".
inline constexpr char const* none_label = "NONE(effective-bits: 16.0)";

/// A format of a search: a config under a name, and the label that statistics and plans show.
struct search_format {
  std::string label;  ///< "INT8_DEFAULT_CFG(effective-bits: 8.0)"
  quantize_config config;
  double nominal_bits = 16;
};

struct planned_module {
  std::string name;
  std::string recipe;  ///< a format's label, or none_label
  std::string rule;    ///< what put it there: the group and its grouping rule, or the pattern that disabled it
  std::vector<std::string> candidates = {};  ///< labels of all formats that the search calibrated there
};

struct quantization_plan {
  std::vector<search_format> formats;
  std::vector<std::pair<std::string, std::string>> recipe;  ///< group name (with recipe_suffix) -> label
  std::vector<planned_module> modules;                      ///< every module of a group, in the model's order
  allocation achieved;
  std::string cost_model;
  std::vector<std::string> notes = {};  ///< what calibration met: NaN and infinities, by quantizer
  std::string method = "gradient";      ///< how scores were measured
  std::vector<std::pair<std::string, std::string>> searched_with = {};  ///< run_facts.hpp

  search_format const* format(std::string const& label) const {
    for (auto const& f : formats)
      if (f.label == label) return &f;
    return nullptr;
  }
};

/// Throws `search_input` for a choice that was not made from these statistics.
inline void require_choice(candidate_stats const& stats, allocation const& chosen) {
  if (chosen.choice.size() != stats.size())
    fail(error_id::search_input, "a choice for ", chosen.choice.size(), " group(s) does not fit a search of ",
         stats.size());
  for (std::size_t g = 0; g < stats.size(); ++g)
    if (chosen.choice[g] < 0 || static_cast<std::size_t>(chosen.choice[g]) >= stats[g].candidates.size())
      fail(error_id::search_input, stats[g].name, ": candidate ", chosen.choice[g], " was chosen of ",
           stats[g].candidates.size());
}

namespace detail {

inline std::string rule_of(group_stats const& group) {
  if (!group.disabled_by.empty()) return "disabled by '" + group.disabled_by + "'";
  std::string const how = group.fixed ? "fixed" : group.is_open() ? "searched" : "given its only format";
  return how + (group.rule.empty() ? std::string{group.fixed || !group.is_open() ? "" : " alone"}
                                   : ", grouped by '" + group.rule + "'") +
         (group.space.empty() ? "" : ", in the space of '" + group.space + "'");
}

}  // namespace detail

/// The plan of a choice. Throws what require_choice throws.
inline quantization_plan make_plan(candidate_stats const& stats, std::vector<search_format> formats, allocation chosen,
                                   std::string cost_model, std::vector<std::string> notes = {}) {
  require_choice(stats, chosen);
  quantization_plan plan{std::move(formats), {}, {}, {}, std::move(cost_model), std::move(notes)};
  for (std::size_t g = 0; g < stats.size(); ++g) {
    auto const& group = stats[g];
    std::string const& label = group.candidates[static_cast<std::size_t>(chosen.choice[g])].format;
    plan.recipe.push_back({group.name, label});
    std::string const rule = detail::rule_of(group);
    std::vector<std::string> candidates;
    for (auto const& c : group.candidates)
      if (c.recipe >= 0) candidates.push_back(c.format);
    for (auto const& m : group.modules) plan.modules.push_back({m, label, rule, candidates});
  }
  plan.achieved = std::move(chosen);
  return plan;
}

}  // namespace mixbit
