// A plan as a config: what quantize() has to be told to make the same model without a search and without its formats.
//
//   auto const made = mixbit::plan_config(m, plan);
//   write_text("quant_config.json", config_to_text(made.config));
//   mixbit::quantize(m, made.config, loop);
//
// Every quantizer that is on has an entry of its own by its full name, in which wildcard characters are escaped.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/core/name_index.hpp"

namespace mixbit {

struct planned_config {
  quantize_config config;
  std::vector<std::string> notes;  ///< what quantize() does otherwise than the search did
};

namespace detail {

/// The one algorithm that a config has. Throws `config_conflict` where the plan's layers have several.
inline algorithm_config planned_algorithm(quantization_plan const& plan) {
  search_format const* first = nullptr;
  std::string layer;
  for (auto const& p : plan.modules) {
    auto const* const format = plan.format(p.recipe);
    if (format == nullptr) continue;
    if (first == nullptr) first = format, layer = p.name;
    auto const &a = first->config.algorithm, &b = format->config.algorithm;
    if (!(a == b) && !(is_max(a) && is_max(b)))
      fail(error_id::config_conflict, "a config has one algorithm, and the plan calibrates ", layer, " as ",
           first->config.name, " and ", p.name, " as ", format->config.name, ", which have their own; apply the plan");
  }
  return first == nullptr || is_max(first->config.algorithm) ? algorithm_config{"max"} : first->config.algorithm;
}

/// What an algorithm makes of a layer may depend on the steps, and in the last bits on which others it calibrates.
inline std::vector<std::string> planned_notes(quantization_plan const& plan) {
  std::vector<std::string> notes;
  name_index said;
  for (std::size_t i = 0; i < plan.modules.size(); ++i) {
    auto const& p = plan.modules[i];
    auto const* const format = plan.format(p.recipe);
    if (format == nullptr || is_max(format->config.algorithm) || said.add(p.recipe, i) != i) continue;
    if (calibration_steps(format->config, 8) != 8)
      notes.push_back(p.recipe + ": the search calibrated it on a quarter of its steps; give quantize() as many");
    for (auto const& other : plan.modules)
      if (other.recipe != p.recipe &&
          std::find(other.candidates.begin(), other.candidates.end(), p.recipe) != other.candidates.end()) {
        notes.push_back(concat(p.recipe, ": the search calibrated it in ", other.name,
                               " too, which has another recipe: bits may differ from the plan's"));
        break;
      }
  }
  return notes;
}

}  // namespace detail

/// The config of a plan for this model. Without notes, quantize() with it makes what apply_plan() makes of the plan on
/// the same steps, bit for bit. Throws `config_conflict` for formats whose algorithms differ, and what apply_plan()
/// throws before it calibrates.
template <backend B>
planned_config plan_config(model<B>& m, quantization_plan const& plan, std::string name = "quant_config") {
  planned_config made{{.name = std::move(name), .algorithm = detail::planned_algorithm(plan)},
                      detail::planned_notes(plan)};
  auto& entries = made.config.entries;
  entries.push_back({.quantizer_name = "*", .enable = false});
  detail::planned_modules const planned{plan};
  auto const modules = m.modules();
  detail::require_planned(m, plan, planned, modules);
  for (auto const& module : modules)
    for (auto const& q : detail::planned_recipe(m, plan, planned.find(module.name), module).quantizers)
      if (q.enabled()) entries.push_back({.quantizer_name = exact_wildcard(q.path()), .cfg = q.attributes()});
  return made;
}

}  // namespace mixbit
