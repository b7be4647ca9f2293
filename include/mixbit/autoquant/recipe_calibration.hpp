// The recipes of a search: every site gets the quantizers of its group's candidates and, behind them, the unquantized
// recipe. Formats that calibrate by max share one pass over the data. Each of the others runs its own algorithm, while
// layers without that format, and all other formats, are unquantized - as in ModelOpt's search. What an algorithm
// rewrites is kept in its recipe: candidates do not disturb each other, and no host's weight is written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/search_checkpoint.hpp"
#include "mixbit/autoquant/search_plan.hpp"
#include "mixbit/core/name_index.hpp"

namespace mixbit {

/// Calibration steps of a format: those that search scales by AWQ, which takes longer, get a quarter as in ModelOpt,
/// but one at least.
inline int calibration_steps(quantize_config const& format, int steps) {
  auto const all = format.algorithm.steps();
  bool const awq = std::any_of(all.begin(), all.end(), [](auto const& step) {
    return step.method.find("awq") != step.method.npos || step.method == "svdquant";
  });
  return awq && steps > 0 ? std::max(1, steps / 4) : steps;
}

/// Throws `search_no_data` for a number of calibration steps below 0, or above it without a function to run.
inline void require_calibration_steps(search_steps const& steps) {
  if (steps.calibration < 0)
    fail(error_id::search_no_data, "search_steps.calibration is ", steps.calibration, "; it is 0 or more");
  if (steps.calibration > 0 && !steps.calibrate)
    fail(error_id::search_no_data, "a search with calibration steps needs a calibrate function");
}

/// Of one run. `searched` are the modules that the plan names, in its order, and `all` those of the walk; their sites
/// hold no recipes.
template <backend B>
class recipe_calibration {
 public:
  recipe_calibration(model<B>& m, search_plan const& plan, std::vector<module_ref<B>> const& all,
                     std::vector<module_ref<B>> const& searched, search_steps const& steps,
                     search_checkpoint* checkpoint = nullptr)
      : model_{m}, plan_{plan}, all_{all}, searched_{searched}, steps_{steps}, checkpoint_{checkpoint} {}

  /// Afterwards groups with a choice run unquantized, and the others their only candidate. What the checkpoint holds
  /// is taken up, and what it does not is given to it. Throws what the algorithms, the callback and it throw.
  calibration_report run() {
    bool const any = install_max();
    for (auto& m : all_) add_unquantized(*m.slots->shared_site(), m);
    try {
      return calibrate(any);
    } catch (error const& e) {
      if (steps_.calibration != 0 || e.id() != error_id::state_not_calibrated) throw;
      fail(e.id(), "search_steps.calibration is 0: ", e.message());
    }
  }

 private:
  calibration_report calibrate(bool any) {
    calibration_report report;
    auto const by_max = [&] { return max_calibrate(model_, searched_, loop("calibrate", steps_.calibration)); };
    if (any) add(report, kept_or("max", [](auto const& r) { return r.recipe != "NONE"; }, searched_, by_max));
    for (std::size_t f = 0; f < plan_.formats.size(); ++f)
      if (!detail::is_max(plan_.formats[f].config.algorithm)) add(report, calibrate_own(f));
    for_each_candidate([&](std::size_t g, std::size_t, module_ref<B> const& m) {
      if (!plan_.stats[g].is_open()) activate(*m.slots->shared_site(), 0);
    });
    return report;
  }

  /// Calls f(group, candidate, module) for what quantizes.
  template <class F>
  void for_each_candidate(F&& f) {
    for (std::size_t g = 0; g < plan_.groups.size(); ++g)
      for (std::size_t const i : plan_.groups[g].members)
        for (std::size_t k = 0; k < plan_.stats[g].candidates.size(); ++k)
          if (plan_.stats[g].candidates[k].recipe >= 0) f(g, k, searched_[i]);
  }
  search_format const& format_of(std::size_t g, std::size_t k) const {
    return plan_.formats[static_cast<std::size_t>(plan_.stats[g].candidates[k].recipe)];
  }
  recipe_quantizers<B> recipe_of(search_format const& f, module_ref<B> const& m) {
    auto recipe = candidate_recipe(model_, f.config, m);
    recipe.recipe = f.label;
    return recipe;
  }
  static void activate(site<B>& s, std::size_t recipe) {
    s.active = static_cast<int>(recipe);
    s.refresh();
  }
  void add_unquantized(site<B>& s, module_ref<B> const& m) {
    s.recipes.push_back(unquantized_recipe(model_, m));
    activate(s, s.recipes.size() - 1);
  }

  bool install_max() {
    bool any = false;
    for_each_candidate([&](std::size_t g, std::size_t k, module_ref<B> const& m) {
      if (!detail::is_max(format_of(g, k).config.algorithm)) return;
      m.slots->shared_site()->recipes.push_back(recipe_of(format_of(g, k), m));
      any = true;
    });
    return any;
  }

  /// Formats come in the order of candidates, so that one belongs before those that are not there yet.
  calibration_report calibrate_own(std::size_t f) {
    auto const& format = plan_.formats[f];
    std::vector<module_ref<B>> modules;
    for_each_candidate([&](std::size_t g, std::size_t k, module_ref<B> const& m) {
      if (plan_.stats[g].candidates[k].recipe != static_cast<int>(f)) return;
      auto& s = *m.slots->shared_site();
      s.recipes.insert(s.recipes.begin() + static_cast<std::ptrdiff_t>(place(s, g, k)), recipe_of(format, m));
      activate(s, place(s, g, k));
      modules.push_back(m);
    });
    if (modules.empty()) return {};  // a plan may give a format to no layer
    auto const forwards =
        loop("calibrate " + format.config.name, calibration_steps(format.config, steps_.calibration));
    auto const is_this = [&](recipe_quantizers<B> const& recipe) { return recipe.recipe == format.label; };
    auto report = kept_or(format.label, is_this, modules,
                          [&] { return run_algorithm(model_, modules, format.config.algorithm, forwards); });
    for (auto const& m : modules) activate(*m.slots->shared_site(), m.slots->shared_site()->recipes.size() - 1);
    return report;
  }
  /// Where candidate k stands among the recipes that its site has so far.
  std::size_t place(site<B> const& s, std::size_t g, std::size_t k) const {
    std::size_t at = 0;
    for (std::size_t before = 0; before < k; ++before)
      if (s.recipes[at].recipe == plan_.stats[g].candidates[before].format) ++at;
    return at;
  }

  /// Takes up what the checkpoint has of a calibration of these modules' recipes that `is_its` picks; where it has
  /// nothing, calibrates and keeps them.
  template <class IsIts, class Calibrate>
  calibration_report kept_or(std::string name, IsIts&& is_its, std::vector<module_ref<B>> const& modules,
                             Calibrate&& calibrate) {
    if (checkpoint_ == nullptr) return calibrate();
    kept_calibration kept{std::move(name), {}, {}};
    auto const each = [&](auto&& f) {
      for (auto const& m : modules)
        for (auto& recipe : m.slots->shared_site()->recipes)
          if (is_its(recipe)) f(recipe, m);
    };
    auto const collect = [&] {
      kept.recipes.clear();
      each([&](auto const& r, auto const& m) { kept.recipes.push_back(keep_recipe(r, m.name, model_.device())); });
    };
    collect();
    if (!checkpoint_->load_calibration(kept)) {
      kept.report = calibrate();
      collect();
      checkpoint_->save_calibration(kept);
      return kept.report;
    }
    auto next = kept.recipes.begin();
    each([&](auto& recipe, auto const& m) {
      take_up_recipe(recipe, *next++, canonical_weight(m), model_.device(), model_.options().numerics);
    });
    show_tokens(kept.report, modules);
    return kept.report;
  }
  static detail::name_index places_of(std::vector<layer_tokens> const& layers) {
    detail::name_index places;
    for (std::size_t i = 0; i < layers.size(); ++i) places.add(layers[i].layer, i);
    return places;
  }
  /// As a calibration counts them: for all recipes of a site.
  static void show_tokens(calibration_report const& report, std::vector<module_ref<B>> const& modules) {
    auto const& layers = report.tokens.layers;
    auto const places = places_of(layers);
    for (auto const& m : modules)
      if (std::size_t const i = places.find(m.name); i != detail::name_index::none)
        for (auto& recipe : m.slots->shared_site()->recipes)
          recipe.tokens = std::max(recipe.tokens.value_or(0), layers[i].tokens);
  }

  /// Empty without steps: what needs data then says so.
  forward_loop loop(std::string phase, int count) {
    if (count == 0) return {};
    return [this, phase = std::move(phase), count] {
      for (int i = 0; i < count; ++i) {
        steps_.calibrate(i);
        if (steps_.progress) steps_.progress(phase, i + 1, count);
      }
    };
  }

  /// Notes once, and of each layer the most tokens that a format's calibration has shown it.
  static void add(calibration_report& to, calibration_report const& from) {
    for (auto const& note : from.notes)
      if (std::find(to.notes.begin(), to.notes.end(), note) == to.notes.end()) to.notes.push_back(note);
    auto& layers = to.tokens.layers;
    auto const known = places_of(layers);
    for (auto const& layer : from.tokens.layers)
      if (std::size_t const i = known.find(layer.layer); i == detail::name_index::none) layers.push_back(layer);
      else layers[i].tokens = std::max(layers[i].tokens, layer.tokens);
  }

  model<B>& model_;
  search_plan const& plan_;
  std::vector<module_ref<B>> const& all_;
  std::vector<module_ref<B>> const& searched_;
  search_steps const& steps_;
  search_checkpoint* checkpoint_;
};

}  // namespace mixbit
