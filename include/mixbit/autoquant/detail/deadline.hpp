// When a solver has to end.
#pragma once

#include <chrono>

namespace mixbit::solver::detail {

using time_point = std::chrono::steady_clock::time_point;

inline constexpr time_point never = time_point::max();

/// `seconds` from now; 0 and what no clock counts: never.
inline time_point deadline_in(double seconds) {
  using clock = std::chrono::steady_clock;
  if (!(seconds > 0) || seconds > 1e9) return never;
  return clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(seconds));
}

inline bool is_over(time_point deadline) { return deadline != never && std::chrono::steady_clock::now() >= deadline; }

/// What is left, for a limit in seconds: above 0 also where nothing is; 0 where there is no limit.
inline double seconds_until(time_point deadline) {
  if (deadline == never) return 0;
  double const left = std::chrono::duration<double>(deadline - std::chrono::steady_clock::now()).count();
  return left > 1e-9 ? left : 1e-9;
}

}  // namespace mixbit::solver::detail
