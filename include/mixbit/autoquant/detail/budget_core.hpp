// A knapsack with several budgets as integers: what each group may change against the base choice, which is the one
// that prices alone would make. As core.hpp has it for one budget, but with every candidate kept.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixbit/autoquant/detail/exact_sum.hpp"
#include "mixbit/autoquant/detail/multipliers.hpp"

namespace mixbit::solver::detail {

/// An alternative to its group's base choice.
struct priced_change {
  wide score;        // units, less the base's
  wide reduced;      // score + price of the cost, >= 0
  cost_vector cost;  // less the base's
  std::uint32_t item;
  std::uint32_t group;
};

struct priced_group {
  wide least_reduced = 0;
  std::uint32_t first = 0;  // into budget_core::changes
  std::uint32_t last = 0;
};

struct budget_core {
  std::size_t count = 0;  // of budgets
  std::vector<priced_group> groups;
  std::vector<priced_change> changes;
  std::vector<std::uint32_t> base;  // item of each group; the exact minimum of score + price
  std::array<wide, most_budgets> price{};
  cost_vector slack{};  // left by the base; often negative in some
  std::array<double, most_budgets> reach{};  // no slack is larger
  wide priced_slack = 0;
  int grid = 0;
  bool exact = true;  // otherwise each group's score may be off by less than two units
  wide score_step = 1;
};

class budget_core_builder {
 public:
  budget_core_builder(priced_instance const& input, price_vector price) : input_{input} {
    for (std::size_t d = 0; d < input.count; ++d) {
      if (!varies(d)) price[d] = 0;  // no choice changes it, so it may be anything; the grid must hold it
    }
    core_.count = input.count;
    core_.slack = input.budget;
    for (std::size_t g = 0; g < input.groups(); ++g) core_.base.push_back(rounded_base(g, price));
    for (std::size_t d = 0; d < input.count; ++d) {
      for (std::uint32_t const b : core_.base) core_.slack[d] -= input.items[b].cost[d];
    }
    double const most = magnitude(price);
    core_.grid = most > 0 ? std::ilogb(most) - 118 : 0;
    bool ignored = true;  // any price gives a bound
    for (std::size_t d = 0; d < input.count; ++d) core_.price[d] = to_fixed(price[d], core_.grid, ignored);
    for (std::size_t g = 0; g < input.groups(); ++g) add(static_cast<std::uint32_t>(g));
    finish();
  }

  budget_core take() { return std::move(core_); }

 private:
  bool varies(std::size_t d) const {
    for (std::size_t g = 0; g < input_.groups(); ++g) {
      for (std::uint32_t i = input_.first[g]; i < input_.first[g + 1]; ++i) {
        if (input_.items[i].cost[d] != input_.items[input_.first[g]].cost[d]) return true;
      }
    }
    return false;
  }

  std::uint32_t rounded_base(std::size_t g, price_vector const& price) const {
    std::uint32_t best = input_.first[g];
    double least = HUGE_VAL;
    for (std::uint32_t i = input_.first[g]; i < input_.first[g + 1]; ++i) {
      double value = input_.items[i].score;
      for (std::size_t d = 0; d < input_.count; ++d) value += price[d] * static_cast<double>(input_.items[i].cost[d]);
      if (value < least) {
        least = value;
        best = i;
      }
    }
    return best;
  }

  /// At least what any sum of changes can come to; fourfold, since a base may move and everything rounds.
  double magnitude(price_vector const& price) const {
    double sum = 0;
    for (std::size_t d = 0; d < input_.count; ++d) sum += price[d] * std::abs(static_cast<double>(core_.slack[d]));
    for (std::size_t g = 0; g < input_.groups(); ++g) {
      priced_item const& base = input_.items[core_.base[g]];
      double largest = 0;
      for (std::uint32_t i = input_.first[g]; i < input_.first[g + 1]; ++i) {
        double size = std::abs(input_.items[i].score - base.score);
        for (std::size_t d = 0; d < input_.count; ++d)
          size += price[d] * std::abs(static_cast<double>(input_.items[i].cost[d] - base.cost[d]));
        largest = std::max(largest, size);
      }
      sum += 4 * largest;
    }
    return sum;
  }

  void add(std::uint32_t g) {
    std::size_t const first = core_.changes.size();
    priced_item const& base = input_.items[core_.base[g]];
    for (std::uint32_t i = input_.first[g]; i < input_.first[g + 1]; ++i) {
      if (i == core_.base[g]) continue;
      rounded_pair const difference = two_difference(input_.items[i].score, base.score);
      priced_change change{to_fixed(difference.high, core_.grid, core_.exact) +
                               to_fixed(difference.low, core_.grid, core_.exact),
                           0, {}, i, g};
      for (std::size_t d = 0; d < input_.count; ++d) change.cost[d] = input_.items[i].cost[d] - base.cost[d];
      change.reduced = reduced(change);
      core_.changes.push_back(change);
    }
    if (core_.changes.size() == first) return;
    auto const begin = core_.changes.begin() + static_cast<std::ptrdiff_t>(first);
    auto const less = [](priced_change const& a, priced_change const& b) { return a.reduced < b.reduced; };
    auto const least = std::min_element(begin, core_.changes.end(), less);
    if (least->reduced < 0) rebase(first, *least, g);
    core_.groups.push_back({std::min_element(begin, core_.changes.end(), less)->reduced,
                            static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(core_.changes.size())});
  }

  wide reduced(priced_change const& change) const {
    wide result = change.score;
    for (std::size_t d = 0; d < input_.count; ++d) result += core_.price[d] * change.cost[d];
    return result;
  }

  /// Swaps the roles of the base and `chosen`, where doubles misjudged them.
  void rebase(std::size_t first, priced_change& chosen, std::uint32_t g) {
    priced_change const origin = chosen;
    chosen = {0, 0, {}, core_.base[g], g};
    for (std::size_t i = first; i < core_.changes.size(); ++i) {
      priced_change& other = core_.changes[i];
      other.score -= origin.score;
      other.reduced -= origin.reduced;
      for (std::size_t d = 0; d < input_.count; ++d) other.cost[d] -= origin.cost[d];
    }
    core_.base[g] = origin.item;
    for (std::size_t d = 0; d < input_.count; ++d) core_.slack[d] -= origin.cost[d];
  }

  void finish() {
    wide bits = 0;
    for (priced_change const& one : core_.changes) bits |= one.score;
    if (bits != 0) core_.score_step = bits & -bits;
    for (std::size_t d = 0; d < input_.count; ++d) {
      core_.priced_slack += core_.price[d] * core_.slack[d];
      core_.reach[d] = std::abs(static_cast<double>(core_.slack[d]));
      for (priced_group const& group : core_.groups) {
        double largest = 0;
        for (std::uint32_t i = group.first; i < group.last; ++i)
          largest = std::max(largest, std::abs(static_cast<double>(core_.changes[i].cost[d])));
        core_.reach[d] += largest;
      }
    }
    std::sort(core_.groups.begin(), core_.groups.end(), [](priced_group const& a, priced_group const& b) {
      return a.least_reduced != b.least_reduced ? a.least_reduced < b.least_reduced : a.first < b.first;
    });
  }

  priced_instance const& input_;
  budget_core core_;
};

}  // namespace mixbit::solver::detail
