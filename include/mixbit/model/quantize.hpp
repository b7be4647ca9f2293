// quantize and calibrate: what ModelOpt's mtq.quantize and mtq.calibrate do, on any walked host.
//
// quantize() resolves a config against the model's modules, puts quantizers into their slots and calibrates them.
// calibrate() calibrates what is there anew. Both leave the model as it was when they throw.
#pragma once

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "mixbit/calib/layerwise.hpp"
#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/core/arithmetic.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/tokens.hpp"
#include "mixbit/model/transaction.hpp"

namespace mixbit {

namespace detail {

inline quantizer_role role_of(std::string_view leaf) {
  return leaf == "input_quantizer"    ? quantizer_role::input
         : leaf == "weight_quantizer" ? quantizer_role::weight
         : leaf == "output_quantizer" ? quantizer_role::output
                                      : quantizer_role::tensor;
}

template <backend B>
std::vector<module_quantizers> placements_of(model<B>& m, std::vector<module_ref<B>> const& modules) {
  std::vector<module_quantizers> all;
  for (auto const& module : modules)
    all.push_back(named(module.name, [&] { return m.options().classes.module(module.name, module.class_name); }));
  return all;
}

/// Attributes are kept where nothing is enabled, so that enabling them later finds them.
template <backend B>
sequential_quantizer<B> make_quantizer(std::string leaf, std::string path,
                                       std::vector<quantizer_attribute_config> const& a,
                                       numerics_options const& numerics) {
  bool const on = std::any_of(a.begin(), a.end(), [](auto const& c) { return c.enable; });
  quantizer_role const role = role_of(leaf);
  return {std::move(leaf), std::move(path), role, on, a, numerics};
}

}  // namespace detail

template <backend B>
std::vector<std::shared_ptr<site<B>>> sites_of(std::vector<module_ref<B>> const& modules) {
  std::vector<std::shared_ptr<site<B>>> sites;
  for (auto const& m : modules) sites.push_back(m.slots->shared_site());
  return sites;
}

/// Throws `state_folded` where fold_weight has replaced the weight: it cannot be quantized again.
template <backend B>
void refuse_folded(module_ref<B> const& m) {
  if (m.slots->shared_site()->folded)
    fail(error_id::state_folded, m.name, ": fold_weight has replaced this weight by its quantized values");
}

/// Throws `state_folded` for a compressed weight that the host has given up: nothing is left to calibrate. One that the
/// host still shows is its own again afterwards.
template <backend B>
void refuse_given_up(std::vector<module_ref<B>> const& modules) {
  for (auto const& m : modules)
    if (m.weight.data == nullptr)
      m.slots->shared_site()->refuse_packed("and the host shows it no more, so that nothing can be calibrated on it");
}

/// Throws `state_folded` for a folded weight that has a scale or a rotation in it which its input quantizer undoes:
/// with other recipes that would be lost. set_quantizer_attributes and calibrate keep the scale.
template <backend B>
void refuse_losing_scales(std::vector<module_ref<B>> const& modules) {
  refuse_given_up(modules);
  for (auto const& m : modules) {
    auto& s = *m.slots->shared_site();
    if (!s.folded || s.recipes.empty()) continue;
    for (auto const& q : s.quantizers().quantizers)
      if (q.role() == quantizer_role::input && (q.has_pre_quant_scale() || q.leaves_rotated()))
        fail(error_id::state_folded, m.name, ": fold_weight has written its weight under the ",
             q.has_pre_quant_scale() ? "pre_quant_scale" : "rotation", " of ", q.path(),
             ", which other recipes would not have; change this one with set_quantizer_attributes or calibrate");
  }
}

/// What calibration saw: what calibrators say of their amax, a line for each quantizer that saw no data where that is
/// no error (model_options::unseen), and for each that met NaN or infinities, with counts; and how many tokens each
/// layer was shown.
struct calibration_report {
  std::vector<std::string> notes;
  token_counts tokens = {};
};

namespace detail {

/// `why`: what is known of those that saw no data, beyond that.
template <backend B>
void require_calibrated(calibration<B> const& c, std::vector<std::string> const& why) {
  std::string missing;
  int count = 0;
  for_each_calibrated(c, [&](auto& q) {
    if (q.ready()) return;
    if (q.role() == quantizer_role::weight)  // no loop shows it anything: its data is the walk's
      fail(error_id::state_not_calibrated, q.path(), ": the walk gives a weight without elements or without data ",
           "(null), so there is nothing to calibrate on");
    if (++count <= 5) missing += (missing.empty() ? "" : ", ") + q.path();
  });
  if (count == 0) return;
  std::string more;
  for (std::size_t i = 0; i < std::min<std::size_t>(why.size(), 5); ++i) more += "; " + why[i];
  fail(error_id::state_not_calibrated, count, " static quantizer(s) saw no data: ", missing, count > 5 ? ", ..." : "",
       c.ran ? "; the forward_loop reached no such layer" : "; give a forward_loop that runs calibration batches",
       more);
}

template <backend B>
void report_nonfinite(calibration<B>& c) {
  std::set<std::string> said;  // the recipes of a search saw the same data
  for_each_calibrated(c, [&](auto& q) {
    for (auto const& member : q.members()) {
      auto const n = member.nonfinite(c.home.device);
      if (n == 0) continue;
      auto note = concat(member.name(), ": ", n, " NaN or infinite value(s) were left out of the calibration");
      if (said.insert(note).second) c.notes.push_back(std::move(note));
    }
  });
}

template <backend B>
calibration<B> calibration_of(model<B>& m, std::vector<module_ref<B>> const& modules, forward_loop const& loop) {
  calibration<B> c{{}, m.scratch(), m.options().numerics, m.options().calibrators, loop, m.options().linalg};
  for (auto const& module : modules)
    c.layers.push_back({module.slots->shared_site(),
                        module.weight.data ? const_tensor_ref{canonical_weight(module)} : const_tensor_ref{}});
  return c;
}

/// What ends a calibration: quantizers that saw no data become what the model's options say, or are refused; what was
/// left out of it is said.
template <backend B>
calibration_report concluded(model<B>& m, calibration<B>& c) {
  settled_quantizers settled;
  if (c.ran) settled = settle_unseen(c.sites(), m.options().unseen, m.options().numerics);
  std::move(settled.notes.begin(), settled.notes.end(), std::back_inserter(c.notes));
  require_calibrated(c, settled.left);
  for (auto const& look : c.at_end) look(c);
  report_nonfinite(c);
  return {std::move(c.notes), tokens_of(c.sites())};
}

/// Every method has to be registered before anything is calibrated, and what would change its results and is not done
/// here may not be asked for (docs/calibrators.md). A user's own methods have such parameters to themselves.
template <backend B>
void require_known_algorithm(model<B> const& m, algorithm_config const& algorithm, std::string const& where) {
  for (auto const& step : algorithm.steps()) {
    m.options().algorithms.find(step.method, where);
    if (is_own_method(step.method)) continue;
    if (step.given("moe_calib_experts_ratio"))
      fail(error_id::config_conflict, where, ": ", step.method, ".moe_calib_experts_ratio ",
           step.number("moe_calib_experts_ratio"), ": the host routes tokens to its experts, not this library; run a ",
           "forward_loop that shows each expert what it should see, and leave the parameter out");
    if (auto const* sync = step.given("sync_expert_weight_amax"); sync && *sync == algorithm_value{true})
      fail(error_id::config_conflict, where, ": ", step.method, ".sync_expert_weight_amax true: a calibration does ",
           "not know which layers are experts of one another; leave the parameter out");
  }
}

}  // namespace detail

/// Calibrates all recipes of these modules in one pass, each quantizer by its own calibrator: weights from the walk,
/// the rest from the loop. Throws what is wrong with calibrators, then `state_not_calibrated` naming static quantizers
/// that saw no data, unless model_options::unseen says what they become.
template <backend B>
calibration_report max_calibrate(model<B>& m, std::vector<module_ref<B>> const& modules, forward_loop const& loop) {
  auto c = detail::calibration_of(m, modules, loop);
  c.every_recipe = true;
  calibrate_max(c);
  for (auto const& s : c.sites())
    for (auto& recipe : s->recipes) recipe.algorithm = algorithm_step{};
  return detail::concluded(m, c);
}

/// Runs the steps of an algorithm, in order, on the active recipe of each of these modules. Where the config says
/// "none" static quantizers are calibrated by max: they could not quantize otherwise.
template <backend B>
calibration_report run_algorithm(model<B>& m, std::vector<module_ref<B>> const& modules,
                                 algorithm_config const& algorithm, forward_loop const& loop) {
  auto c = detail::calibration_of(m, modules, loop);
  auto steps = algorithm.steps();
  if (steps.empty()) steps.emplace_back();
  for (auto const& step : steps) {
    auto const& run = m.options().algorithms.find(step.method, "algorithm");
    if (step.flag("layerwise"))
      calibrate_layerwise(c, step, run, m.options().checkpoints);
    else
      run(c, step);
  }
  auto const ran = steps.size() == 1 ? algorithm_config{steps.front()} : algorithm_config{steps};
  for (auto const& s : c.sites()) s->quantizers().algorithm = ran;
  return detail::concluded(m, c);
}

namespace detail {

inline bool is_max(algorithm_config const& algorithm) {
  auto const steps = algorithm.steps();
  return std::all_of(steps.begin(), steps.end(),
                     [](auto const& step) { return step.method == "max" && !step.flag("layerwise"); });
}

/// The same quantizers without what they observed; those that are off keep it, since they are not calibrated.
template <backend B>
recipe_quantizers<B> uncalibrated_copy(recipe_quantizers<B> const& from, B& device, numerics_options const& numerics) {
  recipe_quantizers<B> to{from.recipe, {}};
  for (auto const& q : from.quantizers) {
    bool const keeps = !q.enabled() && !q.members().empty();
    auto const& attributes = keeps ? q.attributes() : q.configured();
    auto& copy = to.quantizers.emplace_back(q.leaf(), q.path(), q.role(), q.enabled() || keeps, attributes, numerics);
    bool const absorbed = q.role() == quantizer_role::weight && !from.absorbed_scale.empty();
    copy.set_pre_quant_scale(device, absorbed ? from.absorbed_scale : q.pre_quant_scale(device));
    if (!keeps) continue;
    for (std::size_t i = 0; i < q.members().size(); ++i) copy.members()[i].adopt(device, q.members()[i]);
    copy.enable(false, numerics);
  }
  return to;
}

}  // namespace detail

/// What a config makes of the modules: how each entry matched, and each module's quantizers, those that are off too.
template <backend B>
struct configured_recipes {
  resolution resolved;
  std::vector<recipe_quantizers<B>> recipes;  ///< one a module
};

/// The quantizers that entries leave the modules with, one recipe a module; nothing is judged.
template <backend B>
std::vector<recipe_quantizers<B>> recipes_of(model<B>& m, std::vector<module_ref<B>> const& modules,
                                             resolution const& resolved) {
  std::vector<recipe_quantizers<B>> recipes(modules.size());
  for (auto const& q : resolved.quantizers) {
    std::string const leaf = q.name.substr(modules[q.module].name.empty() ? 0 : modules[q.module].name.size() + 1);
    recipes[q.module].quantizers.push_back(
        detail::make_quantizer<B>(leaf, q.name, q.attributes, m.options().numerics));
  }
  return recipes;
}

/// Throws config_* and format_* errors; calibrates nothing and changes nothing.
template <backend B>
configured_recipes<B> configure(model<B>& m, std::vector<module_ref<B>> const& modules, quantize_config const& config) {
  detail::require_known_algorithm(m, config.algorithm, config.name.empty() ? "algorithm" : config.name);
  configured_recipes<B> made{
      resolve(detail::placements_of(m, modules), config, m.options().strict, m.options().classes), {}};
  made.recipes = recipes_of(m, modules, made.resolved);
  return made;
}

/// The module's quantizers, all off.
template <backend B>
recipe_quantizers<B> unquantized_recipe(model<B>& m, module_ref<B> const& module) {
  recipe_quantizers<B> recipe{"NONE", {}};
  for (auto const& p : m.options().classes.at(module.class_name))
    recipe.quantizers.emplace_back(p.name, module.name + "." + p.name, detail::role_of(p.name), false, p.attributes,
                                   m.options().numerics);
  return recipe;
}

/// Inserts the quantizers that the config asks for and calibrates them. `loop` is needed only where a static quantizer
/// of something other than a weight is on. Returns how each entry matched. Throws config_*, format_* and
/// state_not_calibrated errors, arithmetic_mode under fast math, and whatever the loop throws; the model is then as it
/// was.
template <backend B>
resolution quantize(model<B>& m, quantize_config const& config, forward_loop const& loop = {}) {
  check_arithmetic();
  auto const modules = m.modules();
  refuse_losing_scales(modules);
  auto made = configure(m, modules, config);
  recipe_transaction<B> change{sites_of(modules)};
  for (std::size_t i = 0; i < modules.size(); ++i) {
    auto& s = *modules[i].slots->shared_site();
    if (made.recipes[i].find(quantizer_role::weight) != nullptr) refuse_folded(modules[i]);
    s.recipes.push_back(std::move(made.recipes[i]));
    s.refresh();
  }
  auto const report = run_algorithm(m, modules, config.algorithm, loop);
  auto& notes = made.resolved.notes;
  notes.insert(notes.end(), report.notes.begin(), report.notes.end());
  change.commit();
  return std::move(made.resolved);
}

/// Calibrates the quantizers that are there anew, by the algorithm. Where a search has left several recipes, all are
/// calibrated by max, in one pass, before the active ones are by the algorithm. A module that has joined the walk since
/// stays unquantized. Throws as quantize() does, `state_missing` for a model that was never quantized, and
/// `state_folded` for one whose weights can no longer be seen.
template <backend B>
calibration_report calibrate(model<B>& m, algorithm_config const& algorithm, forward_loop const& loop = {}) {
  check_arithmetic();
  algorithm.validate("calibrate");
  auto const modules = m.modules();
  refuse_given_up(modules);
  detail::require_known_algorithm(m, algorithm, "calibrate");
  auto const sites = sites_of(modules);
  if (!sites.empty() && std::all_of(sites.begin(), sites.end(), [](auto const& s) { return s->recipes.empty(); }))
    fail(error_id::state_missing, "calibrate: none of ", sites.size(),
         " modules has quantizers; quantize() makes them");
  std::vector<int> active;
  for (auto const& s : sites) active.push_back(s->active);
  recipe_transaction<B> change{sites};
  for (std::size_t i = 0; i < sites.size(); ++i) {
    for (auto const& r : change.before(i))
      sites[i]->recipes.push_back(detail::uncalibrated_copy(r, m.device(), m.options().numerics));
    if (change.before(i).empty()) sites[i]->recipes.push_back(unquantized_recipe(m, modules[i]));
    sites[i]->active = active[i];
    sites[i]->refresh();
  }
  bool const several = std::any_of(sites.begin(), sites.end(), [](auto const& s) { return s->recipes.size() > 1; });
  calibration_report report;
  if (several || detail::is_max(algorithm)) report = max_calibrate(m, modules, loop);
  if (!detail::is_max(algorithm))
    for (auto& note : run_algorithm(m, modules, algorithm, loop).notes)
      detail::note_once(report.notes, std::move(note));
  report.tokens = detail::tokens_of(sites);
  change.commit();
  return report;
}

/// Can a search choose a recipe for this module? It has a weight and quantizers for weight and input.
template <backend B>
bool is_searchable(model<B>& m, module_ref<B> const& module) {
  auto const* placements = m.options().classes.find(module.class_name);
  if (placements == nullptr || module.weight.data == nullptr || module.layout.kind == site_kind::lookup) return false;
  auto const has = [&](std::string_view leaf) {
    return std::any_of(placements->begin(), placements->end(),
                       [&](auto const& p) { return p.name == leaf && !p.locked_off; });
  };
  return has("weight_quantizer") && has("input_quantizer");
}

/// Holds the user's entries of a search's format to the model: each matches a quantizer by its full name, or by the
/// leaf name that search_recipe shows it. Throws config_no_match for one that does not; where the model is not strict,
/// returns a line for each.
template <backend B>
std::vector<std::string> check_search_entries(model<B>& m, std::vector<module_ref<B>> const& modules,
                                              quantize_config const& config) {
  auto const& classes = m.options().classes;
  auto placements = detail::placements_of(m, modules);
  auto full = apply_entries(placements, config, classes);
  for (auto& p : placements) p.name.clear();
  auto const leaves = apply_entries(placements, config, classes);
  for (std::size_t i = 0; i < full.matches.size(); ++i) full.matches[i] += leaves.matches[i];
  if (m.options().strict) check_matches(full, config);
  std::vector<std::string> notes;
  for (std::size_t i = 0; i < full.matches.size(); ++i)
    if (full.matches[i] == 0 && config.entries[i].origin == entry_origin::user)
      notes.push_back(detail::name_prefix(config) + detail::describe(config.entries[i], i) + " matches no quantizer");
  return notes;
}

/// What a format's entries make of the module's leaf names, before output quantizers are off.
template <backend B>
resolution search_resolution(model<B>& m, quantize_config const& config, module_ref<B> const& module) {
  std::vector<module_quantizers> bare{m.options().classes.module("", module.class_name)};
  return apply_entries(bare, config, m.options().classes);
}

/// The quantizers of a resolution by search_resolution.
template <backend B>
recipe_quantizers<B> recipe_of(model<B>& m, resolution resolved, module_ref<B> const& module) {
  recipe_quantizers<B> recipe;
  for (auto& q : resolved.quantizers) {
    if (detail::role_of(q.name) == quantizer_role::output)
      for (auto& a : q.attributes) a.enable = false;
    recipe.quantizers.push_back(
        detail::make_quantizer<B>(q.name, module.name + "." + q.name, q.attributes, m.options().numerics));
  }
  return recipe;
}

/// The quantizers of one module under a format of a search: the config's entries see leaf names alone, so name-based
/// ones ("*lm_head*") do not apply, and output quantizers stay off - as in ModelOpt's search.
template <backend B>
recipe_quantizers<B> search_recipe(model<B>& m, quantize_config const& config, module_ref<B> const& module) {
  return recipe_of(m, search_resolution(m, config, module), module);
}

}  // namespace mixbit
