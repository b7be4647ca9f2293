// The core of a multiple-choice knapsack: the few choices that rounding-safe reduced costs leave open, as integers.
//
// Costs are bits relative to the base choice, scores are units of 2^grid relative to it. The grid is the finest on
// which no sum can overflow 128 bits, so that differences of doubles are kept exactly unless those left in the core
// span more than about 2^60 (then each is rounded down to the grid, and `exact` says so).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/exact_sum.hpp"
#include "mixbit/autoquant/detail/relaxation.hpp"

namespace mixbit::solver::detail {

/// An alternative to its group's base choice.
struct alternative {
  wide score;          // units, less the base's
  wide reduced;        // score + slope * cost, >= 0
  std::int64_t cost;   // bits, less the base's; never 0
  std::uint32_t item;  // into instance::items
  std::uint32_t group;
};

/// A group that is still open; its alternatives are core::alternatives[first] up to [last].
struct open_group {
  wide least_reduced;  // over its alternatives
  std::uint32_t first;
  std::uint32_t last;
};

struct core {
  std::vector<open_group> groups;
  std::vector<alternative> alternatives;
  std::vector<std::uint32_t> base;  // item of each group; the exact minimum of score + slope * cost in every open group
  wide slope = 0;                   // units per bit
  std::int64_t slack = 0;           // bits left by the base; may be negative after rounding was put right
  int grid = 0;
  bool exact = true;               // otherwise each open group's score may be off by less than two units
  std::size_t groups_at_start = 0;
  wide score_step = 1;           // all scores are multiples of it
  std::int64_t cost_step = 1;    // all costs are multiples of it, and so is the slack
  wide start_score = 0;          // the relaxation's choice, which fits: its totals relative to the base
  std::int64_t start_cost = 0;
  std::vector<std::uint32_t> start;  // its items
};

/// What survives the reduction: items that may be part of a choice no worse than the best known.
struct survivors {
  std::vector<std::uint32_t> items;  // in order, so group by group
  double magnitude = 0;              // at least the sum over open groups of their largest |score| + slope * |cost|
};

inline survivors reduce(instance const& problem, relaxation const& relaxed, double gap) {
  survivors result;
  result.magnitude = relaxed.slope * static_cast<double>(relaxed.slack);
  for (std::size_t g = 0; g < problem.groups(); ++g) {
    item const& base = problem.items[relaxed.base[g]];
    double largest = 0;
    for (std::uint32_t i = problem.first[g]; i < problem.first[g + 1]; ++i) {
      change const step = change_of(problem.items[i], base, relaxed.slope);
      if (i == relaxed.base[g] || step.reduced - step.error > gap) continue;
      result.items.push_back(i);
      largest = std::max(largest, step.error * 0x1p51);
    }
    result.magnitude += 4 * largest;  // twice for the base that may move, twice for rounding
  }
  return result;
}

/// Turns one group's survivors into integers and moves its base to the exact minimum where doubles misjudged it.
class core_builder {
 public:
  core_builder(instance const& problem, relaxation const& relaxed, double gap) : problem_{problem} {
    survivors const open = reduce(problem, relaxed, gap);
    core_.base = relaxed.base;
    core_.start = relaxed.base;
    core_.slack = relaxed.slack;
    core_.grid = open.magnitude > 0 ? std::ilogb(open.magnitude) - 118 : 0;
    bool ignored = true;  // any slope gives a bound; rounding it costs no exactness
    core_.slope = to_fixed(relaxed.slope, core_.grid, ignored);
    core_.alternatives.reserve(open.items.size());
    std::size_t begin = 0;
    for (std::uint32_t g = 0; begin < open.items.size(); ++g) {
      std::size_t end = begin;
      while (end < open.items.size() && open.items[end] < problem.first[g + 1]) ++end;
      if (begin < end) add(g, open.items, begin, end);
      begin = end;
    }
    core_.groups_at_start = core_.groups.size();
    find_steps();
  }

  core take() { return std::move(core_); }

 private:
  /// One group's items: survivors from `begin` up to `end`.
  void add(std::uint32_t group, std::vector<std::uint32_t> const& items, std::size_t begin, std::size_t end) {
    auto const first = static_cast<std::uint32_t>(core_.alternatives.size());
    item const& base = problem_.items[core_.base[group]];
    for (std::size_t i = begin; i < end; ++i) {
      item const& to = problem_.items[items[i]];
      rounded_pair const difference = two_difference(to.score, base.score);
      wide const score = to_fixed(difference.high, core_.grid, core_.exact) +
                         to_fixed(difference.low, core_.grid, core_.exact);
      std::int64_t const cost = to.cost - base.cost;
      core_.alternatives.push_back({score, score + core_.slope * cost, cost, items[i], group});
    }
    auto const last = static_cast<std::uint32_t>(core_.alternatives.size());
    auto const least = [&]() -> alternative& {
      return *std::min_element(core_.alternatives.begin() + first, core_.alternatives.end(),
                               [](alternative const& a, alternative const& b) { return a.reduced < b.reduced; });
    };
    if (least().reduced < 0) rebase(first, least(), group);
    core_.groups.push_back({least().reduced, first, last});
  }

  /// Swaps the roles of the base and `chosen`, which is one of the alternatives from `first` on.
  void rebase(std::size_t first, alternative& chosen, std::uint32_t group) {
    alternative const origin = chosen;
    chosen = {0, 0, 0, core_.base[group], group};
    for (std::size_t i = first; i < core_.alternatives.size(); ++i) {
      alternative& other = core_.alternatives[i];
      other.score -= origin.score;
      other.reduced -= origin.reduced;
      other.cost -= origin.cost;
    }
    core_.base[group] = origin.item;
    core_.slack -= origin.cost;
    core_.start_score -= origin.score;
    core_.start_cost -= origin.cost;
  }

  /// The steps in which scores (a power of two) and costs move: totals between two steps need no search.
  void find_steps() {
    wide bits = 0;
    std::int64_t divisor = 0;
    for (alternative const& one : core_.alternatives) {
      bits |= one.score;
      divisor = std::gcd(divisor, one.cost);
    }
    if (bits != 0) core_.score_step = bits & -bits;
    if (divisor == 0) return;
    core_.cost_step = divisor;
    core_.slack -= ((core_.slack % divisor) + divisor) % divisor;  // down, also where negative
  }

  instance const& problem_;
  core core_;
};

}  // namespace mixbit::solver::detail
