// Reads a plan from its JSON, for json.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "mixbit/autoquant/named_config.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/score_method.hpp"
#include "mixbit/config/json.hpp"

namespace mixbit {

namespace detail {

/// Reads a plan's members: errors name the file, the member's path and what is there instead.
class plan_reader {
 public:
  plan_reader(json_document const& j, std::string where) : j_{j}, where_{std::move(where)} {
    if (!j.is_object()) refuse("a plan", "an object", j);
    if (auto const& version = member(j, "", "version"); version != 1) refuse("version", "1", version);
  }

  quantization_plan read() const {
    only(j_, "a plan", {"version", "method", "searched_with", "recipe", "candidates", "modules", "constraints",
                        "achieved", "notes", "formats"});
    quantization_plan plan;
    for (auto const& [label, f] : object(member(j_, "", "formats"), "formats").items())
      plan.formats.push_back(format(label, f));
    for (auto const& [group, recipe] : object(member(j_, "", "recipe"), "recipe").items())
      plan.recipe.emplace_back(group, label(plan, recipe, "recipe." + group));
    for (auto const& [name, m] : object(member(j_, "", "modules"), "modules").items())
      plan.modules.push_back(module(plan, name, m));
    if (j_.contains("method")) plan.method = method(j_["method"]);
    if (j_.contains("searched_with"))
      for (auto const& [name, value] : object(j_["searched_with"], "searched_with").items())
        plan.searched_with.emplace_back(name, text(value, "searched_with." + name));
    if (j_.contains("achieved")) achieved(plan, object(j_["achieved"], "achieved"));
    if (j_.contains("constraints")) constraints(plan.achieved.asked, object(j_["constraints"], "constraints"));
    if (j_.contains("notes")) plan.notes = texts(j_["notes"], "notes");
    settle_groups(plan);
    return plan;
  }

 private:
  using json = json_document;

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

  std::string method(json const& j) const {
    std::string const found = text(j, "method");
    if (is_plan_method(found)) return found;
    std::string known;
    for (auto const name : score_method_names) known.append(known.empty() ? "" : ", ").append(name);
    refuse("method", known.append(" or ").append(weight_error_method).c_str(), j);
  }
  /// A finite number that is not negative unless `any` is.
  double number(json const& of, std::string const& path, char const* key, bool any = false) const {
    auto const& j = member(of, path, key);
    if (!j.is_number() || !std::isfinite(j.get<double>()) || (!any && j.get<double>() < 0))
      refuse(path + "." + key, any ? "a number" : "a number from 0 on", j);
    return j.get<double>();
  }
  /// Bits and the like as whole numbers, parts rounded up.
  std::int64_t whole(json const& of, std::string const& path, char const* key) const {
    double const found = number(of, path, key);
    if (found > 0x1p62) refuse(path + "." + key, "at most 2^62", of.at(key));
    auto const& j = of.at(key);
    return j.is_number_integer() ? j.get<std::int64_t>() : static_cast<std::int64_t>(std::ceil(found));
  }
  /// Of so many parts each; rounded.
  std::int64_t parts(json const& of, std::string const& path, char const* key, double each) const {
    double const found = each * number(of, path, key);
    if (found > 0x1p62) refuse(path + "." + key, "fewer", of.at(key));
    return std::llround(found);
  }
  /// What choice() made of it: its figures, without the choice, which `recipe` says.
  void achieved(quantization_plan& plan, json const& j) const {
    only(j, "achieved", {"effective_bits", "bits", "bytes", "budget_bits", "cost", "cost_model",
                         "target_effective_bits", "score", "bound", "gap", "optimal", "stored_bytes", "microseconds"});
    auto& a = plan.achieved;
    a.bits_per_element = number(j, "achieved", "effective_bits");
    a.target_bits = number(j, "achieved", "target_effective_bits");
    a.bits = whole(j, "achieved", "bits");
    a.budget = whole(j, "achieved", "budget_bits");
    if (number(j, "achieved", "bits") > number(j, "achieved", "budget_bits") + 1)  // parts of bits may be rounded
      refuse("achieved.bits", "within achieved.budget_bits", j.at("bits"));
    for (char const* key : {"bytes", "cost"}) number(j, "achieved", key);
    a.score = number(j, "achieved", "score", true);
    a.bound = number(j, "achieved", "bound", true);
    a.gap = number(j, "achieved", "gap");
    if (!member(j, "achieved", "optimal").is_boolean()) refuse("achieved.optimal", "true or false", j.at("optimal"));
    a.optimal = j.at("optimal").get<bool>();
    plan.cost_model = text(member(j, "achieved", "cost_model"), "achieved.cost_model");
    if (j.contains("stored_bytes")) a.stored_bits = parts(j, "achieved", "stored_bytes", 8);
    if (j.contains("microseconds")) a.nanoseconds = parts(j, "achieved", "microseconds", 1e3);
  }
  void constraints(search_limits& asked, json const& j) const {
    only(j, "constraints", {"effective_bits", "max_bytes", "max_microseconds"});
    if (j.contains("effective_bits")) {
      double const bits = number(j, "constraints", "effective_bits");
      if (!(bits > 0 && bits <= 16))
        refuse("constraints.effective_bits", "above 0 and at most 16", j["effective_bits"]);
      asked.target = bits;
    }
    if (j.contains("max_bytes")) asked.max_bytes = whole(j, "constraints", "max_bytes");
    if (j.contains("max_microseconds"))
      asked.max_nanoseconds = parts(j, "constraints", "max_microseconds", 1e3);
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

}  // namespace mixbit
