// Applying a plan to a model: each module gets its planned recipe and is calibrated as the search calibrated it;
// nothing is searched.
//
//   auto const report = mixbit::apply_plan(m, plan, {.calibration = 512, .calibrate = forward});
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/recipe_calibration.hpp"
#include "mixbit/autoquant/run_facts.hpp"
#include "mixbit/core/name_index.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

namespace detail {

/// The modules of a plan by name. Throws `search_plan` for one that is planned twice.
class planned_modules {
 public:
  explicit planned_modules(quantization_plan const& plan) : all_{plan.modules} {
    for (std::size_t i = 0; i < all_.size(); ++i)
      if (by_name_.add(all_[i].name, i) != i)
        fail(error_id::search_plan, "the plan names '", all_[i].name, "' twice");
  }
  /// Null for a module that is not planned.
  planned_module const* find(std::string_view name) const {
    std::size_t const i = by_name_.find(name);
    return i == name_index::none ? nullptr : &all_[i];
  }

 private:
  std::vector<planned_module> const& all_;
  name_index by_name_;
};

/// Throws where the plan is not of this model.
template <backend B>
void require_planned(model<B>& m, quantization_plan const& plan, planned_modules const& planned,
                     std::vector<module_ref<B>> const& modules) {
  name_index there;
  for (std::size_t i = 0; i < modules.size(); ++i) there.add(modules[i].name, i);
  for (auto const& p : plan.modules)
    if (!there.contains(p.name))
      fail(error_id::search_plan, "the plan names '", p.name, "', which the model does not have");
  for (auto const& module : modules)
    if (is_searchable(m, module) && planned.find(module.name) == nullptr)
      fail(error_id::search_plan, "the model's layer '", module.name, "' is not in the plan");
}

template <backend B>
recipe_quantizers<B> planned_recipe(model<B>& m, quantization_plan const& plan, planned_module const* planned,
                                    module_ref<B> const& module) {
  if (planned == nullptr) return unquantized_recipe(m, module);
  refuse_folded(module);  // nor is a folded weight what "do not quantize" stands for
  if (planned->recipe == none_label) return unquantized_recipe(m, module);
  auto const* const format = plan.format(planned->recipe);
  if (format == nullptr)
    fail(error_id::search_plan, module.name, ": the plan has no format '", planned->recipe, "'");
  auto recipe = candidate_recipe(m, format->config, module);
  recipe.recipe = planned->recipe;
  return recipe;
}

/// The search that a plan came from, as far as its calibration goes: each module alone, with its recipe and what else
/// the search calibrated there that this one may depend on.
template <backend B>
search_plan calibration_of(model<B>& m, quantization_plan const& plan, planned_modules const& planned,
                           std::vector<module_ref<B>> const& searched) {
  search_plan made;
  made.formats = plan.formats;
  name_index chosen;
  for (std::size_t i = 0; i < plan.modules.size(); ++i) chosen.add(plan.modules[i].recipe, i);
  bool const by_siblings = m.options().unseen.what() == unseen_quantizers::become::siblings;
  for (std::size_t i = 0; i < searched.size(); ++i) {
    auto const& p = *planned.find(searched[i].name);
    auto const is_needed = [&](search_format const& f) {
      if (f.label == p.recipe) return true;
      if (std::find(p.candidates.begin(), p.candidates.end(), f.label) == p.candidates.end()) return false;
      return chosen.contains(f.label) && (by_siblings || !is_max(f.config.algorithm));
    };
    made.modules.push_back(p.name);
    auto& g = made.stats.emplace_back();
    g.name = p.name;
    g.modules = {p.name};
    for (std::size_t f = 0; f < made.formats.size(); ++f)
      if (is_needed(made.formats[f])) g.candidates.push_back({made.formats[f].label, static_cast<int>(f), 0, {}, 0});
    g.candidates.push_back({none_label, -1, 0, {}, 0});
    made.groups.emplace_back().members = {i};
  }
  return made;
}

/// Of a site's recipes the one that is planned, alone.
template <backend B>
void keep_planned(site<B>& s, planned_module const* planned) {
  auto at = s.recipes.end() - 1;
  if (planned != nullptr && planned->recipe != none_label)
    at = std::find_if(s.recipes.begin(), s.recipes.end(), [&](auto const& r) { return r.recipe == planned->recipe; });
  auto kept = std::move(*at);
  s.recipes.clear();
  s.recipes.push_back(std::move(kept));
  s.active = 0;
  s.refresh();
}

}  // namespace detail

/// Each module gets the recipe of the plan, calibrated on the steps' data as a search calibrates it: what goes by max
/// in one pass, each other format by its own algorithm on its part of the steps (calibration_steps), in all layers
/// where the search had it as a candidate. With the search's steps the model is what search::apply made of it, bit for
/// bit.
///
/// Throws `search_plan` for a planned module that the model lacks or that is planned twice, and for a layer of the
/// model that the plan does not name, `config_no_match` for a format that quantizes no weight of a module that it is
/// planned for, `state_folded` for a planned module whose weight is folded, then what quantize() throws. The model is
/// then as it was. Returns what calibration saw, with a note for what of the plan's search was otherwise.
template <backend B>
calibration_report apply_plan(model<B>& m, quantization_plan const& plan, search_steps const& steps) {
  require_calibration_steps(steps);
  auto const modules = m.modules();
  detail::planned_modules const planned{plan};
  detail::require_planned(m, plan, planned, modules);
  std::vector<module_ref<B>> searched;
  for (auto const& module : modules)
    if (planned.find(module.name) != nullptr) searched.push_back(module);
  for (auto const& module : searched) (void)detail::planned_recipe(m, plan, planned.find(module.name), module);
  for (auto const& f : plan.formats) detail::require_known_algorithm(m, f.config.algorithm, f.config.name);
  refuse_losing_scales(modules);
  auto const calibration = detail::calibration_of(m, plan, planned, searched);
  recipe_transaction<B> change{sites_of(modules)};
  auto report = recipe_calibration<B>{m, calibration, modules, searched, steps}.run();
  for (auto& line : changed_facts(plan.searched_with, calibration_facts(m, steps)))
    report.notes.push_back(std::move(line));
  for (auto const& module : modules) detail::keep_planned(*module.slots->shared_site(), planned.find(module.name));
  change.commit();
  return report;
}

}  // namespace mixbit
