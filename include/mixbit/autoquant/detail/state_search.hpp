// Dynamic programming over the core, by lists of undominated states.
//
// A state says what the groups taken so far change against the base, in cost and in score; every state is a whole
// choice, since the groups not yet taken stay at their base. Groups come in order of their least reduced cost, sorted
// only as far as needed. A state is kept while a bound says that it may still lead to a better choice: lower score,
// or the same score at lower cost. The search ends when no state is left, which proves the best one optimal.
//
// When a list outgrows its limit or the time is up, states are dropped, and the smallest bound among the dropped is
// the bound that can still be proved. Sources: Pisinger 1995 for the expanding core and for states as choices.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/core.hpp"
#include "mixbit/autoquant/detail/deadline.hpp"
#include "mixbit/autoquant/detail/state_list.hpp"

namespace mixbit::solver::detail {

class state_search {
 public:
  /// `max_states` bounds each list; `never` means no deadline.
  state_search(core problem, std::size_t max_states, time_point deadline)
      : core_{std::move(problem)}, max_states_{max_states}, width_{max_states}, deadline_{deadline} {
    improve(core_.start_score, core_.start_cost, decision_tree::none);
    from_base_ = false;
    reach_ = std::abs(static_cast<double>(core_.slack));
    for (open_group const& group : core_.groups) {
      double largest = 0;
      for (std::uint32_t i = group.first; i < group.last; ++i)
        largest = std::max(largest, std::abs(static_cast<double>(core_.alternatives[i].cost)));
      reach_ += largest;
    }
  }

  /// Runs to the proof or to a limit; then the members below hold the result.
  void run() {
    states_.push_back({0, 0, decision_tree::none});
    if (is_better(states_.front())) improve(0, 0, decision_tree::none);
    std::size_t begin = 0;
    for (std::size_t length = 32; begin < core_.groups.size() && !states_.empty(); length *= 2) {
      select(begin, length);
      std::size_t const end = begin + outlooks_.size() - 1;
      for (std::size_t i = begin; i < end && !states_.empty(); ++i) {
        outlook_ = outlooks_[i - begin];
        if (is_spent() || is_over(deadline_)) return drop_all();
        if (core_.groups[i].least_reduced > reduced_limit()) return;  // so are all that follow
        outlook_ = outlooks_[i - begin + 1];
        take(core_.groups[i]);
      }
      begin = end;
    }
  }

  wide best_score() const noexcept { return best_score_; }
  std::size_t generated() const noexcept { return generated_; }
  core const& problem() const noexcept { return core_; }

  /// No choice has a lower score than this.
  wide bound() const noexcept {
    if (dropped_ >= best_score_) return best_score_;
    wide const remainder = ((dropped_ % core_.score_step) + core_.score_step) % core_.score_step;
    return remainder == 0 ? dropped_ : dropped_ - remainder + core_.score_step;
  }

  /// The item of each group in the best choice.
  std::vector<std::uint32_t> choice() const {
    std::vector<std::uint32_t> items = from_base_ ? core_.base : core_.start;
    tree_.path(best_node_, [&](std::uint32_t i) {
      items[core_.alternatives[i].group] = core_.alternatives[i].item;
    });
    return items;
  }

 private:
  bool is_better(state const& one) const noexcept {
    return one.cost <= core_.slack &&
           (one.score < best_score_ || (one.score == best_score_ && one.cost < best_cost_));
  }

  void improve(wide score, std::int64_t cost, std::uint32_t node) {
    best_score_ = score;
    best_cost_ = cost;
    best_node_ = node;
    from_base_ = true;
    lower_limit_ = best_score_ - core_.score_step + core_.slope * core_.slack;
    cheaper_limit_ = best_score_ + core_.slope * (best_cost_ - core_.cost_step);
  }

  /// The largest reduced score that a better choice can have: that of a lower score within the slack, or of the same
  /// score one cost step below the best.
  wide reduced_limit() const noexcept { return std::max(lower_limit_, cheaper_limit_); }

  /// Whether a state may lead to a better choice by taking at least one more alternative.
  bool is_useful(state const& one) const noexcept {
    wide const reduced = one.score + core_.slope * one.cost;
    wide const total = reduced + outlook_.least(core_.slack - one.cost);
    if (total <= lower_limit_) return true;
    if (total - core_.score_step > lower_limit_) return false;
    return reduced + outlook_.least(best_cost_ - core_.cost_step - one.cost) <= cheaper_limit_;
  }

  wide bound_of(state const& one) const noexcept {
    return one.score + core_.slope * (one.cost - core_.slack) + outlook_.least(core_.slack - one.cost);
  }

  /// Drops alternatives that the best choice so far rules out from the groups at `begin` and after, brings the next
  /// `length` groups into order and computes the outlook before each of them and behind the last.
  void select(std::size_t begin, std::size_t length) {
    auto const first = core_.groups.begin() + static_cast<std::ptrdiff_t>(begin);
    core_.groups.erase(std::remove_if(first, core_.groups.end(), [this](open_group& one) { return !shrink(one); }),
                       core_.groups.end());
    auto const middle = first + static_cast<std::ptrdiff_t>(std::min(length, core_.groups.size() - begin));
    // Equals come scattered: in the order given, all groups at the top of their hull may come before all at the foot,
    // and changes in one direction alone cannot fill the slack. The product is one to one.
    auto const before = [](open_group const& a, open_group const& b) {
      if (a.least_reduced != b.least_reduced) return a.least_reduced < b.least_reduced;
      return a.first * 2'654'435'769U < b.first * 2'654'435'769U;
    };
    if (middle != core_.groups.end()) std::nth_element(first, middle, core_.groups.end(), before);
    std::sort(first, middle, before);
    outlook after;
    for (auto i = middle; i != core_.groups.end(); ++i) include(after, *i);
    outlooks_.assign(static_cast<std::size_t>(middle - first) + 1, after);
    outlooks_.back().settle(core_.slope, reach_);
    for (std::size_t i = outlooks_.size() - 1; i-- > 0;) {
      include(after, core_.groups[begin + i]);
      outlooks_[i] = after;
      outlooks_[i].settle(core_.slope, reach_);
    }
  }

  void include(outlook& into, open_group const& group) {
    for (std::uint32_t i = group.first; i < group.last; ++i) into.include(core_.alternatives[i]);
  }

  /// False if no alternative of the group is left.
  bool shrink(open_group& group) {
    if (group.least_reduced > reduced_limit()) return false;
    auto const all = core_.alternatives.begin();
    auto const kept = std::remove_if(all + group.first, all + group.last,
                                     [this](alternative const& one) { return one.reduced > reduced_limit(); });
    group.last = static_cast<std::uint32_t>(kept - all);
    return true;
  }

  /// Replaces the states by those that one more group leads to.
  void take(open_group const& group) {
    next_.clear();
    for (state const& one : states_) {
      if (is_useful(one)) next_.push_back(one);
    }
    for (std::uint32_t i = group.first; i < group.last; ++i) {
      if (core_.alternatives[i].reduced > reduced_limit()) continue;
      merge(i);
      hold_limits();
    }
    states_.swap(next_);
  }

  /// Merges into `next_` the states moved by one alternative. Both lists rise in cost and fall in score; of equal
  /// states the one that was there first stays.
  void merge(std::uint32_t index) {
    alternative const& by = core_.alternatives[index];
    merged_.clear();
    auto old = next_.begin();
    auto const keep = [this](state const& one) {
      if (merged_.empty() || one.score < merged_.back().score) merged_.push_back(one);
    };
    for (state const& from : states_) {
      state moved{from.score + by.score, from.cost + by.cost, decision_tree::none};
      for (; old != next_.end() && (old->cost < moved.cost || (old->cost == moved.cost && old->score <= moved.score));
           ++old) {
        keep(*old);
      }
      if (!merged_.empty() && moved.score >= merged_.back().score) continue;
      bool const better = is_better(moved);
      if (!better && !is_useful(moved)) continue;
      moved.node = tree_.add(from.node, index);
      ++generated_;
      if (better) improve(moved.score, moved.cost, moved.node);
      merged_.push_back(moved);
    }
    for (; old != next_.end(); ++old) keep(*old);
    next_.swap(merged_);
  }

  /// Keeps the list within its limit and the tree of decisions within four nodes a state.
  void hold_limits() {
    if (next_.size() > width_) trim();
    if (tree_.size() <= 4 * max_states_) return;
    tree_.collect(states_, next_, best_node_);
    if (tree_.size() <= 2 * max_states_) return;
    width_ = std::max<std::size_t>(std::min(width_, next_.size()) / 2, 1);
    trim();
  }

  /// Keeps the states with the best bounds. What follows is a heuristic, so it goes on with a narrow list.
  void trim() {
    limited_ = true;
    width_ = std::min(width_, std::max<std::size_t>(max_states_ / 512, 1));
    if (next_.size() <= width_) return;
    using rank = std::pair<wide, std::int64_t>;  // bound, then distance from the slack
    auto const rank_of = [this](state const& one) {
      return rank{bound_of(one), std::abs(core_.slack - one.cost)};
    };
    std::vector<rank> ranks(next_.size());
    std::transform(next_.begin(), next_.end(), ranks.begin(), rank_of);
    auto const cut = ranks.begin() + static_cast<std::ptrdiff_t>(width_);
    std::nth_element(ranks.begin(), cut, ranks.end());
    rank const threshold = *cut;
    dropped_ = std::min(dropped_, threshold.first);
    std::erase_if(next_, [&](state const& one) { return rank_of(one) >= threshold; });
  }

  /// After a limit was met nothing more is proved; looking for better choices ends where it rarely finds any.
  bool is_spent() const noexcept { return limited_ && generated_ / 64 > max_states_; }

  void drop_all() {
    limited_ = true;
    for (state const& one : states_) dropped_ = std::min(dropped_, bound_of(one));
  }

  core core_;
  std::size_t max_states_;
  std::size_t width_;  // of the lists; narrower once a limit was met
  time_point deadline_;
  double reach_ = 0;  // bits: no slack is larger
  wide best_score_ = 0;
  std::int64_t best_cost_ = 0;
  std::uint32_t best_node_ = decision_tree::none;
  bool from_base_ = false;  // the best choice is told against the base, not against the start
  wide lower_limit_ = 0;    // of the reduced score that leads to a lower score
  wide cheaper_limit_ = 0;  // or to the same score at a lower cost
  wide dropped_ = outlook::unlimited;
  bool limited_ = false;
  std::size_t generated_ = 0;
  decision_tree tree_;
  std::vector<state> states_, next_, merged_;
  std::vector<outlook> outlooks_;
  outlook outlook_;
};

}  // namespace mixbit::solver::detail
