// The JSON of a search: candidate_stats.json, manifest.json and plan.json, in ModelOpt's shape where it has one.
// The one header of this layer that touches JSON. Keys keep their order; numbers round-trip.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/named_config.hpp"
#include "mixbit/autoquant/plan_reader.hpp"
#include "mixbit/autoquant/rank_stability.hpp"
#include "mixbit/autoquant/resolved.hpp"
#include "mixbit/config/json.hpp"

namespace mixbit {

namespace detail {

/// Costs are shown as ModelOpt shows them: in elements of 16 bits.
inline double cost_in_elements(std::int64_t bits, double weight = 1) { return static_cast<double>(bits) * weight / 16; }

/// A cost in 1/unit bits, a whole number where it is one.
inline nlohmann::ordered_json cost_in_bits(std::int64_t cost, std::int64_t unit) {
  return cost % unit == 0 ? nlohmann::ordered_json(cost / unit)
                          : nlohmann::ordered_json(static_cast<double>(cost) / static_cast<double>(unit));
}

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

inline nlohmann::ordered_json finite_or_null(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

inline double microseconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

/// What was asked of a choice. One of allocate() alone has a target.
inline nlohmann::ordered_json constraints_json(allocation const& a) {
  nlohmann::ordered_json j = nlohmann::ordered_json::object();
  if (a.asked.target.given() || (!a.asked.any() && a.target_bits > 0)) j["effective_bits"] = a.target_bits;
  if (a.asked.max_bytes) j["max_bytes"] = *a.asked.max_bytes;
  if (a.asked.max_nanoseconds) j["max_microseconds"] = microseconds(*a.asked.max_nanoseconds);
  return j;
}

/// What a choice came to, in each of these.
inline nlohmann::ordered_json reached_json(allocation const& a) {
  nlohmann::ordered_json j{{"effective_bits", a.bits_per_element}};
  if (a.asked.max_bytes) j["stored_bytes"] = static_cast<double>(a.stored_bits) / 8;
  if (a.asked.max_nanoseconds) j["microseconds"] = microseconds(a.nanoseconds);
  return j;
}

inline double score_of(candidate_stat const& c) { return c.score; }

/// An object as it grows: ordered_json's own insertion looks through all keys each time. Keys are not checked.
class json_members {
 public:
  void add(std::string const& key, nlohmann::ordered_json value) {
    all_.nlohmann::ordered_json::object_t::Container::emplace_back(key, std::move(value));
  }
  nlohmann::ordered_json take() { return std::move(all_); }

 private:
  nlohmann::ordered_json::object_t all_;
};

}  // namespace detail

/// name -> formats, scores, raw_scores, costs, module_names, uncompressed_cost. `scores` equal `raw_scores`, which
/// are as measured, but for search_options::monotone_scores. A standard error that needs more than one step is null. A
/// format of `formats` that is no preset has its config in `configs`, by label, in the first group that lists it.
inline nlohmann::ordered_json to_json(candidate_stats const& stats, std::span<search_format const> formats = {}) {
  detail::json_members all;
  std::set<std::string_view> written;
  for (auto const& g : stats) {
    nlohmann::ordered_json j;
    j["formats"] = detail::formats_of(g);
    j["scores"] = detail::column(g, detail::score_of);
    j["raw_scores"] = detail::column(g, [](candidate_stat const& c) { return c.raw_score(); });
    j["standard_errors"] = detail::column(g, [](auto const& c) { return detail::finite_or_null(c.standard_error()); });
    double const weight = g.weight.value();
    j["costs"] = detail::column(g, [&](auto const& c) { return detail::cost_in_elements(c.bits, weight); });
    j["module_names"] = g.modules;
    j["cost_weight"] = weight;
    if (g.weight.denominator != 1) j["cost_weight_exact"] = {g.weight.numerator, g.weight.denominator};
    j["allow_no_quant"] = g.candidates.back().recipe < 0;
    j["is_fixed"] = g.fixed;
    j["uncompressed_cost"] = static_cast<double>(g.elements) * weight;
    if (!g.candidates.empty() && g.candidates.front().nanoseconds)
      j["microseconds"] = detail::column(g, [](auto const& c) { return detail::microseconds(*c.nanoseconds); });
    for (auto const& c : g.candidates)
      for (auto const& f : formats)
        if (f.label == c.format && written.insert(f.label).second && detail::needs_config(f))
          j["configs"][f.label] = nlohmann::ordered_json::parse(config_to_text(f.config));
    all.add(g.name, std::move(j));
  }
  return all.take();
}

/// layer_sensitivity, sensitivity_ranking (most sensitive first) and autoquant_state.
inline nlohmann::ordered_json manifest_json(candidate_stats const& stats, quantization_plan const& plan) {
  nlohmann::ordered_json j;
  j["version"] = 1;
  detail::json_members layers;
  for (auto const& g : stats) {
    auto const cost = [&](auto const& c) { return detail::cost_in_elements(c.bits, g.weight.value()); };
    layers.add(g.name, {{"formats", detail::formats_of(g)},
                        {"scores", detail::column(g, detail::score_of)},
                        {"costs", detail::column(g, cost)}});
  }
  j["layer_sensitivity"] = layers.take();
  auto& ranking = j["sensitivity_ranking"] = nlohmann::ordered_json::array();
  for (auto const& r : rank_stability(stats))
    if (stats[r.group].is_open())
      ranking.push_back({{"name", stats[r.group].name},
                         {"score", r.score},
                         {"standard_error", detail::finite_or_null(r.standard_error)},
                         {"swaps_with_next", detail::finite_or_null(r.swaps_with_next)}});
  auto const& a = plan.achieved;
  detail::json_members recipe;
  for (auto const& [group, label] : plan.recipe) recipe.add(group, label);
  j["autoquant_state"] = {{"method", plan.method},
                          {"cost_model", plan.cost_model},
                          {"constraints", detail::constraints_json(a)},
                          {"best",
                           {{"recipe", recipe.take()},
                            {"constraints", detail::reached_json(a)},
                            {"score", a.score},
                            {"is_satisfied", a.bits <= a.budget}}},
                          {"score", a.score},
                          {"is_satisfied", a.bits <= a.budget},
                          {"optimal", a.optimal}};
  return j;
}

/// recipe, modules, achieved figures, what calibration met, and the formats themselves, so that the plan can be applied
/// on its own.
inline nlohmann::ordered_json to_json(quantization_plan const& plan) {
  nlohmann::ordered_json j;
  j["version"] = 1;
  j["method"] = plan.method;
  if (!plan.searched_with.empty()) {
    detail::json_members facts;
    for (auto const& [name, value] : plan.searched_with) facts.add(name, value);
    j["searched_with"] = facts.take();
  }
  detail::json_members recipe, candidates, modules;
  for (auto const& [group, label] : plan.recipe) recipe.add(group, label);
  std::map<std::string_view, planned_module const*> first;
  for (auto const& m : plan.modules) first.emplace(m.name, &m);
  for (auto const& [group, label] : plan.recipe)
    if (auto const at = first.find(without_recipe_suffix(group)); at != first.end() && !at->second->candidates.empty())
      candidates.add(group, at->second->candidates);
  for (auto const& m : plan.modules) modules.add(m.name, {{"recipe", m.recipe}, {"rule", m.rule}});
  j["recipe"] = recipe.take();
  j["candidates"] = candidates.take();
  j["modules"] = modules.take();
  auto const& a = plan.achieved;
  j["constraints"] = detail::constraints_json(a);
  j["achieved"] = {{"effective_bits", a.bits_per_element},
                   {"bits", detail::cost_in_bits(a.bits, a.unit)},
                   {"bytes", static_cast<double>(a.bits) / static_cast<double>(a.unit) / 8.0},
                   {"budget_bits", detail::cost_in_bits(a.budget, a.unit)},
                   {"cost", detail::cost_in_elements(a.bits) / static_cast<double>(a.unit)},
                   {"cost_model", plan.cost_model},
                   {"target_effective_bits", plan.achieved.target_bits},
                   {"score", a.score},
                   {"bound", a.bound},
                   {"gap", a.gap},
                   {"optimal", a.optimal}};
  j["achieved"].update(detail::reached_json(a));
  j["notes"] = plan.notes;
  auto& formats = j["formats"] = nlohmann::ordered_json::object();
  for (auto const& f : plan.formats)
    formats[f.label] = {{"nominal_bits", f.nominal_bits},
                        {"config", nlohmann::ordered_json::parse(config_to_text(f.config))}};
  return j;
}

namespace detail {

inline nlohmann::ordered_json limits_json(resolved_search const& r) {
  auto all = nlohmann::ordered_json::array();
  for (auto const& l : r.limits) {
    bool const time = l.kind == cost_kind::time, counted = l.kind == cost_kind::counted_bits;
    auto const shown = [&](std::int64_t cost) {
      return time      ? microseconds(cost)
             : counted ? bits_per_element(cost, weighted_elements(r.groups))
                       : static_cast<double>(cost) / 8;
    };
    all.push_back({{"of", time ? "microseconds" : counted ? "effective_bits" : "bytes"},
                   {"limit", counted ? r.asked.target.value() : time ? shown(l.budget) : 1.0 * *r.asked.max_bytes},
                   {"least", shown(l.least)},
                   {"most", shown(l.most)}});
  }
  return all;
}

inline nlohmann::ordered_json group_json(group_stats const& g) {
  nlohmann::ordered_json j{{"elements", g.elements},
                           {"what", rule_of(g)},
                           {"cost_weight", {g.weight.numerator, g.weight.denominator}},
                           {"modules", g.modules}};
  auto& candidates = j["candidates"] = nlohmann::ordered_json::array();
  for (auto const& c : g.candidates) {
    candidates.push_back({{"format", c.format}, {"bits", c.bits}});
    if (c.nanoseconds) candidates.back()["microseconds"] = microseconds(*c.nanoseconds);
  }
  return j;
}

}  // namespace detail

/// All that a search is going to do: what to_text() says, nothing left out.
inline nlohmann::ordered_json to_json(resolved_search const& r) {
  nlohmann::ordered_json j{
      {"version", 1}, {"method", r.method}, {"monotone_scores", r.monotone}, {"cost_model", r.cost}};
  auto& rules = j["rules"] = nlohmann::ordered_json::array();
  for (auto const& rule : r.rules)
    rules.push_back({{"kind", rule.kind}, {"rule", rule.rule}, {"modules", rule.modules}});
  detail::json_members groups;
  for (auto const& g : r.groups) groups.add(g.name, detail::group_json(g));
  j["groups"] = groups.take();
  j["effective_bits"] = {{"least", r.least}, {"most", r.most}};
  j["limits"] = detail::limits_json(r);
  auto& calibrations = j["calibrations"] = nlohmann::ordered_json::array();
  for (auto const& c : r.calibrations)
    calibrations.push_back({{"format", c.format},
                            {"algorithm", c.algorithm},
                            {"steps", c.steps},
                            {"runs", c.runs},
                            {"exact", c.exact}});
  j["calibration_forwards"] = r.calibration_forwards;
  j["calibration_is_exact"] = r.calibration_is_exact;
  j["scoring_forwards"] = r.scoring_forwards;
  j["scoring_backwards"] = r.scoring_backwards;
  if (r.refinement)
    j["refinement"] = {{"rounds", r.refinement->rounds},
                       {"scoring_forwards", r.refinement->scoring_forwards},
                       {"evaluations", r.refinement->evaluations},
                       {"evaluation_forwards", r.refinement->evaluation_forwards}};
  j["kept_bytes"] = r.kept_bytes;
  j["scratch_bytes"] = r.scratch_bytes;
  j["scratch_bytes_a_token"] = r.scratch_bytes_a_token;
  j["difference_bytes_a_token"] = r.difference_bytes_a_token;
  j["difference_bytes"] = r.difference_limit ? nlohmann::ordered_json(*r.difference_limit) : nullptr;
  j["notes"] = r.notes;
  return j;
}

/// A plan from its JSON: all of it but the indices of achieved.choice, which its groups' statistics would say. Members
/// that an earlier version did not write may be missing. `where` is the file. Throws `search_plan` naming the
/// member that is missing or wrong and its value, and what reading a format's config throws.
inline quantization_plan plan_from_json(nlohmann::ordered_json const& j, std::string const& where) {
  return detail::plan_reader{j, where}.read();
}

}  // namespace mixbit
