// Indices in an order. std::stable_sort is long code: a source file compiles it once, for indices, rather than for each
// type of which something is sorted.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
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

/// std::stable_sort of the elements, each of which is moved once into memory of its own.
template <class T>
void sort_stably(std::vector<T>& all, std::type_identity_t<function_ref<bool(T const&, T const&)>> before) {
  std::vector<T> sorted;
  sorted.reserve(all.size());
  for (std::size_t const i :
       stable_order(all.size(), [&](std::size_t a, std::size_t b) { return before(all[a], all[b]); }))
    sorted.push_back(std::move(all[i]));
  all = std::move(sorted);
}

}  // namespace mixbit::detail
