// Scores that need no backward: one group at a time runs quantized, and what that does to the model's output is the
// score. By kl_div it is Σ KL(p_unquantized || p_recipe) over a step's logits, ModelOpt's second method; by degradation
// what the user's own metric loses. Groups that have one format only run it throughout. The same around a choice (for
// autoquant/refine.hpp): one group at a time runs another format, all others what was chosen for them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/active_recipes.hpp"
#include "mixbit/autoquant/kl_divergence.hpp"
#include "mixbit/autoquant/score_table.hpp"
#include "mixbit/autoquant/search_plan.hpp"
#include "mixbit/calib/host_floats.hpp"

namespace mixbit {

/// Forwards of a scoring step that quantizes one group at a time: one without, and one for each candidate.
inline std::int64_t forwards_a_step(candidate_stats const& stats) {
  std::int64_t n = 1;
  for (auto const& g : stats)
    if (g.is_open())
      for (auto const& c : g.candidates) n += c.recipe >= 0;
  return n;
}

template <backend B>
class one_group_scores {
 public:
  /// `around` is the choice that the model runs, one candidate a group; none: groups with a choice run unquantized.
  /// Scores around a choice are what another candidate adds to what is measured of it; its own are 0.
  one_group_scores(model<B>& m, search_plan const& plan, std::vector<module_ref<B>> const& searched,
                   std::vector<int> around = {})
      : model_{m}, plan_{plan}, searched_{searched}, around_{std::move(around)} {}

  /// Writes the scores of groups with a choice to `stats`, which are the plan's. Throws `search_no_data` for logits
  /// that are not handed over once, `tensor_shape` for ones of another shape than the unquantized, and what the
  /// callbacks and the checkpoint throw.
  void run(score_method method, search_steps const& steps, search_checkpoint* checkpoint, candidate_stats& stats,
           std::string_view phase = "score") {
    phase_ = phase;
    score_table table{stats, steps.scoring, checkpoint};
    std::int64_t const each = measured_a_step();
    total_ = steps.scoring * each;
    done_ = table.next() * each;
    for (int i = table.next(); i < steps.scoring; ++i) {
      table.begin();
      if (method == score_method::kl_div) kl_step(steps, i, table);
      else metric_step(steps, i, table);
      table.commit();
    }
    table.write(stats);
  }

 private:
  /// Groups run other recipes while it lives.
  class switched {
   public:
    /// A group under one of its candidates.
    switched(one_group_scores const& of, std::size_t group, std::size_t candidate) : kept_{of.sites({group})} {
      bool const none = of.plan_.stats[group].candidates[candidate].recipe < 0;
      kept_.activate_all([&](auto const& s) { return none ? unquantized_index(s) : static_cast<int>(candidate); });
    }
    /// All groups with a choice, unquantized.
    explicit switched(one_group_scores const& of) : kept_{of.sites(of.open_groups())} {
      kept_.activate_all([](auto const& s) { return unquantized_index(s); });
    }

   private:
    active_recipes<B> kept_;
  };
  std::vector<std::size_t> open_groups() const {
    std::vector<std::size_t> groups;
    for (std::size_t g = 0; g < plan_.stats.size(); ++g)
      if (plan_.stats[g].is_open()) groups.push_back(g);
    return groups;
  }
  std::vector<std::shared_ptr<site<B>>> sites(std::vector<std::size_t> const& groups) const {
    std::vector<std::shared_ptr<site<B>>> all;
    for (std::size_t const g : groups)
      for (std::size_t const i : plan_.groups[g].members) all.push_back(searched_[i].slots->shared_site());
    return all;
  }

  /// What progress counts: the base, and what is measured against it.
  std::int64_t measured_a_step() const {
    std::int64_t n = 1;
    for (std::size_t const g : open_groups())
      for (std::size_t k = 0; k < plan_.stats[g].candidates.size(); ++k) n += !runs(g, k);
    return n;
  }
  /// What the model runs of a group, which is not measured again.
  bool runs(std::size_t g, std::size_t k) const {
    return around_.empty() ? plan_.stats[g].candidates[k].recipe < 0 : around_[g] == static_cast<int>(k);
  }

  /// Calls measure(first module of the group) for each candidate of each group with a choice.
  template <class F>
  void for_each_candidate(search_steps const& steps, score_table& table, F&& measure) {
    tell(steps);
    for (std::size_t g = 0; g < plan_.stats.size(); ++g) {
      auto const& group = plan_.stats[g];
      for (std::size_t k = 0; group.is_open() && k < group.candidates.size(); ++k) {
        if (runs(g, k)) continue;
        switched const quantized{*this, g, k};
        table.at(g, k) = measure(group.modules.front());
        ++table.count(g);
        tell(steps);
      }
    }
  }
  void tell(search_steps const& steps) {
    ++done_;
    if (steps.progress) steps.progress(phase_, static_cast<int>(done_), static_cast<int>(total_));
  }

  void kl_step(search_steps const& steps, int i, score_table& table) {
    auto const whole = [&] { return taken([&](logits_sink const& sink) { steps.logits(i, sink); }); };
    auto const reference = unquantized(whole);
    double const chosen = around_.empty() ? 0 : kl_divergence(reference, whole());
    for_each_candidate(steps, table, [&](std::string_view first) {
      auto const quantized = taken([&](logits_sink const& sink) {
        if (steps.logits_from) steps.logits_from(i, first, sink);
        else steps.logits(i, sink);
      });
      if (quantized.width() != reference.width() || quantized.rows() != reference.rows())
        fail(error_id::tensor_shape, "kl_div: step ", i, " gave ", quantized.rows(), " rows of ", quantized.width(),
             " logits with ", first, " quantized, and ", reference.rows(), " of ", reference.width(), " without");
      return kl_divergence(reference, quantized) - chosen;
    });
  }
  template <class F>
  logit_rows unquantized(F&& whole) {
    switched const none{*this};
    return whole();
  }
  void metric_step(search_steps const& steps, int i, score_table& table) {
    double const base = steps.metric(i);
    for_each_candidate(steps, table, [&](std::string_view) { return steps.metric(i) - base; });
  }

  /// The logits that one call of the host hands over.
  template <class F>
  logit_rows taken(F&& call) {
    logit_rows rows;
    int times = 0;
    call(logits_sink{[&](const_tensor_ref y) {
      if (++times > 1 || y.rank == 0) return;
      rows = {fetch_floats(model_.device(), y), y.shape[y.rank - 1]};
    }});
    if (times != 1 || rows.rows() == 0)
      fail(error_id::search_no_data, "kl_div: a call of search_steps.logits handed over ",
           times == 1 ? "no rows of logits" : std::to_string(times) + " tensors", "; it hands over the logits, once");
    return rows;
  }

  model<B>& model_;
  search_plan const& plan_;
  std::vector<module_ref<B>> const& searched_;
  std::vector<int> around_;
  std::int64_t done_ = 0, total_ = 0;
  std::string_view phase_;  ///< what progress is called
};

}  // namespace mixbit
