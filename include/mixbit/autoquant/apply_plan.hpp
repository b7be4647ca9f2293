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

}  // namespace detail

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
  std::vector<recipe_quantizers<B>> next;
  for (auto const& module : modules) next.push_back(detail::planned_recipe(m, plan, module));
  recipe_transaction<B> change{sites_of(modules)};
  for (std::size_t i = 0; i < modules.size(); ++i) {
    auto& s = *modules[i].slots->shared_site();
    s.recipes.push_back(std::move(next[i]));
    s.refresh();
  }
  auto report = max_calibrate(m, modules, loop);
  change.commit();
  return report;
}

}  // namespace mixbit
