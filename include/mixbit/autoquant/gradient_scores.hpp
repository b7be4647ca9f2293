// Gradient scores of a search: a forward and a backward a step score all groups (quantizer/score.hpp). A module is
// scored at its own output, or where a score rule says: there the host calls mixbit::score with search::regions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/score_table.hpp"
#include "mixbit/autoquant/search_plan.hpp"
#include "mixbit/autoquant/sensitivity.hpp"

namespace mixbit {

template <backend B>
class gradient_scores {
 public:
  gradient_scores(model<B>& m, search_plan const& plan, std::vector<module_ref<B>> const& searched,
                  std::optional<std::int64_t> difference_bytes)
      : model_{m}, plan_{plan}, searched_{searched}, difference_bytes_{difference_bytes} {}

  /// Writes the scores of groups with a choice to `stats`, which are the plan's. Throws `search_no_data` where the
  /// steps scored nothing of a group, and what the callback and the checkpoint throw.
  void run(search_steps const& steps, search_checkpoint* checkpoint, candidate_stats& stats) {
    score_table table{stats, steps.scoring, checkpoint};
    scoring_pass<B> pass{open_sites(), model_.device(), steps.scoring, difference_bytes_};
    for (std::size_t i = 0; i < searched_.size(); ++i)
      if (auto& s = site_of(i); s.scoring) s.scoring->at_region = !plan_.score_points[i].empty();
    for (int i = table.next(); i < steps.scoring; ++i) {
      pass.begin(i);
      steps.score(i);
      collect(pass, static_cast<std::size_t>(i), table);
      if (steps.progress) steps.progress("score", i + 1, steps.scoring);
    }
    require_scored(table);
    table.write(stats);
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
  void require_scored(score_table& table) const {
    std::string missed, point;
    int count = 0;
    for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
      if (!plan_.stats[g].is_open() || table.count(g) > 0) continue;
      if (point.empty()) point = plan_.score_points[plan_.groups[g].members.front()];
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

  /// The sums of a step that has run, each over a group's members in their order.
  void collect(scoring_pass<B>& pass, std::size_t step, score_table& table) const {
    table.begin();
    for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
      if (!plan_.stats[g].is_open()) continue;
      for (std::size_t const i : plan_.groups[g].members) {
        auto const sums = pass.scores(site_of(i), step);
        for (std::size_t k = 0; k < sums.size(); ++k) table.at(g, k) += sums[k];
        table.count(g) += pass.calls(site_of(i));
      }
    }
    table.commit();
  }

  model<B>& model_;
  search_plan const& plan_;
  std::vector<module_ref<B>> const& searched_;
  std::optional<std::int64_t> difference_bytes_;
};

}  // namespace mixbit
