// The frontier by lists of undominated states, for costs that no table has room for; thinned where a list outgrows
// its limit.
//
// Thinning keeps real choices. What it drops is stood in for by the kept state before it, which costs no more; the
// difference of their scores is what may be missed from then on, and the largest of each level add up. Which states
// stay: the ends, and of each of `limit` - 2 stretches of the list, equal in states and in orders of magnitude of the
// score, the one nearest to the list's own lower convex hull, which the groups to come can best complete.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "mixbit/autoquant/detail/deadline.hpp"
#include "mixbit/autoquant/detail/long_score.hpp"

namespace mixbit::solver::detail {

class sparse_frontier {
 public:
  static constexpr std::size_t hurried = 64;

  struct state {
    long_score score;
    std::int64_t cost;
    std::uint32_t decision;  // of the last level
  };
  struct decision {
    std::uint32_t before;  // of the level before
    std::uint32_t number;  // the candidate's, in its group
  };

  /// What a list takes for each of its points: decisions of every level, and a group's candidates merged and thinned.
  static std::size_t bytes_a_point(long_instance const& input) {
    constexpr std::size_t thinned = 4 * sizeof(double);  // heights, positions and what they come from
    std::size_t most = 1;
    for (std::size_t g = 0; g < input.all.groups(); ++g)
      most = std::max<std::size_t>(most, input.all.first[g + 1] - input.all.first[g]);
    return sizeof(decision) * std::max<std::size_t>(input.all.groups(), 1) +
           (most + 1) * (sizeof(state) + sizeof(decision) + thinned);
  }

  /// No list is longer than `limit`, which must be 3 or more; none than `hurried` after the deadline, looked at once a
  /// group.
  sparse_frontier(long_instance const& input, std::size_t limit, time_point deadline)
      : input_{input}, limit_{limit} {
    states_.push_back({{}, 0, 0});
    for (std::size_t g = 0; g < input.all.groups(); ++g) {
      if (limit_ > hurried && is_over(deadline)) limit_ = hurried;
      add(g);
      if (states_.size() > limit_) thin();
      levels_.emplace_back();
      levels_.back().reserve(states_.size());
      for (std::size_t i = 0; i < states_.size(); ++i) {
        levels_.back().push_back(reached_by_[states_[i].decision]);
        states_[i].decision = static_cast<std::uint32_t>(i);
      }
    }
  }

  /// Rising in cost, falling in score.
  std::vector<state> const& states() const noexcept { return states_; }
  long_score const& missed() const noexcept { return missed_; }
  std::vector<std::vector<decision>> take_levels() { return std::move(levels_); }

 private:
  /// Merges the lists that the group's candidates make of the states; of equal ones the cheaper candidate's stays.
  void add(std::size_t g) {
    std::uint32_t const first = input_.all.first[g];
    std::size_t const count = input_.all.first[g + 1] - first;
    heads_.assign(count, 0);
    costs_.assign(input_.costs.begin() + first, input_.costs.begin() + first + static_cast<std::ptrdiff_t>(count));
    next_.clear();
    reached_by_.clear();
    constexpr auto done = std::numeric_limits<std::int64_t>::max();
    for (;;) {
      auto const head = std::min_element(costs_.begin(), costs_.end());
      if (*head == done) break;
      auto const number = static_cast<std::uint32_t>(head - costs_.begin());
      state const& from = states_[heads_[number]];
      long_score const& by = input_.scores[first + number];
      if (!next_.empty() && next_.back().cost == *head && from.score + by < next_.back().score) next_.pop_back();
      if (next_.empty() || from.score + by < next_.back().score) {
        next_.push_back({from.score + by, *head, static_cast<std::uint32_t>(reached_by_.size())});
        reached_by_.push_back({from.decision, number});
      }
      std::size_t& at = heads_[number];  // on to the next that is not dominated already
      while (++at < states_.size() && states_[at].score + by >= next_.back().score) {
      }
      *head = at < states_.size() ? states_[at].cost + input_.costs[first + number] : done;
    }
    states_.swap(next_);
  }

  /// Heights above the lower convex hull of the list, in doubles: they only choose what is kept.
  std::vector<double> heights() const {
    std::size_t const count = states_.size();
    std::vector<double> scores(count), result(count, 0.0);
    for (std::size_t i = 0; i < count; ++i) scores[i] = to_double(states_[i].score, 0);
    auto const slope = [&](std::size_t a, std::size_t b) {
      return (scores[b] - scores[a]) / static_cast<double>(states_[b].cost - states_[a].cost);
    };
    std::vector<std::size_t> hull;
    for (std::size_t i = 0; i < count; ++i) {
      while (hull.size() > 1 && slope(hull[hull.size() - 2], hull.back()) >= slope(hull.back(), i)) hull.pop_back();
      hull.push_back(i);
    }
    for (std::size_t h = 0; h + 1 < hull.size(); ++h) {
      double const along = slope(hull[h], hull[h + 1]);
      for (std::size_t i = hull[h] + 1; i < hull[h + 1]; ++i)
        result[i] = scores[i] - scores[hull[h]] - along * static_cast<double>(states_[i].cost - states_[hull[h]].cost);
    }
    return result;
  }

  /// Where each state stands between 0 and 1: half by its place in the list, half by the logarithm of its score.
  std::vector<double> positions() const {
    std::size_t const count = states_.size();
    std::vector<double> result(count);
    auto const log_of = [&](std::size_t i) { return std::log2(to_double(states_[i].score, 0) + 1); };
    double const top = log_of(0), range = std::max(top - log_of(count - 2), 1.0);
    for (std::size_t i = 0; i < count; ++i)
      result[i] = static_cast<double>(i) / static_cast<double>(2 * count) + (top - log_of(i)) / (2 * range);
    return result;
  }

  /// The indices that stay: the cheapest state, the one of the best score, and one of each stretch between.
  std::vector<std::size_t> survivors() const {
    std::vector<double> const height = heights(), position = positions();
    std::vector<std::size_t> kept{0};
    auto const stretch_of = [&](std::size_t i) {
      auto const stretches = static_cast<double>(limit_ - 2);
      return static_cast<std::size_t>(std::min(position[i] * stretches, stretches - 1));
    };
    std::size_t stretch = 0;
    for (std::size_t i = 1; i + 1 < states_.size(); ++i) {
      std::size_t const own = stretch_of(i);
      if (kept.size() == 1 || own != stretch) kept.push_back(i);
      else if (height[i] < height[kept.back()]) kept.back() = i;
      stretch = own;
    }
    kept.push_back(states_.size() - 1);
    return kept;
  }

  void thin() {
    std::vector<std::size_t> const kept = survivors();
    long_score worst;
    for (std::size_t i = 1; i < kept.size(); ++i)
      worst = std::max(worst, states_[kept[i - 1]].score - states_[kept[i] - 1].score);
    missed_ = missed_ + worst;
    for (std::size_t i = 0; i < kept.size(); ++i) states_[i] = states_[kept[i]];
    states_.resize(kept.size());
  }

  long_instance const& input_;
  std::size_t limit_;
  std::vector<state> states_, next_;
  std::vector<std::size_t> heads_;     // of the candidates, into states_
  std::vector<std::int64_t> costs_;    // and what they would cost next
  std::vector<decision> reached_by_;
  std::vector<std::vector<decision>> levels_;
  long_score missed_;
};

}  // namespace mixbit::solver::detail
