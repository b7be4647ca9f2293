// A scoring pass: every site of a search scores its recipes while it lives.
#pragma once

#include <memory>
#include <vector>

#include "mixbit/quantizer/hooked_sites.hpp"
#include "mixbit/quantizer/score.hpp"

namespace mixbit {

/// Sets hook and score state on each site; takes both off when it ends, also by an exception.
/// Candidates are all recipes of a site but its last, which is the unquantized one and runs.
template <backend B>
class scoring_pass {
 public:
  scoring_pass(std::vector<std::shared_ptr<site<B>>> sites, B& device, int steps)
      : device_{device}, steps_{steps}, hooked_{std::move(sites), hook_} {
    std::vector<std::shared_ptr<score_state<B>>> states;
    for (auto& s : hooked_.all()) {
      std::vector<int> candidates;
      for (std::size_t r = 0; r + 1 < s->recipes.size(); ++r) candidates.push_back(static_cast<int>(r));
      states.push_back(std::make_shared<score_state<B>>(device, std::move(candidates), steps));
    }
    for (std::size_t i = 0; i < states.size(); ++i) hooked_.all()[i]->scoring = std::move(states[i]);
  }
  scoring_pass(scoring_pass const&) = delete;
  scoring_pass& operator=(scoring_pass const&) = delete;
  ~scoring_pass() {
    for (auto& s : hooked_.all()) s->scoring.reset();
  }

  void begin(int step) {
    for (auto& s : hooked_.all()) s->scoring->begin(step);
  }
  int steps() const { return steps_; }

  /// Calls of `score`, summed over the sites that they scored.
  std::int64_t calls() const {
    std::int64_t n = 0;
    for (auto const& s : hooked_.all()) n += s->scoring->calls;
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
  B& device_;
  int steps_;
  score_hook<B> hook_;
  hooked_sites<B> hooked_;
};

}  // namespace mixbit
