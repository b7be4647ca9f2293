// A scoring pass: every site of a search scores its recipes while it lives.
#pragma once

#include <memory>
#include <vector>

#include "mixbit/quantizer/score.hpp"

namespace mixbit {

/// Sets hook and score state on each site; takes both off when it ends, also by an exception.
/// Candidates are all recipes of a site but its last, which is the unquantized one and runs.
template <backend B>
class scoring_pass {
 public:
  scoring_pass(std::vector<std::shared_ptr<site<B>>> sites, B& device, int steps)
      : sites_{std::move(sites)}, device_{device}, steps_{steps} {
    std::vector<std::shared_ptr<score_state<B>>> states;
    for (auto& s : sites_) {
      std::vector<int> candidates;
      for (std::size_t r = 0; r + 1 < s->recipes.size(); ++r) candidates.push_back(static_cast<int>(r));
      states.push_back(std::make_shared<score_state<B>>(device, std::move(candidates), steps));
    }
    for (std::size_t i = 0; i < sites_.size(); ++i) {  // nothing throws from here on
      sites_[i]->scoring = std::move(states[i]);
      sites_[i]->hook = &hook_;
      sites_[i]->refresh();
    }
  }
  scoring_pass(scoring_pass const&) = delete;
  scoring_pass& operator=(scoring_pass const&) = delete;
  ~scoring_pass() {
    for (auto& s : sites_) {
      s->scoring.reset();
      s->hook = nullptr;
      s->refresh();
    }
  }

  void begin(int step) {
    for (auto& s : sites_) s->scoring->begin(step);
  }
  int steps() const { return steps_; }

  /// Calls of `score`, summed over the sites that they scored.
  std::int64_t calls() const {
    std::int64_t n = 0;
    for (auto const& s : sites_) n += s->scoring->calls;
    return n;
  }

  /// One site's sum of one step; reads back once a site.
  double score(site<B>& s, std::size_t step, std::size_t candidate) {
    auto& state = *s.scoring;
    if (state.on_host.empty() && state.sums.size() != 0) {
      state.on_host.resize(state.sums.size());
      device_.copy_to_host(state.on_host.data(), state.sums.data(), state.sums.size() * sizeof(double));
    }
    return state.on_host[step * state.candidates.size() + candidate];
  }

 private:
  std::vector<std::shared_ptr<site<B>>> sites_;
  B& device_;
  int steps_;
  score_hook<B> hook_;
};

}  // namespace mixbit
