// Applying a plan to a model: each module gets its planned recipe and is calibrated; nothing is searched.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

namespace detail {

template <backend B>
recipe_quantizers<B> planned_recipe(model<B>& m, quantization_plan const& plan, module_ref<B> const& module) {
  auto const at = std::find_if(plan.modules.begin(), plan.modules.end(),
                               [&](planned_module const& p) { return p.name == module.name; });
  if (at == plan.modules.end()) return unquantized_recipe(m, module);
  refuse_folded(module);  // nor is a folded weight what "do not quantize" stands for
  if (at->recipe == none_label) return unquantized_recipe(m, module);
  auto const* const format = plan.format(at->recipe);
  if (format == nullptr)
    fail(error_id::search_plan, module.name, ": the plan has no format '", at->recipe, "'");
  auto recipe = search_recipe(m, format->config, module);
  recipe.recipe = at->recipe;
  return recipe;
}

/// Calibrates as a search does: what goes by max in one pass, each other format by its own algorithm while all else is
/// unquantized.
template <backend B>
class planned_calibration_of {
 public:
  /// Throws what planned_recipe throws; changes nothing.
  planned_calibration_of(model<B>& m, quantization_plan const& plan, std::vector<module_ref<B>> const& modules)
      : model_{m}, modules_{modules} {
    for (auto const& module : modules) {
      next_.push_back(planned_recipe(m, plan, module));
      auto const* const format = plan.format(next_.back().recipe);
      bool const own = format != nullptr && !is_max(format->config.algorithm);
      if (own) require_known_algorithm(m, format->config.algorithm, format->config.name);
      formats_.push_back(own ? format : nullptr);
    }
  }

  calibration_report run(forward_loop const& loop) {
    for (std::size_t i = 0; i < modules_.size(); ++i) formats_[i] ? put_none(i) : put(i);
    auto report = max_calibrate(model_, modules_, loop);
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      if (formats_[i] == nullptr) take(i);
      put_none(i);
    }
    std::set<search_format const*> done{nullptr};
    for (auto const* const format : formats_)
      if (done.insert(format).second) run_own(*format, loop, report);
    for (std::size_t i = 0; i < modules_.size(); ++i) put(i);
    return report;
  }

 private:
  site<B>& at(std::size_t i) const { return *modules_[i].slots->shared_site(); }
  void put(std::size_t i, recipe_quantizers<B>&& recipe) {
    at(i).recipes.clear();
    at(i).recipes.push_back(std::move(recipe));
    at(i).refresh();
  }
  void put(std::size_t i) { put(i, std::move(next_[i])); }
  void put_none(std::size_t i) { put(i, unquantized_recipe(model_, modules_[i])); }
  void take(std::size_t i) { next_[i] = std::move(at(i).recipes.front()); }

  void run_own(search_format const& format, forward_loop const& loop, calibration_report& report) {
    std::vector<module_ref<B>> its;
    for (std::size_t i = 0; i < modules_.size(); ++i)
      if (formats_[i] == &format) {
        put(i);
        its.push_back(modules_[i]);
      }
    auto const own = run_algorithm(model_, its, format.config.algorithm, loop);
    report.notes.insert(report.notes.end(), own.notes.begin(), own.notes.end());
    for (std::size_t i = 0; i < modules_.size(); ++i)
      if (formats_[i] == &format) {
        take(i);
        put_none(i);
      }
  }

  model<B>& model_;
  std::vector<module_ref<B>> const& modules_;
  std::vector<recipe_quantizers<B>> next_;
  std::vector<search_format const*> formats_;  ///< of modules whose format has its own algorithm; else null
};

}  // namespace detail

/// Each module gets the recipe of the plan, calibrated on the loop's data. Where formats have algorithms that depend on
/// what other layers compute (gptq, layerwise), a search has calibrated them in more layers, and bits may differ.
///
/// Throws `search_plan` for a planned module that the model lacks or that is planned twice, and for a layer of the
/// model that the plan does not name, `state_folded` for a planned module whose weight is folded, then what quantize()
/// throws. The model is then as it was. Returns what calibration saw.
template <backend B>
calibration_report apply_plan(model<B>& m, quantization_plan const& plan, forward_loop const& loop) {
  auto const modules = m.modules();
  auto const named = [](auto const& all, std::string const& name) {
    return std::any_of(all.begin(), all.end(), [&](auto const& x) { return x.name == name; });
  };
  std::set<std::string> planned;
  for (auto const& p : plan.modules) {
    if (!planned.insert(p.name).second) fail(error_id::search_plan, "the plan names '", p.name, "' twice");
    if (!named(modules, p.name))
      fail(error_id::search_plan, "the plan names '", p.name, "', which the model does not have");
  }
  for (auto const& module : modules)
    if (is_searchable(m, module) && !named(plan.modules, module.name))
      fail(error_id::search_plan, "the model's layer '", module.name, "' is not in the plan");
  refuse_losing_scales(modules);
  detail::planned_calibration_of<B> pass{m, plan, modules};
  recipe_transaction<B> change{sites_of(modules)};
  auto report = pass.run(loop);
  change.commit();
  return report;
}

}  // namespace mixbit
