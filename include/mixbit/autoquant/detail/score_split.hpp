// How the table of a frontier holds scores: the order of its groups, and which bits go where.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <numeric>
#include <vector>

#include "mixbit/autoquant/detail/long_score.hpp"

namespace mixbit::solver::detail {

inline constexpr std::size_t most_table_items = 256;  // of a group

/// Groups by rising span of costs, which keeps the table short for longest.
inline std::vector<std::size_t> order_by_span(long_instance const& input) {
  std::vector<std::size_t> order(input.all.groups());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return input.span(a) < input.span(b); });
  return order;
}

/// Which bits of a score go where: the lowest `drop` are 0 in all, `low_bits` are the low part, the rest is the high
/// part, which has room for a candidate's number below it.
struct score_split {
  int number_bits = 0, low_bits = 0, drop = 0;

  explicit score_split(long_instance const& input) {
    std::size_t most = 1;
    long_score any, largest;
    for (std::size_t g = 0; g < input.all.groups(); ++g) {
      most = std::max<std::size_t>(most, input.all.first[g + 1] - input.all.first[g]);
      largest = largest + input.scores[input.all.first[g]];
    }
    for (long_score const& one : input.scores) any = {any.high | one.high, any.low | one.low};
    number_bits = static_cast<int>(std::bit_width(most - 1));
    if (any == long_score{}) return;
    drop = trailing_zeros(any);
    low_bits = std::max(0, width(largest) - drop - (53 - number_bits));
  }

  double high(long_score const& s) const { return static_cast<double>(bits_above(s, drop + low_bits)); }
  unsigned_wide low(long_score const& s) const {
    return low_bits == 0 ? 0 : bits_above(s, drop) & ((unsigned_wide{1} << low_bits) - 1);
  }
};

}  // namespace mixbit::solver::detail
