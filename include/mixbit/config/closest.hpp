// "Did you mean ...": the names nearest to one that does not exist, for messages.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/core/order.hpp"

namespace mixbit {

namespace detail {

/// Levenshtein's distance, letters of either case alike.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  auto const lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t const change = diagonal + (lower(a[i - 1]) != lower(b[j - 1]));
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row[b.size()];
}

}  // namespace detail

/// " (close: A, B, C)" for the at most three nearest of `names`, or "" where nothing is near.
inline std::string close_names(std::string_view wrong, std::span<std::string_view const> names) {
  std::vector<std::string_view> near;
  std::vector<std::size_t> distances;
  for (std::string_view name : names) {
    std::size_t const distance = detail::edit_distance(wrong, name);
    if (distance > std::max<std::size_t>(3, wrong.size() / 2)) continue;
    near.push_back(name);
    distances.push_back(distance);
  }
  if (near.empty()) return {};
  auto const order = detail::stable_order(
      near.size(), [&](std::size_t a, std::size_t b) { return distances[a] < distances[b]; });
  std::string text = " (close: ";
  for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 3); ++i)
    text.append(i ? ", " : "").append(near[order[i]]);
  return text += ')';
}

}  // namespace mixbit
