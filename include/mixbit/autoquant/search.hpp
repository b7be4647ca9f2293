// The search: calibrate every recipe, score every group, choose one recipe a group under a budget, exactly.
//
//   mixbit::search<B> s{m, {.formats = {preset("INT8_DEFAULT_CFG"), preset("FP8_DEFAULT_CFG")}, .target = 8.0}};
//   std::cout << to_text(s.resolved(8, 8));
//   s.run({.calibration = 8, .scoring = 8, .calibrate = forward, .score = forward_and_backward});
//   auto best = s.choose();  s.apply(best);
//
// Everything that can be known without data is known when the constructor returns: groups, candidates, costs, and
// whether the limits can be met (autoquant/search_plan.hpp). Modules that share a weight are in one group. run() may
// throw anything the callbacks throw; the model is then as it was before. With search_options::checkpoint a run that
// was cut short goes on where it stopped (autoquant/search_checkpoint.hpp).
#pragma once

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "mixbit/autoquant/gradient_scores.hpp"
#include "mixbit/autoquant/kl_scores.hpp"
#include "mixbit/autoquant/limits.hpp"
#include "mixbit/autoquant/recipe_calibration.hpp"
#include "mixbit/autoquant/resolved_search.hpp"
#include "mixbit/autoquant/run_facts.hpp"
#include "mixbit/autoquant/score_findings.hpp"
#include "mixbit/autoquant/search_plan.hpp"
#include "mixbit/core/digest.hpp"

namespace mixbit {

template <backend B>
class search {
 public:
  /// Plans. Throws what search_planner and require_feasible throw. Quantizers stay as they are; slots that have no
  /// site get one.
  search(model<B>& m, search_options options) : model_{m}, options_{std::move(options)} {
    std::tie(all_, searched_) = found_modules();
    plan_ = search_planner<B>{model_, all_, searched_, options_}.make();
    require_feasible(plan_.stats, limits());
  }

  candidate_stats const& stats() const { return plan_.stats; }
  std::vector<search_format> const& formats() const { return plan_.formats; }
  search_options const& options() const { return options_; }
  /// What a choice may cost by the options.
  search_limits limits() const { return limits_of(options_); }

  /// The plan with so many steps, to look at; nothing runs.
  resolved_search resolved(int calibration, int scoring) {
    return resolve_search(model_, plan_, options_, searched_, calibration, scoring);
  }

  /// What a score rule brings to one point of the model: a region for each group, to be given to mixbit::score in the
  /// backward there. Layers move, so ask anew. Throws `state_missing` for a point that no rule names.
  std::vector<score_region<B>> regions(std::string_view point) const {
    std::vector<score_region<B>> all;
    for (auto const& group : plan_.groups) {
      std::vector<std::shared_ptr<site<B>>> sites;
      for (std::size_t const i : group.members)
        if (plan_.score_points[i] == point) sites.push_back(searched_[i].slots->shared_site());
      if (!sites.empty()) all.emplace_back(std::move(sites));
    }
    if (all.empty()) fail(error_id::state_missing, "no score rule of the search names the point '", point, "'");
    return all;
  }

  /// Calibrates all recipes and scores them. Afterwards nothing that has a choice is quantized until apply(). Throws
  /// `search_no_data` for steps or callbacks that are missing or show nothing, and what they and the checkpoint throw.
  void run(search_steps const& steps) {
    require_steps(steps);
    walk_again();
    for (auto const& m : searched_) refuse_folded(m);
    refuse_losing_scales(all_);
    recipe_transaction<B> change{sites_of(all_)};
    auto* const checkpoint = options_.checkpoint.get();
    if (checkpoint) checkpoint->begin(facts(steps));
    auto const report = recipe_calibration<B>{model_, plan_, all_, searched_, steps, checkpoint}.run();
    auto stats = plan_.stats;
    if (has_choice()) score(steps, stats);
    notes_ = plan_.notes;
    notes_.insert(notes_.end(), report.notes.begin(), report.notes.end());
    for (auto& line : score_findings(stats, name_of(options_.method), shown_by(report)))
      notes_.push_back(std::move(line));
    if (options_.monotone_scores && has_choice()) {
      make_monotone(stats);
      notes_.push_back("scores are monotone, not as measured: of a group's formats, in the order of their bits, none "
                       "has a higher one than those before it");
    }
    plan_.stats = std::move(stats);
    change.commit();
    searched_with_ = run_facts(steps);
    has_run_ = true;
  }

  /// After a run: a line for each entry of a format that matched nothing (a model that is not strict), for each
  /// quantizer that saw NaN or infinities in calibration, and for each score that is zero or not finite.
  std::vector<std::string> const& notes() const { return notes_; }

  /// The best choice under any limits, from the scores of the last run: those of the options; with another target in
  /// place of theirs; or others. Throws `search_no_data` before the first, and what allocate() throws.
  allocation choose() const { return choose(limits()); }
  allocation choose(effective_bits target) const {
    auto wanted = limits();
    wanted.target = target;
    return choose(wanted);
  }
  allocation choose(search_limits const& limits) const {
    require_run("choose");
    if (limits.max_nanoseconds && !options_.latency)
      fail(error_id::search_input, "choose() has a limit of time, and search_options no latency table");
    return allocate(plan_.stats, limits);
  }

  /// Activates a choice. Throws `search_no_data` before the first run, `search_input` for another search's choice,
  /// `state_folded` once fold_weight has replaced a weight, `state_missing` where quantize or another search has
  /// replaced the recipes; nothing is activated then.
  void apply(allocation const& chosen) {
    require_run("apply");
    require_choice(plan_.stats, chosen);
    walk_again();
    for (std::size_t g = 0; g < plan_.groups.size(); ++g)
      for (std::size_t const i : plan_.groups[g].members) require_recipes(plan_.stats[g], searched_[i]);
    for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
      bool const none = plan_.stats[g].candidates[static_cast<std::size_t>(chosen.choice[g])].recipe < 0;
      for (std::size_t const i : plan_.groups[g].members) {
        auto& s = *searched_[i].slots->shared_site();
        s.active = none ? static_cast<int>(s.recipes.size()) - 1 : chosen.choice[g];
        s.refresh();
      }
    }
  }

  /// What each other format of one group, all other groups as chosen, adds to what is measured: the divergence from the
  /// unquantized model (kl_div) or the metric (degradation). The chosen formats have 0, and below 0 is better. stats()
  /// stay, and the model afterwards runs what it ran before. Throws what apply() throws, `search_input` for gradient,
  /// whose distances from where the model is find nothing better, `search_no_data` for steps or callbacks that are
  /// missing, and what they throw. Steps that `checkpoint` holds are not run again; progress is told as `phase`.
  candidate_stats scores_around(allocation const& chosen, search_steps const& steps, score_method method,
                                search_checkpoint* checkpoint = nullptr, std::string_view phase = "refine") {
    require_scores_around(steps, method);
    active_recipes<B> const before{shared_sites()};
    apply(chosen);
    auto around = plan_.stats;
    one_group_scores<B>{model_, plan_, searched_, chosen.choice}.run(method, steps, checkpoint, around, phase);
    return around;
  }

  /// What scores_around() asks of its steps and method, and throws.
  static void require_scores_around(search_steps const& steps, score_method method) {
    if (method == score_method::gradient)
      fail(error_id::search_input, "gradient scores say nothing of what is better than a choice; take kl_div or ",
           "degradation around it");
    require_scoring(steps, method);
  }

  /// The sites of what is searched: autoquant/active_recipes.hpp puts back what they run.
  std::vector<std::shared_ptr<site<B>>> shared_sites() {
    walk_again();
    std::vector<std::shared_ptr<site<B>>> sites;
    for (auto const& m : searched_) sites.push_back(m.slots->shared_site());
    return sites;
  }

  quantization_plan plan(allocation chosen) const {
    auto made = make_plan(plan_.stats, plan_.formats, std::move(chosen), plan_.cost_name, notes_);
    made.method = name_of(options_.method);
    made.searched_with = searched_with_;
    return made;
  }

 private:
  void require_run(char const* what) const {
    if (!has_run_) fail(error_id::search_no_data, what, "() needs the scores of a search: call run() first");
  }

  bool has_choice() const {
    return std::any_of(plan_.stats.begin(), plan_.stats.end(), [](auto const& g) { return g.is_open(); });
  }

  void require_steps(search_steps const& steps) const {
    if (has_choice()) require_scoring(steps, options_.method);
    require_calibration_steps(steps);
  }
  static void require_scoring(search_steps const& steps, score_method method) {
    bool const given = method == score_method::gradient ? bool(steps.score)
                       : method == score_method::kl_div ? bool(steps.logits)
                                                        : bool(steps.metric);
    constexpr char const* names[] = {"score", "logits", "metric"};
    if (steps.scoring <= 0 || !given)
      fail(error_id::search_no_data, "scores by ", name_of(method), " need at least one scoring step and ",
           "search_steps.", names[static_cast<int>(method)]);
  }

  void score(search_steps const& steps, candidate_stats& stats) {
    auto* const keep = options_.checkpoint.get();
    if (options_.method == score_method::gradient)
      gradient_scores<B>{model_, plan_, searched_, options_.difference_bytes}.run(steps, keep, stats);
    else one_group_scores<B>{model_, plan_, searched_}.run(options_.method, steps, keep, stats);
  }

  std::vector<std::pair<std::string, std::string>> run_facts(search_steps const& steps) {
    auto facts = calibration_facts(model_, steps);
    facts.insert(facts.begin() + 1, {"scoring steps", std::to_string(steps.scoring)});
    return facts;
  }

  /// What a checkpoint has to be of.
  search_facts facts(search_steps const& steps) {
    search_facts f{{{"method", std::string{name_of(options_.method)}}}, plan_.formats, plan_.stats, {}, {}};
    auto const run = run_facts(steps);
    f.options.insert(f.options.end(), run.begin(), run.end());
    for (std::size_t i = 0; i < searched_.size(); ++i)
      if (!plan_.score_points[i].empty()) f.score_points.emplace_back(searched_[i].name, plan_.score_points[i]);
    for (auto const& m : all_)
      if (m.weight.data != nullptr && is_compute(m.weight.type)) f.weights.emplace_back(m.name, weight_digest(m));
    return f;
  }
  std::string weight_digest(module_ref<B> const& m) {
    content_digest made;
    made.add(detail::concat(name_of(m.weight.type), ' ', to_string(m.weight)));
    made.add(fetch_floats(model_.device(), canonical_weight(m)));
    return made.text();
  }

  /// Of a module: did calibration show it data, or run no loop that could have?
  static auto shown_by(calibration_report const& report) {
    std::set<std::string> unshown;
    for (auto const& l : report.tokens.layers)
      if (l.tokens == 0) unshown.insert(l.layer);
    return [unshown = std::move(unshown)](std::string const& name) { return !unshown.contains(name); };
  }

  /// Throws where a module of a group no longer has the recipes that run() gave it.
  void require_recipes(group_stats const& group, module_ref<B> const& m) const {
    auto const& s = *m.slots->shared_site();
    refuse_inside_pass(s, "activating a choice");
    refuse_folded(m);
    std::vector<std::string> labels;
    for (auto const& c : group.candidates)
      if (c.recipe >= 0) labels.push_back(c.format);
    auto const is = [](std::string const& label, auto const& recipe) { return recipe.recipe == label; };
    if (s.recipes.size() != labels.size() + 1 || !std::equal(labels.begin(), labels.end(), s.recipes.begin(), is))
      fail(error_id::state_missing, m.name, ": the search's recipes are gone; quantize, a plan or another search has ",
           "replaced them, so run() again");
  }

  /// The walk and, of it, what can be searched.
  std::pair<std::vector<module_ref<B>>, std::vector<module_ref<B>>> found_modules() const {
    auto all = model_.modules();
    std::vector<module_ref<B>> searched;
    for (auto const& m : all)
      if (is_searchable(model_, m) || owns_cache(model_, m, options_.kv_cache)) searched.push_back(m);
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

  model<B>& model_;
  search_options options_;
  std::vector<module_ref<B>> all_, searched_;
  search_plan plan_;
  std::vector<std::string> notes_;
  std::vector<std::pair<std::string, std::string>> searched_with_;
  bool has_run_ = false;
};

}  // namespace mixbit
