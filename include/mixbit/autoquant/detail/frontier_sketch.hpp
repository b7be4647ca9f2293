// A frontier in rough strokes: choices good enough to say where the exact table has to look.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "mixbit/autoquant/detail/frontier_windows.hpp"
#include "mixbit/autoquant/detail/long_score.hpp"

namespace mixbit::solver::detail {

/// By cost, the scores of some choices within the windows, in doubles; infinite where there is none.
inline std::vector<double> sketch(long_instance const& input, std::span<std::size_t const> order, std::size_t size,
                                  frontier_windows const& windows) {
  std::vector<double> now{0.0}, next;
  now.reserve(size);
  next.reserve(size);
  for (std::size_t const g : order) {
    next.assign(now.size() + static_cast<std::size_t>(input.span(g)), std::numeric_limits<double>::infinity());
    for (std::uint32_t i = input.all.first[g]; i < input.all.first[g + 1]; ++i) {
      cost_window const& window = windows[i];
      double const by = to_double(input.scores[i], 0);
      double* const to = next.data() + input.costs[i];
      for (std::size_t cost = window.from; cost < window.to; ++cost)
        to[cost] = now[cost] + by < to[cost] ? now[cost] + by : to[cost];
    }
    now.swap(next);
  }
  return now;
}

/// The windows of a table of `size` costs, or nothing where they would not leave out half of all sums.
inline std::optional<frontier_windows> windows_for(long_instance const& input, std::span<std::size_t const> order,
                                                   std::size_t size) {
  constexpr std::size_t fewest = 2048;  // costs that are worth it
  constexpr double most_open = 0.5;
  if (size < fewest) return std::nullopt;
  double all = 0, length = 1;
  for (std::size_t const g : order) {
    all += static_cast<double>(input.all.first[g + 1] - input.all.first[g]) * length;
    length += static_cast<double>(input.span(g));
  }
  frontier_windows windows{input, order, size};
  if (windows.open_part() > most_open) return std::nullopt;
  windows.allow_steps();
  if (windows.sums() > all / 2) return std::nullopt;
  windows.allow(sketch(input, order, size, windows));
  if (windows.sums() > all / 2) return std::nullopt;
  return windows;
}

}  // namespace mixbit::solver::detail
