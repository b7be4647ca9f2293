// The frontier by a table over all costs: min-plus products with one group after another.
//
// A total is high * 2^low_bits + low. The high part is a whole number that a double holds exactly together with the
// number of a candidate below it, so that a minimum finds the candidate as well; two minima in turn find out whether
// another candidate comes within two units, and only then the low parts are looked at. So nearly all of the work is
// additions and minima of doubles, and the result is that of exact integers. Where windows (frontier_windows.hpp) leave
// a cost to one candidate, there is nothing to compare.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/deadline.hpp"
#include "mixbit/autoquant/detail/frontier_sketch.hpp"
#include "mixbit/autoquant/detail/frontier_windows.hpp"
#include "mixbit/autoquant/detail/long_score.hpp"
#include "mixbit/autoquant/detail/score_split.hpp"

namespace mixbit::solver::detail {

/// `Low` is an unsigned integer of more than `low_bits` bits.
template <class Low>
class dense_frontier {
 public:
  /// Gives up at the deadline, which it looks at once a group.
  dense_frontier(long_instance const& input, score_split const& split, time_point deadline)
      : input_{input},
        split_{split},
        order_{order_by_span(input)},
        numbers_{std::ldexp(1.0, split.number_bits)},
        number_mask_{(std::int64_t{1} << split.number_bits) - 1},
        low_mask_{static_cast<Low>((Low{1} << split.low_bits) - 1)},
        uses_low_{split.low_bits > 0},
        windows_{windows_for(input, order_, size_of(input))} {
    high_.assign(1, 0.0);
    low_.assign(1, 0);
    std::size_t length = 1, choices = 0;
    for (std::size_t const g : order_) choices += length += static_cast<std::size_t>(input.span(g));
    choices_.reserve(choices);
    for (std::size_t const g : order_) {
      if (is_over(deadline)) return;
      add(g);
    }
    complete_ = true;
  }

  /// Otherwise there was no time, and nothing else may be asked for.
  bool complete() const noexcept { return complete_; }

  /// Costs run from 0 to size() - 1.
  std::size_t size() const noexcept { return high_.size(); }
  bool is_reached(std::size_t cost) const noexcept { return high_[cost] < unreached; }
  long_score score(std::size_t cost) const noexcept {
    auto const high = static_cast<std::uint64_t>(high_[cost] / numbers_);
    unsigned_wide const low = uses_low_ ? low_[cost] : 0;
    return shifted(high, split_.low_bits + split_.drop) + shifted(low, split_.drop);
  }

  /// What recovers a choice: the candidate's number, by level and cost.
  std::vector<std::uint8_t> take_choices() { return std::move(choices_); }
  std::vector<std::size_t> const& order() const noexcept { return order_; }

 private:
  static std::size_t size_of(long_instance const& input) {
    std::size_t size = 1;
    for (std::size_t g = 0; g < input.all.groups(); ++g) size += static_cast<std::size_t>(input.span(g));
    return size;
  }

  static constexpr double unreached = std::numeric_limits<double>::infinity();
  static constexpr std::size_t tile = 1024;

  struct entry {
    std::size_t cost;
    double high;  // times numbers_
    Low low;
    double number;       // in its group
    cost_window window;  // of the costs before
  };

  void add(std::size_t g) {
    entries_.clear();
    for (std::uint32_t i = input_.all.first[g]; i < input_.all.first[g + 1]; ++i)
      entries_.push_back({static_cast<std::size_t>(input_.costs[i]), numbers_ * split_.high(input_.scores[i]),
                          static_cast<Low>(split_.low(input_.scores[i])), static_cast<double>(entries_.size()),
                          window_of(i)});
    std::size_t const length = high_.size() + entries_.back().cost;
    next_high_.resize(length);
    if (uses_low_) next_low_.resize(length);
    std::size_t const place = choices_.size();
    choices_.resize(place + length);
    set_ends(length);
    for (std::size_t i = 0; i + 1 < ends_.size(); ++i) fill(ends_[i], ends_[i + 1], choices_.data() + place);
    high_.swap(next_high_);
    low_.swap(next_low_);
  }

  cost_window window_of(std::size_t item) const {
    return windows_ ? (*windows_)[item] : cost_window{0, high_.size()};
  }

  /// Costs between which the same candidates' windows lie open.
  void set_ends(std::size_t length) {
    ends_.assign({0, length});
    for (entry const& by : entries_)
      if (by.window.size() > 0) ends_.insert(ends_.end(), {by.window.from + by.cost, by.window.to + by.cost});
    std::sort(ends_.begin(), ends_.end());
    ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
  }

  void fill(std::size_t begin, std::size_t end, std::uint8_t* choices) {
    active_.clear();
    for (entry const& by : entries_)
      if (by.window.from + by.cost <= begin && end <= by.window.to + by.cost) active_.push_back(&by);
    if (active_.empty()) std::fill(next_high_.begin() + begin, next_high_.begin() + end, unreached);
    if (active_.size() == 1) shift(*active_.front(), begin, end);
    if (active_.size() < 2) {
      auto const number = active_.empty() ? 0 : static_cast<std::uint8_t>(active_.front()->number);
      std::fill(choices + begin, choices + end, number);
      return;
    }
    for (; begin < end; begin += tile) {
      std::size_t const stop = std::min(begin + tile, end);
      minima(begin, stop);
      for (std::size_t cost = begin; cost < stop; ++cost)
        choices[cost] = settle(cost, best_[cost - begin], second_[cost - begin]);
    }
  }

  /// Costs that one candidate reaches.
  void shift(entry const& by, std::size_t begin, std::size_t end) {
    double const* const from = high_.data() + (begin - by.cost);
    double* const to = next_high_.data() + begin;
    std::size_t const count = end - begin;
    if (!uses_low_) {
      for (std::size_t i = 0; i < count; ++i) to[i] = from[i] + by.high;
      return;
    }
    Low const* const low_from = low_.data() + (begin - by.cost);
    Low* const low_to = next_low_.data() + begin;
    for (std::size_t i = 0; i < count; ++i) {
      double high = from[i] + by.high;
      low_to[i] = carried(static_cast<Low>(low_from[i] + by.low), high);
      to[i] = high;
    }
  }

  /// The least and the second least high part of every cost from `begin` to `end`, two candidates at a time.
  void minima(std::size_t begin, std::size_t end) {
    best_.fill(unreached);
    second_.fill(unreached);
    auto const from = [&](entry const& by) { return high_.data() + (begin - by.cost); };
    std::size_t i = 0;
    for (; i + 1 < active_.size(); i += 2) {
      entry const& a = *active_[i];
      entry const& b = *active_[i + 1];
      merge_two(from(a), a.high + a.number, from(b), b.high + b.number, end - begin, best_.data(), second_.data());
    }
    if (i < active_.size())
      merge(from(*active_[i]), active_[i]->high + active_[i]->number, end - begin, best_.data(), second_.data());
  }

  static double less(double a, double b) { return a < b ? a : b; }
  static double more(double a, double b) { return a < b ? b : a; }

  static void merge(double const* from, double by, std::size_t count, double* best, double* second) {
    for (std::size_t i = 0; i < count; ++i) {
      double const x = from[i] + by;
      second[i] = less(second[i], more(best[i], x));
      best[i] = less(best[i], x);
    }
  }

  static void merge_two(double const* from, double by, double const* other, double other_by, std::size_t count,
                        double* best, double* second) {
    for (std::size_t i = 0; i < count; ++i) {
      double const x = from[i] + by;
      double const y = other[i] + other_by;
      double const lower = less(x, y);
      second[i] = less(less(second[i], more(x, y)), more(best[i], lower));
      best[i] = less(best[i], lower);
    }
  }

  std::uint8_t settle(std::size_t cost, double best, double second) {
    if (!(best < unreached)) {
      next_high_[cost] = unreached;
      return 0;
    }
    auto number = static_cast<std::size_t>(static_cast<std::int64_t>(best) & number_mask_);
    double high = best - static_cast<double>(number);
    if (uses_low_) {
      if (second - high < 2 * numbers_) {
        number = closest(cost);
        high = high_[cost - entries_[number].cost] + entries_[number].high;
      }
      entry const& by = entries_[number];
      next_low_[cost] = carried(low_[cost - by.cost] + by.low, high);
    }
    next_high_[cost] = high;
    return static_cast<std::uint8_t>(number);
  }

  /// `numbers_` where the low part has a bit too many, without a branch: half of all have.
  Low carried(Low low, double& high) const {
    auto const carry = std::uint64_t{0} - static_cast<std::uint64_t>(low >> split_.low_bits);
    high += std::bit_cast<double>(carry & std::bit_cast<std::uint64_t>(numbers_));
    return low & low_mask_;
  }

  /// The candidate of the least exact total, the first of equals.
  std::size_t closest(std::size_t cost) const {
    std::size_t best = 0;
    double best_high = unreached;
    Low best_low = 0;
    for (std::size_t number = 0; number < entries_.size(); ++number) {
      entry const& by = entries_[number];
      if (by.cost > cost || cost - by.cost >= high_.size()) continue;
      double high = high_[cost - by.cost] + by.high;
      if (!(high < unreached)) continue;
      Low const low = carried(low_[cost - by.cost] + by.low, high);
      if (high > best_high || (high == best_high && low >= best_low)) continue;
      best = number;
      best_high = high;
      best_low = low;
    }
    return best;
  }

  long_instance const& input_;
  score_split split_;
  std::vector<std::size_t> order_;
  double numbers_;  // a power of two, at least the number of candidates in a group
  std::int64_t number_mask_;
  Low low_mask_;
  bool uses_low_, complete_ = false;
  std::optional<frontier_windows> windows_;
  std::vector<double> high_, next_high_;
  std::vector<Low> low_, next_low_;
  std::vector<entry> entries_;
  std::vector<entry const*> active_;  // those that reach the costs at hand
  std::vector<std::size_t> ends_;
  std::array<double, tile> best_, second_;
  std::vector<std::uint8_t> choices_;
};

}  // namespace mixbit::solver::detail
