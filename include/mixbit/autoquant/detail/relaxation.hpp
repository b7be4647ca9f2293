// The linear relaxation of the multiple-choice knapsack, and what can be fixed by its reduced costs.
//
// Everything here is computed in doubles, from which nothing is believed but what a bound on the rounding error
// allows: a candidate is dropped only if its reduced cost exceeds the gap by more than that error. What remains (the
// core) is small and is searched in exact integers by core.hpp.
//
// Sources: dominance, hull and relaxation by partition instead of sorting are Zemel's and Dyer's (1984); reduced-cost
// fixing and the core are Pisinger's ("A minimal algorithm for the multiple-choice knapsack problem", 1995).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace mixbit::solver::detail {

/// A candidate that no other of its group dominates; a group's are ordered by rising cost and falling score.
struct item {
  double score;         // times 2^shift
  std::int64_t cost;    // bits
  double slope;         // score saved per bit by the step up the hull that ends here; < 0: inside the hull
  std::uint32_t index;  // the candidate's place in its group as given
};

/// The groups after dominance. Group g is items[first[g]] up to items[first[g + 1]].
struct instance {
  std::vector<item> items;
  std::vector<std::uint32_t> first;
  int shift = 0;  // scores were multiplied by 2^shift, to stay away from overflow and underflow

  std::size_t groups() const noexcept { return first.size() - 1; }
};

/// The power of two that brings scores of magnitude `largest` where sums and slopes are safe. Scaling up is exact;
/// scaling down happens only from 2^900 and loses bits only of scores that are 2^900 times smaller.
inline int safe_shift(double largest) noexcept {
  if (largest == 0) return 0;
  int const exponent = std::ilogb(largest);
  if (exponent > 900) return 900 - exponent;
  if (exponent < -500) return -500 - exponent;
  return 0;
}

/// Appends one group to `into`, without its dominated candidates: one is dropped if another costs no more and scores
/// no more (of equal ones the first stays). `Candidate` has `score` and `cost`.
template <class Candidate>
void append_group(std::span<Candidate const> group, double scale, instance& into) {
  std::size_t const start = into.items.size();
  for (std::size_t i = 0; i < group.size(); ++i) {
    into.items.push_back({group[i].score * scale, group[i].cost, -1.0, static_cast<std::uint32_t>(i)});
  }
  auto const begin = into.items.begin() + static_cast<std::ptrdiff_t>(start);
  auto const before = [](item const& a, item const& b) {
    if (a.cost != b.cost) return a.cost < b.cost;
    return a.score != b.score ? a.score < b.score : a.index < b.index;
  };
  if (group.size() > 24) {
    std::sort(begin, into.items.end(), before);
  } else {  // insertion: groups are small and often in order already
    for (auto i = begin + 1; i < into.items.end(); ++i) {
      item const moved = *i;
      auto hole = i;
      for (; hole > begin && before(moved, hole[-1]); --hole) *hole = hole[-1];
      *hole = moved;
    }
  }
  auto kept = begin + 1;
  for (auto i = begin + 1; i < into.items.end(); ++i) {
    if (i->score < kept[-1].score) *kept++ = *i;
  }
  into.items.erase(kept, into.items.end());
  into.first.push_back(static_cast<std::uint32_t>(into.items.size()));
}

/// One step up a group's hull.
struct hull_step {
  double slope;
  std::int64_t cost;
};

/// Fills in the slopes of all hulls and returns all steps. Along a hull the (rounded) slopes fall strictly.
inline std::vector<hull_step> hull_steps(instance& problem) {
  std::vector<hull_step> steps;
  steps.reserve(problem.items.size() - problem.groups());
  item* const items = problem.items.data();
  std::vector<std::uint32_t> hull;  // of one group
  for (std::size_t g = 0; g < problem.groups(); ++g) {
    hull.clear();
    hull.push_back(problem.first[g]);
    items[hull.back()].slope = std::numeric_limits<double>::infinity();
    for (std::uint32_t i = problem.first[g] + 1; i < problem.first[g + 1]; ++i) {
      item& next = items[i];
      auto const slope_from = [&next](item const& from) {
        return (from.score - next.score) / static_cast<double>(next.cost - from.cost);
      };
      double slope = slope_from(items[hull.back()]);
      while (hull.size() > 1 && slope >= items[hull.back()].slope) {
        items[hull.back()].slope = -1;
        hull.pop_back();
        slope = slope_from(items[hull.back()]);
      }
      next.slope = slope;
      hull.push_back(i);
    }
    for (std::size_t k = 1; k < hull.size(); ++k)
      steps.push_back({items[hull[k]].slope, items[hull[k]].cost - items[hull[k - 1]].cost});
  }
  return steps;
}

/// The slope at which steps in falling order of slope use up `room`; 0 if they all fit. Linear time on average:
/// a three-way partition around a pivot, going on in the part that holds the break. Reorders `steps`.
inline double break_slope(std::vector<hull_step>& steps, std::int64_t room) {
  std::size_t low = 0;
  std::size_t high = steps.size();
  while (low < high) {
    double const a = steps[low].slope;
    double const b = steps[low + (high - low) / 2].slope;
    double const c = steps[high - 1].slope;
    double const pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    std::int64_t above_cost = 0;
    std::int64_t equal_cost = 0;
    std::size_t above = low;
    std::size_t below = high;
    for (std::size_t i = low; i < below;) {
      hull_step const step = steps[i];
      if (step.slope > pivot) {
        above_cost += step.cost;
        steps[i++] = steps[above];
        steps[above++] = step;
      } else if (step.slope < pivot) {
        steps[i] = steps[--below];
        steps[below] = step;
      } else {
        equal_cost += step.cost;
        ++i;
      }
    }
    if (above_cost > room) {
      high = above;
    } else if (equal_cost > room - above_cost) {
      return pivot;
    } else {
      room -= above_cost + equal_cost;
      low = below;
    }
  }
  return 0;
}

/// The relaxation's integral part: with multiplier `slope`, group g takes items[base[g]]; that fits, `slack` is left.
struct relaxation {
  double slope = 0;
  std::int64_t slack = 0;
  std::vector<std::uint32_t> base;
};

/// Solves the relaxation. `room` is the budget above the cheapest choice and must not be negative.
inline relaxation relax(instance& problem, std::int64_t room) {
  relaxation result;
  std::vector<hull_step> steps = hull_steps(problem);
  result.slope = break_slope(steps, room);
  result.slack = room;
  result.base.assign(problem.first.begin(), problem.first.end() - 1);
  auto const climb = [&](std::size_t g, auto const& allowed) {
    std::uint32_t& base = result.base[g];
    for (std::uint32_t i = base + 1; i < problem.first[g + 1]; ++i) {
      if (problem.items[i].slope < 0) continue;
      std::int64_t const cost = problem.items[i].cost - problem.items[base].cost;
      if (!allowed(problem.items[i].slope, cost)) return;
      result.slack -= cost;
      base = i;
    }
  };
  for (std::size_t g = 0; g < problem.groups(); ++g) {
    climb(g, [&](double slope, std::int64_t) { return slope > result.slope; });
  }
  for (std::size_t g = 0; g < problem.groups() && result.slack > 0; ++g) {
    climb(g, [&](double slope, std::int64_t cost) { return slope == result.slope && cost <= result.slack; });
  }
  return result;
}

/// A change of one group's choice against the base: computed difference, and a bound on its reduced cost's error.
struct change {
  double score;
  double reduced;  // score + slope * cost
  double error;    // |exact - computed| of either
};

inline change change_of(item const& to, item const& from, double slope) noexcept {
  double const score = to.score - from.score;
  double const priced = slope * static_cast<double>(to.cost - from.cost);
  // Four roundings of at most 2^-53 of their operands; the last term covers underflow in the slope times any cost.
  return {score, score + priced, 0x1p-51 * (std::abs(score) + std::abs(priced)) + 0x1p-1000};
}

/// An upper bound on (best known total - relaxation's bound): what a reduced cost may be at most. The best known
/// total is the base with the best single step up that fits.
inline double gap_bound(instance const& problem, relaxation const& relaxed) {
  double best = 0;      // upper bound of the best single change
  double negative = 0;  // how far rounding may have put the base above the exact minimum at this slope
  for (std::size_t g = 0; g < problem.groups(); ++g) {
    item const& base = problem.items[relaxed.base[g]];
    double lowest = 0;
    for (std::uint32_t i = problem.first[g]; i < problem.first[g + 1]; ++i) {
      if (i == relaxed.base[g]) continue;
      change const step = change_of(problem.items[i], base, relaxed.slope);
      lowest = std::min(lowest, step.reduced - step.error);
      if (problem.items[i].cost - base.cost <= relaxed.slack) best = std::min(best, step.score + step.error);
    }
    negative -= lowest;
  }
  double const priced = relaxed.slope * static_cast<double>(relaxed.slack);
  double const rounding = 0x1p-50 * (priced - best) + 0x1p-20 * negative + 0x1p-1000;
  return priced + best + negative + rounding;
}

}  // namespace mixbit::solver::detail
