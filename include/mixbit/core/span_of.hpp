// A vector as a std::span. A span finds out by itself that it can be made of a vector, at the price of some thirty
// concepts for each type of element: where that costs most, in headers that most programs include, it is said instead.
#pragma once

#include <span>
#include <vector>

namespace mixbit::detail {

template <class T>
constexpr std::span<T const> span_of(std::vector<T> const& all) noexcept {
  return {all.data(), all.size()};
}

}  // namespace mixbit::detail
