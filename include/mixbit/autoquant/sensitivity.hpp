// A scoring pass: every site of a search scores its recipes while it lives.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "mixbit/quantizer/hooked_sites.hpp"
#include "mixbit/quantizer/score.hpp"

namespace mixbit {

/// Sets hook and score state on each site; takes both off when it ends, also by an exception.
/// Candidates are all recipes of a site but its last, which is the unquantized one and runs.
template <backend B>
class scoring_pass {
 public:
  /// `difference_bytes`: what apply(..., &kept) may keep of all sites at a time; none: all that hosts ask for.
  scoring_pass(std::vector<std::shared_ptr<site<B>>> sites, B& device, int steps,
               std::optional<std::int64_t> difference_bytes = std::nullopt)
      : device_{device}, hooked_{std::move(sites), hook_} {
    auto const memory = difference_bytes ? std::make_shared<difference_memory>(*difference_bytes) : nullptr;
    std::vector<std::shared_ptr<score_state<B>>> states;
    for (auto& s : hooked_.all()) {
      std::vector<int> candidates;
      for (std::size_t r = 0; r + 1 < s->recipes.size(); ++r) candidates.push_back(static_cast<int>(r));
      states.push_back(std::make_shared<score_state<B>>(device, std::move(candidates), steps));
      states.back()->memory = memory;
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

  /// Calls of `score` in the step that runs, of one site and of all that they scored.
  std::int64_t calls(site<B> const& s) const { return s.scoring->calls; }
  std::int64_t calls() const {
    std::int64_t n = 0;
    for (auto const& s : hooked_.all()) n += s->scoring->calls;
    return n;
  }

  /// One site's sums of one step, a candidate each; waits for the device.
  std::vector<double> scores(site<B>& s, std::size_t step) {
    auto& state = *s.scoring;
    std::vector<double> sums(state.candidates.size());
    if (!sums.empty())
      device_.copy_to_host(sums.data(), state.sums.data() + step * sums.size(), sums.size() * sizeof(double));
    return sums;
  }
  double score(site<B>& s, std::size_t step, std::size_t candidate) { return scores(s, step)[candidate]; }

 private:
  B& device_;
  score_hook<B> hook_;
  hooked_sites<B> hooked_;
};

}  // namespace mixbit
