// The scores of a search as they come in, a step a row: kept after each where a checkpoint is given, and put into the
// statistics at the end, summed in the order of the steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mixbit/autoquant/search_checkpoint.hpp"

namespace mixbit {

class score_table {
 public:
  /// `checkpoint` may be null; else what it holds is taken up. Throws `file_content` for scores of another search.
  score_table(candidate_stats const& stats, int steps, search_checkpoint* checkpoint) : checkpoint_{checkpoint} {
    for (auto const& g : stats) {
      columns_.push_back(width_);
      if (g.is_open()) width_ += g.candidates.size();
    }
    kept_.counts.resize(stats.size());
    if (auto found = checkpoint ? checkpoint->load_scores() : std::nullopt) {
      if (found->steps < 0 || found->steps > steps || found->counts.size() != stats.size() ||
          found->values.size() != static_cast<std::size_t>(found->steps) * width_)
        fail(error_id::file_content, "the scores that were kept are of ", found->steps, " steps and ",
             found->values.size(), " values, and the search has ", steps, " steps of ", width_);
      kept_ = std::move(*found);
    }
  }

  /// The step to go on with.
  int next() const { return kept_.steps; }

  /// Begins the row of the next step.
  void begin() { kept_.values.resize((static_cast<std::size_t>(kept_.steps) + 1) * width_); }
  double& at(std::size_t group, std::size_t candidate) {
    return kept_.values[static_cast<std::size_t>(kept_.steps) * width_ + columns_[group] + candidate];
  }
  /// How often a group has been scored.
  std::int64_t& count(std::size_t group) { return kept_.counts[group]; }
  /// Ends the step.
  void commit() {
    ++kept_.steps;
    if (checkpoint_) checkpoint_->save_scores(kept_);
  }

  /// Of all steps, to groups with a choice.
  void write(candidate_stats& stats) const {
    for (std::size_t g = 0; g < stats.size(); ++g)
      for (std::size_t k = 0; stats[g].is_open() && k < stats[g].candidates.size(); ++k) {
        auto& c = stats[g].candidates[k];
        c.score = 0;
        c.by_step.clear();
        for (std::size_t step = 0; step < static_cast<std::size_t>(kept_.steps); ++step) {
          c.by_step.push_back(kept_.values[step * width_ + columns_[g] + k]);
          c.score += c.by_step.back();
        }
      }
  }

 private:
  search_checkpoint* checkpoint_;
  std::size_t width_ = 0;
  std::vector<std::size_t> columns_;  ///< by group: where its candidates begin
  kept_scores kept_;
};

}  // namespace mixbit
