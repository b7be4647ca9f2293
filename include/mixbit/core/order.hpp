// Indices in an order. std::stable_sort is long code: a source file compiles it once, for indices, rather than for each
// type of which something is sorted.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "mixbit/core/function_ref.hpp"

namespace mixbit::detail {

/// 0 to n - 1 as `before(a, b)` has them: those of which neither is before the other keep their order.
inline std::vector<std::size_t> stable_order(std::size_t n, function_ref<bool(std::size_t, std::size_t)> before) {
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), before);
  return order;
}

}  // namespace mixbit::detail
