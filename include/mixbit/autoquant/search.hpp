// The search: calibrate every recipe, score every group, choose one recipe a group under a budget, exactly.
//
//   mixbit::search<B> s{m, {.formats = {preset("INT8_DEFAULT_CFG"), preset("FP8_DEFAULT_CFG")}, .target = 8.0}};
//   s.run({.calibration = 8, .scoring = 8, .calibrate = forward, .score = forward_and_backward});
//   auto best = s.choose(8.0);  s.apply(best);
//
// Everything that can be known without data is known when the constructor returns: groups, candidates, costs, and
// whether the target can be met. Modules that share a weight are in one group. run() may throw anything the callbacks
// throw; the model is then as it was before.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mixbit/autoquant/cost_model.hpp"
#include "mixbit/autoquant/grouping.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/sensitivity.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

struct search_options {
  std::vector<quantize_config> formats = {};
  effective_bits target = {};
  std::vector<pattern> disabled_layers = {};  ///< a disabled member disables its group
  std::vector<grouping_rule> grouping = default_grouping_rules();
  cost_model cost = cost_model::exact;
  bool allow_no_quant = true;  ///< is "do not quantize" a choice?
};

/// What the host runs. `calibrate(i)` is a forward over batch i; `score(i)` a forward and a backward in which the
/// host's layers call mixbit::score. Steps are numbered from 0.
struct search_steps {
  int calibration = 0, scoring = 0;
  std::function<void(int)> calibrate = {}, score = {};
  std::function<void(std::string_view phase, int done, int total)> progress = {};  ///< may be empty
};

template <backend B>
class search {
 public:
  /// Plans. Throws `search_infeasible`, `search_input` where every layer is disabled, `config_no_match` for a disabled
  /// pattern or a user's entry of a format that matches nothing, `config_value` for a format without a name, and what
  /// interpreting the formats throws. Quantizers stay as they are; slots that have no site get one.
  search(model<B>& m, search_options options) : model_{m}, options_{std::move(options)} {
    if (options_.formats.empty()) fail(error_id::search_input, "a search needs at least one format");
    std::tie(all_, searched_) = found_modules();
    label_formats();
    make_groups();
    require_feasible(stats_, options_.target);
  }

  candidate_stats const& stats() const { return stats_; }
  std::vector<search_format> const& formats() const { return formats_; }
  search_options const& options() const { return options_; }

  /// Calibrates all recipes in one pass and scores them. Afterwards nothing is quantized until apply().
  void run(search_steps const& steps) {
    if (steps.scoring <= 0 || !steps.score) fail(error_id::search_no_data, "a search needs at least one scoring step");
    if (steps.calibration < 0)
      fail(error_id::search_no_data, "search_steps.calibration is ", steps.calibration, "; it is 0 or more");
    if (steps.calibration > 0 && !steps.calibrate)
      fail(error_id::search_no_data, "a search with calibration steps needs a calibrate function");
    walk_again();
    for (auto const& m : searched_) refuse_folded(m);
    refuse_losing_scales(all_);
    recipe_transaction<B> change{sites_of(all_)};
    install_recipes();
    auto report = calibrate(steps);
    score(steps);
    change.commit();
    notes_ = entry_notes_;
    notes_.insert(notes_.end(), report.notes.begin(), report.notes.end());
    has_run_ = true;
  }

  /// After a run: a line for each entry of a format that matched nothing (a model that is not strict), and for each
  /// quantizer that saw NaN or infinities in calibration.
  std::vector<std::string> const& notes() const { return notes_; }

  /// The best choice for any target, from the scores of the last run. Throws `search_no_data` before the first, and
  /// what allocate() throws.
  allocation choose(effective_bits target) const {
    require_run("choose");
    return allocate(stats_, target);
  }

  /// Activates a choice. Throws `search_no_data` before the first run, `search_input` for another search's choice,
  /// `state_folded` once fold_weight has replaced a weight, `state_missing` where quantize or another search has
  /// replaced the recipes; nothing is activated then.
  void apply(allocation const& chosen) {
    require_run("apply");
    require_choice(stats_, chosen);
    walk_again();
    for (std::size_t g = 0; g < groups_.size(); ++g)
      for (std::size_t const i : groups_[g].members) require_recipes(g, searched_[i]);
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      int const recipe = stats_[g].candidates[static_cast<std::size_t>(chosen.choice[g])].recipe;
      for (std::size_t const i : groups_[g].members) {
        auto& s = *searched_[i].slots->shared_site();
        s.active = recipe < 0 ? static_cast<int>(s.recipes.size()) - 1 : recipe;
        s.refresh();
      }
    }
  }

  quantization_plan plan(allocation chosen) const {
    return make_plan(stats_, formats_, std::move(chosen), std::string{name_of(options_.cost)}, notes_);
  }

 private:
  void require_run(char const* what) const {
    if (!has_run_) fail(error_id::search_no_data, what, "() needs the scores of a search: call run() first");
  }

  /// Throws where a module of group `g` no longer has the recipes that run() gave it.
  void require_recipes(std::size_t g, module_ref<B> const& m) const {
    auto const& s = *m.slots->shared_site();
    refuse_inside_pass(s, "activating a choice");
    refuse_folded(m);
    std::size_t const formats = stats_[g].disabled_by.empty() ? formats_.size() : 0;
    bool same = s.recipes.size() == formats + 1;
    for (std::size_t f = 0; f < formats && same; ++f) same = s.recipes[f].recipe == formats_[f].label;
    if (!same)
      fail(error_id::state_missing, m.name, ": the search's recipes are gone; quantize, a plan or another search has ",
           "replaced them, so run() again");
  }

  /// The walk and, of it, what can be searched.
  std::pair<std::vector<module_ref<B>>, std::vector<module_ref<B>>> found_modules() const {
    auto all = model_.modules();
    std::vector<module_ref<B>> searched;
    for (auto const& m : all)
      if (is_searchable(model_, m)) searched.push_back(m);
    if (searched.empty())
      fail(error_id::search_input, "nothing to search: the model has no layer with a weight to quantize");
    return {std::move(all), std::move(searched)};
  }

  /// Layers may have moved and weights may lie elsewhere since the plan was made.
  void walk_again() {
    auto found = found_modules();
    auto const same = [](auto const& a, auto const& b) { return a.name == b.name; };
    if (!std::equal(searched_.begin(), searched_.end(), found.second.begin(), found.second.end(), same))
      fail(error_id::search_plan, "the model's layers are not those that the search was planned for");
    std::tie(all_, searched_) = std::move(found);
  }

  void label_formats() {
    std::set<std::string> names;
    for (auto const& f : options_.formats) {
      if (f.name.empty())
        fail(error_id::config_value, "format ", names.size(), " of the search has no name; plans and reports need one");
      if (!names.insert(f.name).second)
        fail(error_id::state_duplicate, "two formats of the search are named '", f.name, "'");
      auto const unmatched = check_search_entries(model_, all_, f);
      entry_notes_.insert(entry_notes_.end(), unmatched.begin(), unmatched.end());
      auto q = recipe_for(f, searched_.front());
      double const bits = nominal_bits(q);
      formats_.push_back({format_label(f.name, bits), f, bits});
    }
    // as ModelOpt shows them: fewest bits first, else in the user's order
    std::stable_sort(formats_.begin(), formats_.end(),
                     [](auto const& a, auto const& b) { return a.nominal_bits < b.nominal_bits; });
  }

  recipe_quantizers<B> recipe_for(quantize_config const& f, module_ref<B> const& m) const {
    auto q = search_recipe(model_, f, m);
    if (q.find(quantizer_role::weight) == nullptr)
      fail(error_id::config_no_match, "format ", f.name, " quantizes no weight of ", m.name, " (", m.class_name, ")");
    return q;
  }

  void make_groups() {
    std::vector<std::string> names;
    std::vector<void const*> weights;
    for (auto const& m : searched_) {
      names.push_back(m.name);
      weights.push_back(m.weight.data);
    }
    groups_ = join_tied(group_modules(names, options_.grouping), weights);
    std::vector<bool> used(options_.disabled_layers.size());
    for (auto const& group : groups_) {
      auto& g = stats_.emplace_back();
      g.name = names[group.members.front()] + ".quant_recipe";
      g.rule = label_of(group, options_.grouping);
      for (std::size_t const i : group.members) {
        g.modules.push_back(names[i]);
        for (std::size_t p = 0; p < used.size(); ++p)
          if (options_.disabled_layers[p].matches(names[i])) {
            used[p] = true;
            g.disabled_by = options_.disabled_layers[p].label();
          }
      }
      add_candidates(g, group);
    }
    for (std::size_t p = 0; p < used.size(); ++p)
      if (!used[p])
        fail(error_id::config_no_match, "disabled layer pattern '", options_.disabled_layers[p].label(),
             "' matches no layer of the search");
    if (std::none_of(stats_.begin(), stats_.end(), [](auto const& g) { return g.disabled_by.empty(); }))
      fail(error_id::search_input, "nothing to search: disabled layer patterns disable every layer, '",
           stats_.front().disabled_by, "' disables ", stats_.front().modules.front());
  }

  void add_candidates(group_stats& g, module_group const& group) {
    std::set<void const*> counted;  // a tied weight is stored once, and all its users are in this group
    std::vector<std::size_t> owned;
    for (std::size_t const i : group.members)
      if (counted.insert(searched_[i].weight.data).second) owned.push_back(i);
    for (std::size_t const i : owned) g.elements += searched_[i].weight.size();
    if (g.disabled_by.empty())
      for (std::size_t f = 0; f < formats_.size(); ++f) {
        candidate_stat c{formats_[f].label, static_cast<int>(f), 0, {}, 0};
        for (std::size_t const i : group.members) (void)recipe_for(formats_[f].config, searched_[i]);
        for (std::size_t const i : owned) {
          auto q = recipe_for(formats_[f].config, searched_[i]);
          c.bits += cost_bits(options_.cost, q, canonical_weight(searched_[i]));
        }
        g.candidates.push_back(std::move(c));
      }
    if (options_.allow_no_quant || !g.disabled_by.empty())
      g.candidates.push_back({none_label, -1, 0, {}, 16 * g.elements});
  }

  void install_recipes() {
    for (auto& m : all_) m.slots->shared_site()->recipes.clear();
    for (std::size_t g = 0; g < groups_.size(); ++g)
      for (std::size_t const i : groups_[g].members) {
        auto& s = *searched_[i].slots->shared_site();
        if (stats_[g].disabled_by.empty())
          for (auto const& f : formats_) {
            s.recipes.push_back(recipe_for(f.config, searched_[i]));
            s.recipes.back().recipe = f.label;
          }
      }
    for (auto& m : all_) {
      auto& s = *m.slots->shared_site();
      s.recipes.push_back(unquantized_recipe(model_, m));
      s.active = static_cast<int>(s.recipes.size()) - 1;
      s.refresh();
    }
  }

  calibration_report calibrate(search_steps const& steps) {
    return max_calibrate(model_, searched_, [&] {
      for (int i = 0; i < steps.calibration; ++i) {
        steps.calibrate(i);
        if (steps.progress) steps.progress("calibrate", i + 1, steps.calibration);
      }
    });
  }

  void score(search_steps const& steps) {
    scoring_pass<B> pass{active_sites(), model_.device(), steps.scoring};
    for (int i = 0; i < steps.scoring; ++i) {
      pass.begin(i);
      steps.score(i);
      if (steps.progress) steps.progress("score", i + 1, steps.scoring);
    }
    require_scored();
    collect(pass);
  }

  /// Throws where no member of a group was scored: zeros would give it the format of the fewest bits.
  void require_scored() const {
    std::string missed;
    int count = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      auto const scored = [&](std::size_t i) { return searched_[i].slots->shared_site()->scoring->calls > 0; };
      auto const& members = groups_[g].members;
      if (!stats_[g].disabled_by.empty() || std::any_of(members.begin(), members.end(), scored)) continue;
      for (auto const& name : stats_[g].modules)
        if (++count <= 5) missed += (missed.empty() ? "" : ", ") + name;
    }
    if (count != 0)
      fail(error_id::search_no_data, "the scoring steps scored nothing of ", missed, count > 5 ? ", ..." : "",
           ": call mixbit::score in the backward of each layer; a region's score is that of its first member's group");
  }

  std::vector<std::shared_ptr<site<B>>> active_sites() const {
    std::vector<std::shared_ptr<site<B>>> sites;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (stats_[g].disabled_by.empty())
        for (std::size_t const i : groups_[g].members) sites.push_back(searched_[i].slots->shared_site());
    return sites;
  }

  void collect(scoring_pass<B>& pass) {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (!stats_[g].disabled_by.empty()) continue;
      for (auto& c : stats_[g].candidates) {
        c.score = 0;
        c.by_step.assign(static_cast<std::size_t>(pass.steps()), 0.0);
        if (c.recipe < 0) continue;
        for (std::size_t step = 0; step < c.by_step.size(); ++step) {
          for (std::size_t const i : groups_[g].members)
            c.by_step[step] += pass.score(*searched_[i].slots->shared_site(), step, static_cast<std::size_t>(c.recipe));
          c.score += c.by_step[step];
        }
      }
    }
  }

  model<B>& model_;
  search_options options_;
  std::vector<module_ref<B>> all_, searched_;
  std::vector<search_format> formats_;
  std::vector<module_group> groups_;
  candidate_stats stats_;
  std::vector<std::string> entry_notes_, notes_;
  bool has_run_ = false;
};

}  // namespace mixbit
