// Where the table of a frontier has to look: which candidate can extend which partial choices to an undominated one.
//
// The budgets are cut into stretches, each with a price for a unit of cost. At that price a group's candidate has an
// excess over the group's best, which is never negative, and a whole choice's excess is the sum of its groups'. An
// undominated choice within a stretch has at most the excess of any choice known for its budget: the allowance. So a
// candidate whose own excess is larger has no part in the stretch, and neither has a partial choice whose cost lies
// where even the hull of the groups so far is farther than that above their tangent. What remains for a candidate, over
// all stretches, is one window of costs. With many groups nearly every cost is left to one candidate of each group.
//
// All of this is in doubles; allowances are widened by far more than the roundings add up to (2^-53 of the price times
// all costs for each group), so that a window may be too wide, never too narrow.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/long_score.hpp"
#include "mixbit/autoquant/detail/relaxation.hpp"

namespace mixbit::solver::detail {

/// Costs of partial choices, from `from` to `to` - 1; none where they are equal.
struct cost_window {
  std::size_t from = 0, to = 0;

  std::size_t size() const noexcept { return to - from; }
  void cover(std::size_t low, std::size_t high) {
    from = to == 0 ? low : std::min(from, low);
    to = std::max(to, high);
  }
};

class frontier_windows {
 public:
  /// Costs of whole choices run from 0 to `size` - 1; groups are taken in `order`.
  frontier_windows(long_instance const& input, std::span<std::size_t const> order, std::size_t size)
      : input_{input}, order_{order}, size_{size}, items_{input.all} {
    for (std::size_t i = 0; i < items_.items.size(); ++i) {
      items_.items[i].score = to_double(input.scores[i], 0);
      items_.items[i].cost = input.costs[i];
    }
    std::vector<hull_step> steps = hull_steps(items_);
    std::sort(steps.begin(), steps.end(), steeper);
    set_prices(steps);
    set_least();
  }

  /// The part of all candidates, over all stretches, that the first guess leaves: where it is most of them, windows
  /// will leave out little.
  double open_part() const { return open_part_; }

  /// By the first guess: what filling a budget with steps of the hull may leave, as the steps near it are long.
  void allow_steps() {
    settle();
  }

  /// `best[c]`: the score, above the least possible, of some choice that costs c; infinite where none is known.
  void allow(std::span<double const> best) {
    double least = cheapest_;
    for (stretch& one : stretches_) {
      one.allowance = 0;
      for (std::size_t cost = one.from; cost < one.to; ++cost) {
        least = std::min(least, best[cost]);
        one.allowance = std::max(one.allowance, least + one.price * static_cast<double>(cost) - one.least);
      }
    }
    settle();
  }

  /// Of the input's item: the costs that the groups before its own may have.
  cost_window const& operator[](std::size_t item) const { return windows_[item]; }

  /// How many sums the windows leave.
  double sums() const {
    double result = 0;
    for (cost_window const& one : windows_) result += static_cast<double>(one.size());
    return result;
  }

 private:
  struct stretch {
    std::size_t from, to;   // costs of whole choices
    double price;           // a unit of cost
    double allowance;
    double least = 0;       // score + price * cost of any choice
    cost_window reach = {};  // of the groups so far
  };

  static bool steeper(hull_step const& a, hull_step const& b) { return a.slope > b.slope; }

  /// Stretches take equal parts of the costs; many of them, as prices fall within each.
  void set_prices(std::vector<hull_step> const& steps) {
    if (steps.empty()) return;
    std::size_t const count = std::clamp<std::size_t>(size_ / 128, 64, 1024);
    std::int64_t cost = 0;
    std::size_t at = 0;
    for (std::size_t b = 0; b < count; ++b) {
      std::size_t const from = size_ * b / count, to = size_ * (b + 1) / count;
      auto const middle = static_cast<std::int64_t>((from + to) / 2);
      while (at + 1 < steps.size() && cost + steps[at].cost <= middle) cost += steps[at++].cost;
      std::size_t const first = at < 8 ? 0 : at - 8, last = std::min(at + 8, steps.size());
      double sum = 0;
      for (std::size_t i = first; i < last; ++i) sum += static_cast<double>(steps[i].cost);
      prices_.push_back(steps[at].slope);
      double const step = sum / static_cast<double>(last - first);
      stretches_.push_back({from, to, steps[at].slope, steps[at].slope * step / 2});
    }
  }

  void set_least() {
    double open = 0;
    for (std::size_t g = 0; g < items_.groups(); ++g) {
      cheapest_ += items_.items[items_.first[g]].score;
      price_items(g);
      for (std::size_t b = 0; b < stretches_.size(); ++b) stretches_[b].least += lowest_[b];
      for (std::size_t i = 0; i < items_.first[g + 1] - items_.first[g]; ++i)
        for (std::size_t b = 0; b < stretches_.size(); ++b)
          open += priced_[i * stretches_.size() + b] <= lowest_[b] + stretches_[b].allowance ? 1 : 0;
    }
    open_part_ = open / static_cast<double>(items_.items.size() * std::max<std::size_t>(stretches_.size(), 1));
  }

  /// Fills priced_, a row of all stretches for each item of the group, and lowest_.
  void price_items(std::size_t g) {
    std::size_t const count = stretches_.size(), first = items_.first[g], items = items_.first[g + 1] - first;
    lowest_.assign(count, std::numeric_limits<double>::infinity());
    priced_.resize(std::max(priced_.size(), items * count));
    for (std::size_t i = 0; i < items; ++i) {
      double const score = items_.items[first + i].score;
      auto const cost = static_cast<double>(items_.items[first + i].cost);
      double* const row = priced_.data() + i * count;
      for (std::size_t b = 0; b < count; ++b) {
        row[b] = score + prices_[b] * cost;
        lowest_[b] = row[b] < lowest_[b] ? row[b] : lowest_[b];
      }
    }
  }

  void settle() {
    for (stretch& one : stretches_)
      one.allowance = one.allowance * (1 + 0x1p-20) + 0x1p-26 * one.price * static_cast<double>(size_) + 1;
    windows_.assign(items_.items.size(), {});
    std::vector<hull_step> steps, own, merged;
    std::size_t length = 1;
    for (std::size_t const g : order_) {
      set_reach(steps, length);
      price_items(g);
      for (std::size_t b = 0; b < stretches_.size(); ++b) lowest_[b] += stretches_[b].allowance;
      own.clear();
      std::int64_t before = 0;
      for (std::size_t i = items_.first[g]; i < items_.first[g + 1]; ++i) {
        set_window(i, priced_.data() + (i - items_.first[g]) * stretches_.size());
        item const& one = items_.items[i];
        if (one.slope < 0 || one.cost == 0) continue;
        own.push_back({one.slope, one.cost - before});
        before = one.cost;
      }
      merged.resize(steps.size() + own.size());
      std::merge(steps.begin(), steps.end(), own.begin(), own.end(), merged.begin(), steeper);
      join_equal(merged);
      steps.swap(merged);
      length += static_cast<std::size_t>(input_.span(g));
    }
  }

  /// Steps of one slope are one: each stretch walks over all that are as steep as its price.
  static void join_equal(std::vector<hull_step>& steps) {
    std::size_t kept = 0;
    for (hull_step const& one : steps)
      if (kept > 0 && steps[kept - 1].slope == one.slope) steps[kept - 1].cost += one.cost;
      else steps[kept++] = one;
    steps.resize(kept);
  }

  void set_window(std::size_t item, double const* priced) {
    for (std::size_t b = 0; b < stretches_.size(); ++b) {
      if (!(priced[b] > lowest_[b])) windows_[item].cover(stretches_[b].reach.from, stretches_[b].reach.to);
    }
  }

  /// Where the hull of the groups so far, whose `steps` fall in slope, is within each allowance of its tangent.
  void set_reach(std::vector<hull_step> const& steps, std::size_t length) {
    std::size_t at = 0;
    std::int64_t cost = 0;
    for (stretch& one : stretches_) {
      while (at < steps.size() && steps[at].slope > one.price) cost += steps[at++].cost;
      auto const walked = [&](std::size_t from, std::ptrdiff_t by, std::size_t until) {
        double left = one.allowance, far = 0;
        for (std::size_t i = from; i != until; i += static_cast<std::size_t>(by)) {
          hull_step const& step = steps[by < 0 ? i - 1 : i];
          auto const full = static_cast<double>(step.cost);
          double const rate = std::abs(step.slope - one.price);
          if (rate * full > left) return far + std::min(left / rate, full);
          left -= rate * full;
          far += full;
        }
        return far;
      };
      double const low = static_cast<double>(cost) - walked(at, -1, 0) - 1;
      double const high = static_cast<double>(cost) + walked(at, 1, steps.size()) + 2;
      one.reach = {low > 0 ? static_cast<std::size_t>(low) : 0, std::min(length, static_cast<std::size_t>(high))};
    }
  }

  long_instance const& input_;
  std::span<std::size_t const> order_;
  std::size_t size_;
  double cheapest_ = 0;  // the score of the cheapest choice
  double open_part_ = 1;
  instance items_;  // in units of the grid and of the step, rounded to doubles
  std::vector<stretch> stretches_;
  std::vector<double> prices_;           // of the stretches
  std::vector<double> lowest_, priced_;  // of the group at hand
  std::vector<cost_window> windows_;
};

}  // namespace mixbit::solver::detail
