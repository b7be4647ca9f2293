// The search for several budgets: lists of partial choices, bounded by prices, as state_search.hpp has it for one.
//
// A state says what the groups taken so far change against the base; the groups not yet taken stay at theirs, so every
// state is a whole choice. It is kept while its reduced score, and the least that one more change must add, allow a
// better choice than the best known. Where none is known yet, a limit on the reduced score is guessed and raised until
// one is found below it, which is then proved, or until no state is cut off, which proves that there is none.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/budget_core.hpp"
#include "mixbit/autoquant/detail/deadline.hpp"
#include "mixbit/autoquant/detail/state_list.hpp"

namespace mixbit::solver::detail {

class budget_search {
 public:
  struct state {
    wide score;
    wide reduced;
    cost_vector cost;
    std::uint32_t node;
  };

  budget_search(budget_core core, std::size_t max_states, time_point deadline)
      : core_{std::move(core)}, max_states_{max_states}, deadline_{deadline} {
    outlooks_.resize(core_.groups.size() + 1);
    outlook_set after{};
    for (std::size_t i = core_.groups.size() + 1; i-- > 0;) {
      if (i < core_.groups.size()) include(after, core_.groups[i]);
      outlooks_[i] = after;
      for (std::size_t d = 0; d < core_.count; ++d) outlooks_[i][d].settle(core_.price[d], core_.reach[d]);
    }
  }

  /// `any`: ends at the first choice that fits.
  void run(bool any) {
    any_ = any;
    start();
    wide guess = initial_guess();
    while (true) {
      limit_ = has_best_ ? better_than_best() : guess;
      pass();
      if (limited_ && has_best_ && limit_ < better_than_best())
        dropped_ = std::min(dropped_, limit_ + 1 - core_.priced_slack);  // what the guess kept out
      if (limited_ || (any_ && has_best_)) return;
      if (has_best_ && better_than_best() <= limit_) return;  // nothing below the best was cut off
      if (!has_best_ && !cut_) return;
      guess *= 4;
    }
  }

  bool found() const noexcept { return has_best_; }
  bool limited() const noexcept { return limited_; }
  wide best_score() const noexcept { return best_.score; }
  std::size_t generated() const noexcept { return generated_; }
  budget_core const& problem() const noexcept { return core_; }

  /// No choice that fits has a lower score than this.
  wide bound() const noexcept {
    if (!has_best_ || dropped_ >= best_.score) return best_.score;
    wide const remainder = ((dropped_ % core_.score_step) + core_.score_step) % core_.score_step;
    return remainder == 0 ? dropped_ : dropped_ - remainder + core_.score_step;
  }

  std::vector<std::uint32_t> const& choice() const noexcept { return choice_; }

 private:
  using outlook_set = std::array<outlook, most_budgets>;

  void include(outlook_set& into, priced_group const& group) const {
    for (std::uint32_t i = group.first; i < group.last; ++i) {
      priced_change const& one = core_.changes[i];
      for (std::size_t d = 0; d < core_.count; ++d) into[d].include({one.score, one.reduced, one.cost[d], 0, 0});
    }
  }

  bool fits(cost_vector const& cost) const {
    for (std::size_t d = 0; d < core_.count; ++d) {
      if (cost[d] > core_.slack[d]) return false;
    }
    return true;
  }

  static state moved(state const& from, priced_change const& by) {
    state result{from.score + by.score, from.reduced + by.reduced, from.cost, decision_tree::none};
    for (std::size_t d = 0; d < most_budgets; ++d) result.cost[d] += by.cost[d];
    return result;
  }

  /// The reduced score of a choice is its score plus the price of its costs; with all slack used that is the least.
  wide better_than_best() const { return best_.score - core_.score_step + core_.priced_slack; }

  void take_best(state const& from, std::vector<std::uint32_t> items) {
    best_ = from;
    has_best_ = true;
    choice_ = std::move(items);
    if (cut_at_best_) limit_ = std::min(limit_, better_than_best());
  }

  /// A first choice: from the base, the change of least reduced score for what it saves, until all budgets are met;
  /// then whatever lowers the score.
  void start() {
    std::vector<std::uint32_t> at(core_.groups.size(), none);
    state now{0, 0, {}, decision_tree::none};
    for (std::size_t step = 0; step < 200; ++step) {
      bool const repairing = !fits(now.cost);
      double best = 0;
      std::size_t group = core_.groups.size();
      std::uint32_t chosen = none;
      for (std::size_t g = 0; g < core_.groups.size(); ++g) {
        for (std::uint32_t i = core_.groups[g].first; i < core_.groups[g].last; ++i) {
          double const gain = at[g] == i ? 0 : gain_of(now, at[g], i, repairing);
          if (gain > best) {
            best = gain;
            group = g;
            chosen = i;
          }
        }
      }
      if (group == core_.groups.size()) break;
      now = exchanged(now, at[group], chosen);
      at[group] = chosen;
    }
    if (!fits(now.cost)) return;
    std::vector<std::uint32_t> items = core_.base;
    for (std::uint32_t const i : at) {
      if (i != none) items[core_.changes[i].group] = core_.changes[i].item;
    }
    take_best(now, std::move(items));
  }

  state exchanged(state now, std::uint32_t from, std::uint32_t to) const {
    if (from != none) {
      priced_change const& old = core_.changes[from];
      now.score -= old.score;
      now.reduced -= old.reduced;
      for (std::size_t d = 0; d < core_.count; ++d) now.cost[d] -= old.cost[d];
    }
    return moved(now, core_.changes[to]);
  }

  double excess(cost_vector const& cost) const {
    double sum = 0;
    for (std::size_t d = 0; d < core_.count; ++d)
      sum += std::max(0.0, static_cast<double>(cost[d] - core_.slack[d]) / (core_.reach[d] + 1));
    return sum;
  }

  double gain_of(state const& now, std::uint32_t from, std::uint32_t to, bool repairing) const {
    state const then = exchanged(now, from, to);
    if (!repairing) return fits(then.cost) ? static_cast<double>(now.score - then.score) : 0;
    double const saved = excess(now.cost) - excess(then.cost);
    double const price = std::max(static_cast<double>(then.reduced - now.reduced), 1.0);
    return saved > 0 ? saved / price : 0;
  }

  /// Somewhat more than the first changes add.
  wide initial_guess() const {
    wide sum = 1;
    for (std::size_t i = 0; i < std::min<std::size_t>(core_.groups.size(), 8); ++i)
      sum += core_.groups[i].least_reduced;
    return sum;
  }

  void pass() {
    cut_at_best_ = true;
    cut_ = false;
    tree_ = {};
    states_.assign(1, {0, 0, {}, decision_tree::none});
    if (is_better(states_.front())) take_best(states_.front(), core_.base);
    for (std::size_t i = 0; i < core_.groups.size() && !states_.empty(); ++i) {
      if (any_ && has_best_) return;
      group_ = i;
      if (is_over(deadline_) || (limited_ && generated_ / 64 > max_states_)) {
        limited_ = true;
        for (state const& one : states_) drop(one);
        return;
      }
      if (core_.groups[i].least_reduced > limit_) {
        cut_ = true;
        return;
      }
      take(core_.groups[i]);
    }
  }

  bool is_better(state const& one) const { return fits(one.cost) && (!has_best_ || one.score < best_.score); }

  /// The least reduced score of a choice that changes at least one more group from `next` on.
  wide outlook_of(state const& one, std::size_t next) const {
    wide least = 0;
    for (std::size_t d = 0; d < core_.count; ++d)
      least = std::max(least, outlooks_[next][d].least(core_.slack[d] - one.cost[d]));
    return one.reduced + least;
  }

  bool is_useful(state const& one) {
    wide const least = outlook_of(one, group_ + 1);
    if (least <= limit_) return true;
    if (least < outlook::unlimited) cut_ = true;
    return false;
  }

  void drop(state const& one) { dropped_ = std::min(dropped_, outlook_of(one, group_) - core_.priced_slack); }

  void take(priced_group const& group) {
    next_.clear();
    for (state const& one : states_) {
      if (is_useful(one)) next_.push_back(one);
    }
    for (std::uint32_t i = group.first; i < group.last; ++i) {
      if (core_.changes[i].reduced > limit_) {
        cut_ = true;
        continue;
      }
      for (state const& from : states_) {
        state to = moved(from, core_.changes[i]);
        bool const better = is_better(to);
        if (!better && !is_useful(to)) continue;
        to.node = tree_.add(from.node, i);
        ++generated_;
        if (better) take_best(to, items_of(to));
        if (is_useful(to)) next_.push_back(to);
      }
      if (next_.size() > 2 * max_states_) reduce_list();
    }
    reduce_list();
    states_.swap(next_);
  }

  std::vector<std::uint32_t> items_of(state const& one) const {
    std::vector<std::uint32_t> items = core_.base;
    tree_.path(one.node, [&](std::uint32_t i) { items[core_.changes[i].group] = core_.changes[i].item; });
    return items;
  }

  /// Removes dominated states; then, above the limit, those of the largest bounds.
  void reduce_list() {
    std::sort(next_.begin(), next_.end(), [](state const& a, state const& b) {
      if (a.score != b.score) return a.score < b.score;
      return a.cost != b.cost ? a.cost < b.cost : a.node < b.node;
    });
    remove_dominated();
    if (next_.size() > width()) trim();
    if (tree_.size() <= 4 * max_states_ + 1024) return;
    std::uint32_t no_best = decision_tree::none;
    tree_.collect(states_, next_, no_best);
  }

  /// By rising score: a state is dominated if one before it costs no more of anything. With two budgets all are found,
  /// by the staircase of least second costs; with more, those that one of the last few kept dominates.
  void remove_dominated() {
    std::map<std::int64_t, std::int64_t> stairs;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < next_.size(); ++i) {
      if (core_.count == 2 ? climbs(stairs, next_[i].cost) : is_new(kept, next_[i].cost)) next_[kept++] = next_[i];
    }
    next_.resize(kept);
  }

  static bool climbs(std::map<std::int64_t, std::int64_t>& stairs, cost_vector const& cost) {
    auto at = stairs.upper_bound(cost[0]);
    if (at != stairs.begin() && std::prev(at)->second <= cost[1]) return false;
    while (at != stairs.end() && at->second >= cost[1]) at = stairs.erase(at);
    stairs[cost[0]] = cost[1];
    return true;
  }

  bool is_new(std::size_t kept, cost_vector const& cost) const {
    for (std::size_t back = 1; back <= std::min<std::size_t>(kept, 16); ++back) {
      cost_vector const& other = next_[kept - back].cost;
      bool dominated = true;
      for (std::size_t d = 0; d < core_.count; ++d) dominated = dominated && other[d] <= cost[d];
      if (dominated) return false;
    }
    return true;
  }

  std::size_t width() const { return limited_ ? std::max<std::size_t>(max_states_ / 512, 1) : max_states_; }

  /// Keeps the states of the smallest bounds; what follows is a heuristic, so it goes on with a narrow list.
  void trim() {
    limited_ = true;
    std::vector<std::pair<wide, std::int64_t>> ranks(next_.size());  // bound, then place
    for (std::size_t i = 0; i < ranks.size(); ++i)
      ranks[i] = {outlook_of(next_[i], group_ + 1), static_cast<std::int64_t>(i)};
    auto const cut = ranks.begin() + static_cast<std::ptrdiff_t>(width());
    std::nth_element(ranks.begin(), cut, ranks.end());
    dropped_ = std::min(dropped_, cut->first - core_.priced_slack);
    std::vector<char> stays(next_.size(), 0);
    for (auto r = ranks.begin(); r != cut; ++r) stays[static_cast<std::size_t>(r->second)] = 1;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < next_.size(); ++i)
      if (stays[i]) next_[kept++] = next_[i];
    next_.resize(kept);
  }

  static constexpr std::uint32_t none = decision_tree::none;
  budget_core core_;
  std::size_t max_states_;
  time_point deadline_;
  bool any_ = false, has_best_ = false, limited_ = false;
  bool cut_ = false;          // the limit kept something out of this pass
  bool cut_at_best_ = false;  // a pass lowers its limit with each better choice
  state best_{0, 0, {}, decision_tree::none};
  std::vector<std::uint32_t> choice_;
  wide limit_ = 0;  // of the reduced score
  wide dropped_ = outlook::unlimited;
  std::size_t group_ = 0, generated_ = 0;
  decision_tree tree_;
  std::vector<state> states_, next_;
  std::vector<outlook_set> outlooks_;
};

}  // namespace mixbit::solver::detail
