// What a scoring pass keeps: the sums of each site, and the output differences of calls between forward and backward.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// The candidates and sums of one site while a scoring pass is on.
template <backend B>
struct score_state {
  score_state(B& device, std::vector<int> recipes, int step_count)
      : candidates{std::move(recipes)}, sums{device, candidates.size() * static_cast<std::size_t>(step_count)},
        steps{step_count} {}

  std::vector<int> candidates;  ///< indices into site::recipes
  buffer<B, double> sums;       ///< [steps, candidates]
  int steps = 0;
  int step = 0;                 ///< the step that runs
  bool at_region = false;       ///< is it scored where a region ends? Calls of its own layer are then left out
  std::int64_t calls = 0;       ///< times it was scored in that step; for a region its first member is
  std::atomic<std::thread::id> scorer{};  ///< the thread whose order the step's sum has; none yet: no thread's id

  void begin(int next) {
    step = next;
    calls = 0;
    scorer = std::thread::id{};
  }
  /// Throws `state_busy` where another thread has scored this site in this step.
  void claim(std::string const& site_name) {
    std::thread::id first{};
    auto const me = std::this_thread::get_id();
    if (!scorer.compare_exchange_strong(first, me) && first != me)
      fail(error_id::state_busy, site_name, ": scored by two threads in step ", step,
           "; the sum would depend on their order, so score a step's batches on one thread");
  }
  double* sum(std::size_t candidate) {
    return sums.data() + static_cast<std::size_t>(step) * candidates.size() + candidate;
  }
};

/// Output differences of one call of one site, kept from its forward to its backward. One per call.
template <backend B>
struct pending {
  std::shared_ptr<site<B>> owner;
  std::weak_ptr<score_state<B>> pass;  ///< of the pass whose candidates these are; gone when it ends
  geometry shape;
  std::vector<buffer<B, std::byte>> differences;  ///< dense, in the order of the site's candidates
};

}  // namespace mixbit
