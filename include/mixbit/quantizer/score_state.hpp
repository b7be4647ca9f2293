// What a scoring pass keeps: the sums of each site, and the output differences of calls between forward and backward.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "mixbit/core/thread_mark.hpp"
#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// The memory that output differences may take together between forwards and backwards. Calls may come from any thread.
class difference_memory {
 public:
  explicit difference_memory(std::int64_t limit) : limit_{limit} {}

  std::int64_t limit() const { return limit_; }
  std::int64_t used() const { return used_; }
  /// False where the limit does not hold so many more; nothing is taken then.
  bool take(std::int64_t bytes) {
    std::int64_t now = used_;
    do
      if (bytes > limit_ - now) return false;
    while (!used_.compare_exchange_weak(now, now + bytes));
    return true;
  }
  void give_back(std::int64_t bytes) { used_ -= bytes; }

 private:
  std::int64_t limit_;
  std::atomic<std::int64_t> used_{0};
};

/// A part of it, until it is destroyed.
class taken_memory {
 public:
  taken_memory(std::shared_ptr<difference_memory> of, std::int64_t bytes) : of_{std::move(of)}, bytes_{bytes} {}
  taken_memory(taken_memory const&) = delete;
  taken_memory& operator=(taken_memory const&) = delete;
  ~taken_memory() { of_->give_back(bytes_); }

 private:
  std::shared_ptr<difference_memory> of_;
  std::int64_t bytes_;
};

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
  std::shared_ptr<difference_memory> memory = {};  ///< of the pass; none: there is no limit
  std::atomic<detail::thread_mark> scorer{};  ///< the thread whose order the step's sum has; null: none yet

  void begin(int next) {
    step = next;
    calls = 0;
    scorer = nullptr;
  }
  /// Throws `state_busy` where another thread has scored this site in this step.
  void claim(std::string const& site_name) {
    detail::thread_mark first = nullptr;
    auto const me = detail::this_thread();
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
  std::shared_ptr<taken_memory const> memory = {};  ///< what they take of the pass's limit
  bool declined = false;  ///< was the limit too low, so that the backward has to recompute them?
};

}  // namespace mixbit
