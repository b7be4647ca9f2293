// How sure a ranking of groups by sensitivity is, from the scatter of its scores over the scoring steps.
//
// Two groups are compared step by step, since a hard batch raises both. With d_t = a_t - b_t, n steps and
// d = Σ d_t >= 0, the standard error of d is e = sqrt(n / (n-1) Σ (d_t - d/n)²), and the chance that steps drawn anew
// would rank them the other way round is Φ(-d/e) = erfc(d / (e √2)) / 2, by the normal approximation of a sum.
#pragma once

#include <cmath>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"

namespace mixbit {

/// The chance, in [0, 0.5], that other steps swap two groups of which `a` scores at least as much; 0 where they differ
/// by the same in every step, 0.5 where they are equal. NaN below two steps or where their steps do not pair.
inline double swap_chance(candidate_stat const& a, candidate_stat const& b) {
  std::size_t const n = a.by_step.size();
  if (n < 2 || b.by_step.size() != n) return std::nan("");
  double sum = 0, squares = 0;
  for (std::size_t t = 0; t < n; ++t) sum += a.by_step[t] - b.by_step[t];
  double const count = static_cast<double>(n), mean = sum / count;
  for (std::size_t t = 0; t < n; ++t) {
    double const off = a.by_step[t] - b.by_step[t] - mean;
    squares += off * off;
  }
  double const error = std::sqrt(squares * count / (count - 1));
  if (error == 0) return sum == 0 ? 0.5 : 0.0;
  return std::erfc(sum / (error * std::sqrt(2.0))) / 2;
}

struct ranked_group {
  std::size_t group = 0;      ///< index into the statistics
  double score = 0;           ///< its sensitivity
  double standard_error = 0;  ///< of that; NaN below two steps
  double swaps_with_next = 0; ///< chance that the next group in rank belongs before it; NaN for the last
};

/// Groups from the most to the least sensitive, with what is known of each place. Those without a choice come last and
/// have no rank: nothing is known of them.
inline std::vector<ranked_group> rank_stability(candidate_stats const& stats) {
  std::vector<ranked_group> all;
  auto const order = ranked(stats);
  for (std::size_t r = 0; r < order.size(); ++r) {
    auto const& g = stats[order[r]];
    ranked_group row{order[r], sensitivity(g), std::nan(""), std::nan("")};
    if (g.is_open()) row.standard_error = g.candidates.front().standard_error();
    if (r + 1 < order.size() && stats[order[r + 1]].is_open())
      row.swaps_with_next = swap_chance(g.candidates.front(), stats[order[r + 1]].candidates.front());
    all.push_back(row);
  }
  return all;
}

}  // namespace mixbit
