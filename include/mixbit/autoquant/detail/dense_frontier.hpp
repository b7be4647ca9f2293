// The frontier by a table over all costs: min-plus products with one group after another.
//
// A total is high * 2^low_bits + low. The high part is a whole number that a double holds exactly together with the
// number of a candidate below it, so that a minimum finds the candidate as well; two minima in turn find out whether
// another candidate comes within two units, and only then the low parts are looked at. So nearly all of the work is
// additions and minima of doubles, and the result is that of exact integers.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/long_score.hpp"

namespace mixbit::solver::detail {

class dense_frontier {
 public:
  static constexpr std::size_t most_items = 256;  // of a group

  /// Groups by rising span of costs, which keeps the table short for longest.
  static std::vector<std::size_t> order_of(long_instance const& input) {
    std::vector<std::size_t> order(input.all.groups());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return input.span(a) < input.span(b); });
    return order;
  }

  explicit dense_frontier(long_instance const& input) : input_{input}, order_{order_of(input)} {
    std::size_t most = 1;
    for (std::size_t const g : order_) most = std::max<std::size_t>(most, input.all.first[g + 1] - input.all.first[g]);
    int const number_bits = static_cast<int>(std::bit_width(most - 1));
    numbers_ = std::ldexp(1.0, number_bits);
    carry_ = {0, numbers_};
    number_mask_ = (std::int64_t{1} << number_bits) - 1;
    low_bits_ = 165 - 53 + number_bits;
    low_end_ = unsigned_wide{1} << low_bits_;
    high_.assign(1, 0.0);
    low_.assign(1, 0);
    uses_low_ = std::any_of(input.scores.begin(), input.scores.end(), [this](auto const& s) { return low(s) != 0; });
    std::size_t length = 1, choices = 0;
    for (std::size_t const g : order_) choices += length += static_cast<std::size_t>(input.span(g));
    choices_.reserve(choices);
    for (std::size_t const g : order_) add(g);
  }

  /// Costs run from 0 to size() - 1.
  std::size_t size() const noexcept { return high_.size(); }
  bool is_reached(std::size_t cost) const noexcept { return high_[cost] < unreached; }
  long_score score(std::size_t cost) const noexcept {
    auto const high = static_cast<std::uint64_t>(high_[cost] / numbers_);
    return shifted(high, low_bits_) + long_score{0, uses_low_ ? low_[cost] : 0};
  }

  /// What recovers a choice: the candidate's number, by level and cost.
  std::vector<std::uint8_t> take_choices() { return std::move(choices_); }
  std::vector<std::size_t> const& order() const noexcept { return order_; }

 private:
  static constexpr double unreached = std::numeric_limits<double>::infinity();
  static constexpr std::size_t tile = 1024;

  unsigned_wide low(long_score const& s) const { return s.low & (low_end_ - 1); }
  double high(long_score const& s) const {
    return static_cast<double>((s.high << (128 - low_bits_)) | static_cast<std::int64_t>(s.low >> low_bits_));
  }

  struct entry {
    std::size_t cost;
    double high;  // times numbers_
    unsigned_wide low;
  };

  void add(std::size_t g) {
    entries_.clear();
    for (std::uint32_t i = input_.all.first[g]; i < input_.all.first[g + 1]; ++i)
      entries_.push_back({static_cast<std::size_t>(input_.costs[i]), numbers_ * high(input_.scores[i]),
                          low(input_.scores[i])});
    std::size_t const length = high_.size() + entries_.back().cost;
    next_high_.resize(length);
    if (uses_low_) next_low_.resize(length);
    std::size_t const place = choices_.size();
    choices_.resize(place + length);
    for (std::size_t begin = 0; begin < length; begin += tile) {
      std::size_t const end = std::min(begin + tile, length);
      minima(begin, end);
      for (std::size_t cost = begin; cost < end; ++cost)
        choices_[place + cost] = settle(cost, best_[cost - begin], second_[cost - begin]);
    }
    high_.swap(next_high_);
    low_.swap(next_low_);
  }

  /// The least and the second least high part of every cost from `begin` to `end`, two candidates at a time where
  /// the table so far reaches both throughout.
  void minima(std::size_t begin, std::size_t end) {
    best_.fill(unreached);
    second_.fill(unreached);
    auto const spans = [&](entry const& by) { return by.cost <= begin && end <= by.cost + high_.size(); };
    for (std::size_t number = 0; number < entries_.size(); ++number) {
      entry const& by = entries_[number];
      double const high = by.high + static_cast<double>(number);
      if (number + 1 < entries_.size() && spans(by) && spans(entries_[number + 1])) {
        entry const& other = entries_[++number];
        merge_two(high_.data() + (begin - by.cost), high, high_.data() + (begin - other.cost),
                  other.high + static_cast<double>(number), end - begin, best_.data(), second_.data());
        continue;
      }
      std::size_t const from = std::max(begin, by.cost);
      std::size_t const to = std::min(end, by.cost + high_.size());
      if (from < to) {
        merge(high_.data() + (from - by.cost), high, to - from, best_.data() + (from - begin),
              second_.data() + (from - begin));
      }
    }
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

  unsigned_wide carried(unsigned_wide low, double& high) const {  // half of all carry: no branch
    high += carry_[static_cast<std::uint64_t>(low >> 64) >> (low_bits_ - 64)];
    return low & (low_end_ - 1);
  }

  /// The candidate of the least exact total, the first of equals.
  std::size_t closest(std::size_t cost) const {
    std::size_t best = 0;
    double best_high = unreached;
    unsigned_wide best_low = 0;
    for (std::size_t number = 0; number < entries_.size(); ++number) {
      entry const& by = entries_[number];
      if (by.cost > cost || cost - by.cost >= high_.size()) continue;
      double high = high_[cost - by.cost] + by.high;
      if (!(high < unreached)) continue;
      unsigned_wide const low = carried(low_[cost - by.cost] + by.low, high);
      if (high > best_high || (high == best_high && low >= best_low)) continue;
      best = number;
      best_high = high;
      best_low = low;
    }
    return best;
  }

  long_instance const& input_;
  std::vector<std::size_t> order_;
  double numbers_ = 1;  // a power of two, at least the number of candidates in a group
  std::array<double, 2> carry_;
  std::int64_t number_mask_ = 0;
  int low_bits_ = 0;
  unsigned_wide low_end_ = 1;  // 2^low_bits_
  bool uses_low_ = false;
  std::vector<double> high_, next_high_;
  std::vector<unsigned_wide> low_, next_low_;
  std::vector<entry> entries_;
  std::array<double, tile> best_, second_;
  std::vector<std::uint8_t> choices_;
};

}  // namespace mixbit::solver::detail
