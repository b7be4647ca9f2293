// The JSON of a search: candidate_stats.json, manifest.json and plan.json, in ModelOpt's shape where it has one.
// The one header of this layer that touches JSON. Keys keep their order; numbers round-trip.
#pragma once

#include <nlohmann/json.hpp>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/config/json.hpp"

namespace mixbit {

namespace detail {

/// Costs are shown as ModelOpt shows them: in elements of 16 bits.
inline double cost_in_elements(std::int64_t bits) { return static_cast<double>(bits) / 16.0; }

inline nlohmann::ordered_json formats_of(group_stats const& g) {
  auto names = nlohmann::ordered_json::array();
  for (auto const& c : g.candidates) names.push_back(c.format);
  return names;
}

template <class Value>
nlohmann::ordered_json column(group_stats const& g, Value&& value) {
  auto numbers = nlohmann::ordered_json::array();
  for (auto const& c : g.candidates) numbers.push_back(value(c));
  return numbers;
}

inline double score_of(candidate_stat const& c) { return c.score; }

}  // namespace detail

/// name -> formats, scores, raw_scores, costs, module_names, uncompressed_cost. `scores` equal `raw_scores`: nothing
/// is rewritten. A standard error that needs more than one step is null.
inline nlohmann::ordered_json to_json(candidate_stats const& stats) {
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (auto const& g : stats) {
    auto& j = all[g.name];
    j["formats"] = detail::formats_of(g);
    j["scores"] = detail::column(g, detail::score_of);
    j["raw_scores"] = j["scores"];
    j["standard_errors"] = detail::column(g, [](auto const& c) {
      double const e = c.standard_error();
      return std::isfinite(e) ? nlohmann::ordered_json(e) : nlohmann::ordered_json();
    });
    j["costs"] = detail::column(g, [](auto const& c) { return detail::cost_in_elements(c.bits); });
    j["module_names"] = g.modules;
    j["cost_weight"] = 1.0;
    j["allow_no_quant"] = g.candidates.back().recipe < 0;
    j["is_fixed"] = false;
    j["uncompressed_cost"] = static_cast<double>(g.elements);
  }
  return all;
}

/// layer_sensitivity, sensitivity_ranking (most sensitive first) and autoquant_state.
inline nlohmann::ordered_json manifest_json(candidate_stats const& stats, quantization_plan const& plan) {
  nlohmann::ordered_json j;
  j["version"] = 1;
  auto& layers = j["layer_sensitivity"] = nlohmann::ordered_json::object();
  for (auto const& g : stats)
    layers[g.name] = {{"formats", detail::formats_of(g)},
                      {"scores", detail::column(g, detail::score_of)},
                      {"costs", detail::column(g, [](auto const& c) { return detail::cost_in_elements(c.bits); })}};
  auto& ranking = j["sensitivity_ranking"] = nlohmann::ordered_json::array();
  for (std::size_t const g : ranked(stats))
    ranking.push_back({{"name", stats[g].name}, {"score", sensitivity(stats[g])}});
  auto const& a = plan.achieved;
  nlohmann::ordered_json recipe = nlohmann::ordered_json::object();
  for (auto const& [group, label] : plan.recipe) recipe[group] = label;
  j["autoquant_state"] = {{"method", "gradient"},
                          {"cost_model", plan.cost_model},
                          {"constraints", {{"effective_bits", plan.achieved.target_bits}}},
                          {"best",
                           {{"recipe", recipe},
                            {"constraints", {{"effective_bits", a.bits_per_element}}},
                            {"score", a.score},
                            {"is_satisfied", a.bits <= a.budget}}},
                          {"score", a.score},
                          {"is_satisfied", a.bits <= a.budget},
                          {"optimal", a.optimal}};
  return j;
}

/// recipe, modules, achieved figures, and the formats themselves, so that the plan can be applied on its own.
inline nlohmann::ordered_json to_json(quantization_plan const& plan) {
  nlohmann::ordered_json j;
  j["version"] = 1;
  auto& recipe = j["recipe"] = nlohmann::ordered_json::object();
  for (auto const& [group, label] : plan.recipe) recipe[group] = label;
  auto& modules = j["modules"] = nlohmann::ordered_json::object();
  for (auto const& m : plan.modules) modules[m.name] = {{"recipe", m.recipe}, {"rule", m.rule}};
  auto const& a = plan.achieved;
  j["achieved"] = {{"effective_bits", a.bits_per_element},
                   {"bits", a.bits},
                   {"bytes", static_cast<double>(a.bits) / 8.0},
                   {"budget_bits", a.budget},
                   {"cost", detail::cost_in_elements(a.bits)},
                   {"cost_model", plan.cost_model},
                   {"target_effective_bits", plan.achieved.target_bits},
                   {"score", a.score},
                   {"bound", a.bound},
                   {"gap", a.gap},
                   {"optimal", a.optimal}};
  auto& formats = j["formats"] = nlohmann::ordered_json::object();
  for (auto const& f : plan.formats)
    formats[f.label] = {{"nominal_bits", f.nominal_bits},
                        {"config", nlohmann::ordered_json::parse(config_to_text(f.config))}};
  return j;
}

/// A plan from its JSON. Throws `search_plan` naming what is missing or wrong; `where` is the file.
inline quantization_plan plan_from_json(nlohmann::ordered_json const& j, std::string const& where) {
  auto const need = [&](nlohmann::ordered_json const& in, char const* key) -> nlohmann::ordered_json const& {
    if (!in.is_object() || !in.contains(key)) fail(error_id::search_plan, where, ": a plan needs '", key, "'");
    return in.at(key);
  };
  auto const text = [&](nlohmann::ordered_json const& value, std::string const& what) {
    if (!value.is_string()) fail(error_id::search_plan, where, ": ", what, " must be a string, not ", value.dump());
    return value.get<std::string>();
  };
  quantization_plan plan;
  for (auto const& [label, f] : need(j, "formats").items()) {
    auto config = config_from_json(need(f, "config").dump(), label);
    auto const& bits = need(f, "nominal_bits");
    if (!bits.is_number()) fail(error_id::search_plan, where, ": nominal_bits of ", label, " is not a number");
    plan.formats.push_back({label, std::move(config), bits.get<double>()});
  }
  for (auto const& [group, label] : need(j, "recipe").items())
    plan.recipe.emplace_back(group, text(label, "recipe." + group));
  for (auto const& [name, m] : need(j, "modules").items()) {
    std::string const label = text(need(m, "recipe"), "modules." + name + ".recipe");
    if (label != none_label && plan.format(label) == nullptr)
      fail(error_id::search_plan, where, ": ", name, " has the recipe '", label, "', which 'formats' does not hold");
    plan.modules.push_back({name, label, m.contains("rule") ? text(m["rule"], "modules." + name + ".rule") : ""});
  }
  return plan;
}

}  // namespace mixbit
