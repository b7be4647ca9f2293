// When a solver has to end. Not by std::chrono: its calendars and streams would cost every source file more to compile
// than a solver.
#pragma once

#include <cstdint>
#include <ctime>
#include <limits>

namespace mixbit::solver::detail {

/// Nanoseconds of POSIX's clock that is never set back.
using time_point = std::int64_t;

inline constexpr time_point never = std::numeric_limits<time_point>::max();

inline time_point now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return time_point{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

/// `seconds` from now; 0 and what no clock counts: never.
inline time_point deadline_in(double seconds) {
  if (!(seconds > 0) || seconds > 1e9) return never;
  return now() + static_cast<time_point>(seconds * 1e9);
}

inline bool is_over(time_point deadline) { return deadline != never && now() >= deadline; }

/// What is left, for a limit in seconds: above 0 also where nothing is; 0 where there is no limit.
inline double seconds_until(time_point deadline) {
  if (deadline == never) return 0;
  double const left = static_cast<double>(deadline - now()) / 1e9;
  return left > 1e-9 ? left : 1e-9;
}

}  // namespace mixbit::solver::detail
