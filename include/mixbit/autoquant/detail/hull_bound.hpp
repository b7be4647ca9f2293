// The linear relaxation at every budget: what no choice can score below.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixbit/autoquant/detail/relaxation.hpp"

namespace mixbit::solver::detail {

/// The hulls of all groups merged into one convex curve, summed from its end: there the scores are all lowest, and
/// what is added on the way to smaller budgets is positive, so that rounding errors stay relative to the sum.
class hull_bound {
 public:
  explicit hull_bound(instance problem) : steps_{hull_steps(problem)} {
    std::sort(steps_.begin(), steps_.end(), [](hull_step const& a, hull_step const& b) { return a.slope > b.slope; });
    ends_.reserve(steps_.size());
    std::int64_t cost = 0;
    for (hull_step const& step : steps_) ends_.push_back(cost += step.cost);
    above_.assign(steps_.size() + 1, 0.0);
    for (std::size_t i = steps_.size(); i-- > 0;)
      above_[i] = above_[i + 1] + steps_[i].slope * static_cast<double>(steps_[i].cost);
  }

  /// A lower bound on (score - the least possible score) of every choice that costs at most `room` bits above the
  /// cheapest; 0 or more. Slopes are rounded, so steps of all but equal slope may stand in a wrong order, and some
  /// 2^22 sums may each be off by half a unit: 2^-30 of the sum before the step covers both.
  double above_least(std::int64_t room) const {
    auto const at = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), room) - ends_.begin());
    if (at == steps_.size()) return 0;
    double const left = steps_[at].slope * static_cast<double>(ends_[at] - room);
    return std::max(0.0, above_[at + 1] + left - 0x1p-30 * above_[at]);
  }

 private:
  std::vector<hull_step> steps_;
  std::vector<std::int64_t> ends_;
  std::vector<double> above_;
};

}  // namespace mixbit::solver::detail
