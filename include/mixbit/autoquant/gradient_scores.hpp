// Gradient scores of a search: a forward and a backward a step score all groups (quantizer/score.hpp). A module is
// scored at its own output, or where a score rule says: there the host calls mixbit::score with search::regions.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "mixbit/autoquant/search_plan.hpp"
#include "mixbit/autoquant/sensitivity.hpp"

namespace mixbit {

template <backend B>
class gradient_scores {
 public:
  gradient_scores(model<B>& m, search_plan const& plan, std::vector<module_ref<B>> const& searched)
      : model_{m}, plan_{plan}, searched_{searched} {}

  /// Writes the scores of groups with a choice to `stats`, which are the plan's. Throws `search_no_data` where the
  /// steps scored nothing of a group, and what the callback throws.
  void run(search_steps const& steps, candidate_stats& stats) {
    scoring_pass<B> pass{open_sites(), model_.device(), steps.scoring};
    for (std::size_t i = 0; i < searched_.size(); ++i)
      if (auto& s = site_of(i); s.scoring) s.scoring->at_region = !plan_.score_points[i].empty();
    for (int i = 0; i < steps.scoring; ++i) {
      pass.begin(i);
      steps.score(i);
      if (steps.progress) steps.progress("score", i + 1, steps.scoring);
    }
    require_scored();
    for (std::size_t g = 0; g < stats.size(); ++g)
      if (stats[g].is_open()) collect(pass, g, stats[g]);
  }

 private:
  site<B>& site_of(std::size_t i) const { return *searched_[i].slots->shared_site(); }

  std::vector<std::shared_ptr<site<B>>> open_sites() const {
    std::vector<std::shared_ptr<site<B>>> sites;
    for (std::size_t g = 0; g < plan_.groups.size(); ++g)
      if (plan_.stats[g].is_open())
        for (std::size_t const i : plan_.groups[g].members) sites.push_back(searched_[i].slots->shared_site());
    return sites;
  }

  /// Throws where no member of a group was scored: zeros would give it the format of the fewest bits.
  void require_scored() const {
    std::string missed, point;
    int count = 0;
    for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
      auto const& members = plan_.groups[g].members;
      auto const scored = [&](std::size_t i) { return site_of(i).scoring->calls > 0; };
      if (!plan_.stats[g].is_open() || std::any_of(members.begin(), members.end(), scored)) continue;
      if (point.empty()) point = plan_.score_points[members.front()];
      for (auto const& name : plan_.stats[g].modules)
        if (++count <= 5) missed += (missed.empty() ? "" : ", ") + name;
    }
    if (count == 0) return;
    fail(error_id::search_no_data, "the scoring steps scored nothing of ", missed, count > 5 ? ", ..." : "",
         point.empty() ? ": their backward has to call mixbit::score; where it never runs, the loss does not reach "
                         "them, so that it says nothing of their formats: disable them, or score by a loss that does"
                       : ": a score rule names '" + point + "', so call mixbit::score with search::regions(\"" + point +
                             "\") in its backward");
  }

  void collect(scoring_pass<B>& pass, std::size_t g, group_stats& group) const {
    for (std::size_t k = 0; k < group.candidates.size(); ++k) {
      auto& c = group.candidates[k];
      c.score = 0;
      c.by_step.assign(static_cast<std::size_t>(pass.steps()), 0.0);
      if (c.recipe < 0) continue;
      for (std::size_t step = 0; step < c.by_step.size(); ++step) {
        for (std::size_t const i : plan_.groups[g].members) c.by_step[step] += pass.score(site_of(i), step, k);
        c.score += c.by_step[step];
      }
    }
  }

  model<B>& model_;
  search_plan const& plan_;
  std::vector<module_ref<B>> const& searched_;
};

}  // namespace mixbit
