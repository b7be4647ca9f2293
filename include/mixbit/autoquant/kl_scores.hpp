// Scores that need no backward: one group at a time runs quantized, and what that does to the model's output is the
// score. By kl_div it is Σ KL(p_unquantized || p_recipe) over a step's logits, ModelOpt's second method; by degradation
// what the user's own metric loses. Groups that have one format only run it throughout.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

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
  one_group_scores(model<B>& m, search_plan const& plan, std::vector<module_ref<B>> const& searched)
      : model_{m}, plan_{plan}, searched_{searched} {}

  /// Writes the scores of groups with a choice to `stats`, which are the plan's. Throws `search_no_data` for logits
  /// that are not handed over once, `tensor_shape` for ones of another shape than the unquantized, and what the
  /// callbacks and the checkpoint throw.
  void run(score_method method, search_steps const& steps, search_checkpoint* checkpoint, candidate_stats& stats) {
    score_table table{stats, steps.scoring, checkpoint};
    total_ = steps.scoring * forwards_a_step(stats);
    done_ = table.next() * forwards_a_step(stats);
    for (int i = table.next(); i < steps.scoring; ++i) {
      table.begin();
      if (method == score_method::kl_div) kl_step(steps, i, table);
      else metric_step(steps, i, table);
      table.commit();
    }
    table.write(stats);
  }

 private:
  /// Runs a group's members under one of their recipes, and unquantized again when it ends.
  class switched {
   public:
    switched(one_group_scores const& of, std::size_t group, std::size_t recipe) {
      for (std::size_t const i : of.plan_.groups[group].members) {
        sites_.push_back(of.searched_[i].slots->shared_site());
        activate(*sites_.back(), recipe);
      }
    }
    switched(switched const&) = delete;
    switched& operator=(switched const&) = delete;
    ~switched() {
      for (auto const& s : sites_) activate(*s, s->recipes.size() - 1);
    }

   private:
    static void activate(site<B>& s, std::size_t recipe) {
      s.active = static_cast<int>(recipe);
      s.refresh();
    }
    std::vector<std::shared_ptr<site<B>>> sites_;
  };

  /// Calls measure(first module of the group) for each candidate of each group with a choice.
  template <class F>
  void for_each_candidate(search_steps const& steps, score_table& table, F&& measure) {
    tell(steps);
    for (std::size_t g = 0; g < plan_.stats.size(); ++g) {
      auto const& group = plan_.stats[g];
      for (std::size_t k = 0; group.is_open() && k < group.candidates.size(); ++k) {
        if (group.candidates[k].recipe < 0) continue;
        switched const quantized{*this, g, k};
        table.at(g, k) = measure(group.modules.front());
        ++table.count(g);
        tell(steps);
      }
    }
  }
  void tell(search_steps const& steps) {
    ++done_;
    if (steps.progress) steps.progress("score", static_cast<int>(done_), static_cast<int>(total_));
  }

  void kl_step(search_steps const& steps, int i, score_table& table) {
    auto const reference = taken([&](logits_sink const& sink) { steps.logits(i, sink); });
    for_each_candidate(steps, table, [&](std::string_view first) {
      auto const quantized = taken([&](logits_sink const& sink) {
        if (steps.logits_from) steps.logits_from(i, first, sink);
        else steps.logits(i, sink);
      });
      if (quantized.width() != reference.width() || quantized.rows() != reference.rows())
        fail(error_id::tensor_shape, "kl_div: step ", i, " gave ", quantized.rows(), " rows of ", quantized.width(),
             " logits with ", first, " quantized, and ", reference.rows(), " of ", reference.width(), " without");
      return kl_divergence(reference, quantized);
    });
  }
  void metric_step(search_steps const& steps, int i, score_table& table) {
    double const unquantized = steps.metric(i);
    for_each_candidate(steps, table, [&](std::string_view) { return steps.metric(i) - unquantized; });
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
  std::int64_t done_ = 0, total_ = 0;
};

}  // namespace mixbit
