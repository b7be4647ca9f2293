// The order in which the values of a group are summed. Floating-point addition is not associative, so the order is part
// of the result: it depends on shape, strides and partition alone, and every backend gives the same bits.
//
// The n elements of a group are numbered in memory order: axes by falling |stride|, of equal ones the first first. They
// are cut into chunks of chunk_length(n). Within a chunk element i is added to lane i mod sum_lanes, in the order of i;
// every lane starts at +0. The lanes' sums are then added from lane 0 on, starting at +0, and so are the chunks' sums.
// Adding +0 for an element that is left out changes nothing.
#pragma once

#include <cstdint>

#include "mixbit/core/dtype.hpp"
#include "mixbit/core/kernel_args.hpp"

namespace mixbit::formats {

inline constexpr std::int64_t sum_lanes = 32, most_sum_chunks = 512, least_sum_chunk = 1024;

/// Elements of a chunk: a multiple of sum_lanes, such that there are at most most_sum_chunks.
MIXBIT_HD constexpr std::int64_t sum_chunk_length(std::int64_t n) {
  std::int64_t const shortest = (n + most_sum_chunks - 1) / most_sum_chunks;
  std::int64_t const whole = (shortest + sum_lanes - 1) / sum_lanes * sum_lanes;
  return whole < least_sum_chunk ? least_sum_chunk : whole;
}

/// The most chunks that a group of up to n elements has. A shorter group may have more than a longer one: 524288
/// elements have 512 chunks of 1024, and 524289 have 497 of 1056.
MIXBIT_HD constexpr std::int64_t sum_chunks_up_to(std::int64_t n) {
  return n <= most_sum_chunks * least_sum_chunk ? (n + least_sum_chunk - 1) / least_sum_chunk : most_sum_chunks;
}

/// What one finite element adds. The square of a float32 is exact in double, so a fused product changes nothing.
MIXBIT_HD constexpr double sum_term(sum_of what, float x) {
  double const v = x;
  return what == sum_of::squares ? v * v : what == sum_of::magnitudes ? static_cast<double>(fp::abs(x)) : v;
}

}  // namespace mixbit::formats
