// The JSON of a search: candidate_stats.json, manifest.json and plan.json, in ModelOpt's shape where it has one.
// The one header of this layer that touches JSON. Keys keep their order; numbers round-trip.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/rank_stability.hpp"
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

namespace detail {

/// A config as the text of a file has it, with its own name or `label`'s. What is written is what it is: a preset that
/// a user has changed may have kept its name. `where` and `path` are for errors.
inline quantize_config named_config(nlohmann::ordered_json written, std::string const& label, std::string const& where,
                                    std::string const& path) {
  std::string name = label;
  if (written.contains("name")) {
    auto const& own = written["name"];
    if (!own.is_string() || own.get_ref<std::string const&>().empty())
      fail(error_id::search_plan, where, ": ", path, ".name must be a ", own.is_string() ? "name" : "text", ", got ",
           excerpt(own));
    name = own.get<std::string>();
  }
  written.erase("name");
  auto read = config_from_json(written.dump(), label);
  read.name = name;
  if (preset_full_name(name).empty()) return read;
  auto known = preset(preset_full_name(name));
  return same_content(known, read) ? known : read;
}

/// Does a format's label not say all of it, as that of a preset does?
inline bool needs_config(search_format const& f) {
  std::string_view const name = preset_full_name(f.label.substr(0, f.label.find("(effective-bits: ")));
  return name.empty() || !same_content(preset(name), f.config);
}

}  // namespace detail

/// name -> formats, scores, raw_scores, costs, module_names, uncompressed_cost. `scores` equal `raw_scores`: nothing
/// is rewritten. A standard error that needs more than one step is null. A format of `formats` that is no preset has
/// its config in `configs`, by label, in the first group that lists it.
inline nlohmann::ordered_json to_json(candidate_stats const& stats, std::span<search_format const> formats = {}) {
  detail::json_members all;
  std::set<std::string_view> written;
  for (auto const& g : stats) {
    nlohmann::ordered_json j;
    j["formats"] = detail::formats_of(g);
    j["scores"] = detail::column(g, detail::score_of);
    j["raw_scores"] = j["scores"];
    j["standard_errors"] = detail::column(g, [](auto const& c) { return detail::finite_or_null(c.standard_error()); });
    double const weight = g.weight.value();
    j["costs"] = detail::column(g, [&](auto const& c) { return detail::cost_in_elements(c.bits, weight); });
    j["module_names"] = g.modules;
    j["cost_weight"] = weight;
    if (g.weight.denominator != 1) j["cost_weight_exact"] = {g.weight.numerator, g.weight.denominator};
    j["allow_no_quant"] = g.candidates.back().recipe < 0;
    j["is_fixed"] = g.fixed;
    j["uncompressed_cost"] = static_cast<double>(g.elements) * weight;
    for (auto const& c : g.candidates)
      for (auto const& f : formats)
        if (f.label == c.format && detail::needs_config(f) && written.insert(f.label).second)
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
                          {"constraints", {{"effective_bits", plan.achieved.target_bits}}},
                          {"best",
                           {{"recipe", recipe.take()},
                            {"constraints", {{"effective_bits", a.bits_per_element}}},
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
  j["notes"] = plan.notes;
  auto& formats = j["formats"] = nlohmann::ordered_json::object();
  for (auto const& f : plan.formats)
    formats[f.label] = {{"nominal_bits", f.nominal_bits},
                        {"config", nlohmann::ordered_json::parse(config_to_text(f.config))}};
  return j;
}

namespace detail {

/// Reads a plan's members: errors name the file, the member's path and what is there instead.
class plan_reader {
 public:
  plan_reader(nlohmann::ordered_json const& j, std::string where) : j_{j}, where_{std::move(where)} {
    if (!j.is_object()) refuse("a plan", "an object", j);
    if (auto const& version = member(j, "", "version"); version != 1) refuse("version", "1", version);
  }

  quantization_plan read() const {
    only(j_, "a plan", {"version", "method", "recipe", "candidates", "modules", "achieved", "notes", "formats"});
    quantization_plan plan;
    for (auto const& [label, f] : object(member(j_, "", "formats"), "formats").items())
      plan.formats.push_back(format(label, f));
    for (auto const& [group, recipe] : object(member(j_, "", "recipe"), "recipe").items())
      plan.recipe.emplace_back(group, label(plan, recipe, "recipe." + group));
    for (auto const& [name, m] : object(member(j_, "", "modules"), "modules").items())
      plan.modules.push_back(module(plan, name, m));
    if (j_.contains("method")) plan.method = text(j_["method"], "method");
    if (j_.contains("notes")) plan.notes = texts(j_["notes"], "notes");
    settle_groups(plan);
    return plan;
  }

 private:
  using json = nlohmann::ordered_json;

  [[noreturn]] void refuse(std::string const& path, char const* wanted, json const& got) const {
    fail(error_id::search_plan, where_, ": ", path, " must be ", wanted, ", got ", excerpt(got));
  }
  json const& object(json const& j, std::string const& path) const {
    if (!j.is_object()) refuse(path, "an object", j);
    return j;
  }
  json const& member(json const& j, std::string const& path, char const* key) const {
    if (!object(j, path).contains(key))
      fail(error_id::search_plan, where_, ": ", path.empty() ? "a plan" : path, " needs '", key, "'");
    return j.at(key);
  }
  /// A key that nobody reads is more often misspelt than meant for somebody else.
  void only(json const& j, std::string const& path, std::initializer_list<std::string_view> keys) const {
    for (auto const& [key, value] : j.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        fail(error_id::search_plan, where_, ": ", path, " has no field ", in_quotes(key), ": ", excerpt(value));
  }
  std::string text(json const& j, std::string const& path) const {
    if (!j.is_string()) refuse(path, "a text", j);
    return j.get<std::string>();
  }

  search_format format(std::string const& label, json const& j) const {
    std::string const path = "formats." + label;
    if (label == none_label)
      fail(error_id::search_plan, where_, ": ", path, ": this label is what unquantized layers have");
    only(object(j, path), path, {"nominal_bits", "config"});
    auto const& bits = member(j, path, "nominal_bits");
    if (!bits.is_number() || bits.get<double>() <= 0) refuse(path + ".nominal_bits", "a number above 0", bits);
    return {label, named_config(object(member(j, path, "config"), path + ".config"), label, where_, path + ".config"),
            bits.get<double>()};
  }
  /// A format's label, or that of "do not quantize".
  std::string label(quantization_plan const& plan, json const& j, std::string const& path) const {
    std::string found = text(j, path);
    if (found != none_label && plan.format(found) == nullptr)
      fail(error_id::search_plan, where_, ": ", path, " is '", found, "', which 'formats' does not hold");
    return found;
  }
  planned_module module(quantization_plan const& plan, std::string const& name, json const& j) const {
    std::string const path = "modules." + name;
    auto recipe = label(plan, member(j, path, "recipe"), path + ".recipe");
    only(j, path, {"recipe", "rule"});
    return {name, std::move(recipe), j.contains("rule") ? text(j["rule"], path + ".rule") : ""};
  }
  /// `recipe` says by group what `modules` says by module: a group is named after its first module, and its others
  /// follow that one. They get their group's candidates.
  void settle_groups(quantization_plan& plan) const {
    auto const tried = candidates(plan);
    std::map<std::string, std::string> open{plan.recipe.begin(), plan.recipe.end()};
    std::string group, recipe;
    for (auto& m : plan.modules) {
      if (auto const at = open.find(with_recipe_suffix(m.name)); at != open.end()) {
        std::tie(group, recipe) = *at;
        open.erase(at);
      }
      if (group.empty())
        fail(error_id::search_plan, where_, ": modules.", m.name, " is in no group: 'recipe' needs '", m.name,
             recipe_suffix, "'");
      if (m.recipe != recipe)
        fail(error_id::search_plan, where_, ": modules.", m.name, ".recipe is '", m.recipe, "', but recipe.", group,
             " is '", recipe, "'");
      if (auto const at = tried.find(group); at != tried.end()) m.candidates = at->second;
    }
    if (!open.empty())
      fail(error_id::search_plan, where_, ": recipe.", open.begin()->first, " is a group that 'modules' does not hold");
  }
  std::vector<std::string> texts(json const& j, std::string const& path) const {
    if (!j.is_array()) refuse(path, "a list of texts", j);
    std::vector<std::string> all;
    for (auto const& item : j) all.push_back(text(item, path + "[" + std::to_string(all.size()) + "]"));
    return all;
  }
  /// By group; a plan that a search has not made may have none.
  std::map<std::string, std::vector<std::string>> candidates(quantization_plan const& plan) const {
    std::map<std::string, std::vector<std::string>> all;
    if (!j_.contains("candidates")) return all;
    for (auto const& [group, labels] : object(j_["candidates"], "candidates").items()) {
      all[group] = texts(labels, "candidates." + group);
      for (auto const& l : all[group]) label(plan, l, "candidates." + group);
    }
    return all;
  }

  json const& j_;
  std::string where_;
};

}  // namespace detail

/// A plan from its JSON; its achieved figures are not read. `where` is the file. Throws `search_plan` naming the
/// member that is missing or wrong and its value, and what reading a format's config throws.
inline quantization_plan plan_from_json(nlohmann::ordered_json const& j, std::string const& where) {
  return detail::plan_reader{j, where}.read();
}

}  // namespace mixbit
