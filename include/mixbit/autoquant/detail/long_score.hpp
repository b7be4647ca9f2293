// Scores as integers of 192 bits on one grid for a whole problem, for solvers that keep all of it open.
//
// The core of a single budget spans few magnitudes, and 118 bits hold it. A frontier keeps every candidate of every
// group, from a layer's first bits to another's last: 164 bits below the largest possible total leave every score of
// at least 2^-112 of it whole. Smaller ones are rounded down, and `exact` says so.
#pragma once

#include <bit>
#include <cmath>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "mixbit/autoquant/detail/exact_sum.hpp"
#include "mixbit/autoquant/detail/relaxation.hpp"

namespace mixbit::solver::detail {

__extension__ typedef unsigned __int128 unsigned_wide;

/// high * 2^128 + low. The order of the members is the order of the numbers.
struct long_score {
  std::int64_t high = 0;
  unsigned_wide low = 0;

  friend auto operator<=>(long_score const& a, long_score const& b) noexcept {
    if (a.high != b.high) return a.high <=> b.high;
    return a.low < b.low ? std::strong_ordering::less
                         : a.low == b.low ? std::strong_ordering::equal : std::strong_ordering::greater;
  }
  friend bool operator==(long_score const& a, long_score const& b) noexcept = default;
  friend long_score operator+(long_score const& a, long_score const& b) noexcept {
    unsigned_wide const sum = a.low + b.low;
    return {a.high + b.high + (sum < a.low ? 1 : 0), sum};
  }
  friend long_score operator-(long_score const& a, long_score const& b) noexcept {
    return {a.high - b.high - (a.low < b.low ? 1 : 0), a.low - b.low};
  }
};

/// `units` * 2^shift, 0 <= shift < 192; no bit may be pushed out.
inline long_score shifted(unsigned_wide units, int shift) noexcept {
  if (shift >= 128) return {static_cast<std::int64_t>(static_cast<std::uint64_t>(units) << (shift - 128)), 0};
  return {shift == 0 ? 0 : static_cast<std::int64_t>(static_cast<std::uint64_t>(units >> (128 - shift))),
          units << shift};
}

/// value / 2^shift, rounded down, 0 <= shift < 192: its last 128 bits. The value must not be negative.
inline unsigned_wide bits_above(long_score const& value, int shift) noexcept {
  auto const high = static_cast<std::uint64_t>(value.high);
  if (shift >= 128) return high >> (shift - 128);
  return shift == 0 ? value.low : (value.low >> shift) | (unsigned_wide{high} << (128 - shift));
}

/// How many bits a value has up to its first 1, and how many zeros it ends in; it must be above 0.
inline int width(long_score const& value) noexcept {
  auto const middle = static_cast<std::uint64_t>(value.low >> 64);
  if (value.high != 0) return 128 + static_cast<int>(std::bit_width(static_cast<std::uint64_t>(value.high)));
  return static_cast<int>(middle != 0 ? 64 + std::bit_width(middle)
                                      : std::bit_width(static_cast<std::uint64_t>(value.low)));
}
inline int trailing_zeros(long_score const& value) noexcept {
  auto const low = static_cast<std::uint64_t>(value.low), middle = static_cast<std::uint64_t>(value.low >> 64);
  if (low != 0) return std::countr_zero(low);
  return middle != 0 ? 64 + std::countr_zero(middle)
                     : 128 + std::countr_zero(static_cast<std::uint64_t>(value.high));
}

/// `value` in units of 2^grid, rounded down; `exact` is cleared when bits were lost. |value| is below 2^(grid+190).
inline long_score to_long(double value, int grid, bool& exact) noexcept {
  if (value == 0) return {};
  int exponent = 0;
  auto const mantissa = static_cast<std::int64_t>(std::ldexp(std::frexp(value, &exponent), 53));
  int const shift = exponent - 53 - grid;
  std::uint64_t magnitude = static_cast<std::uint64_t>(std::abs(mantissa));
  if (shift < 0) {
    std::uint64_t const lost = shift <= -63 ? magnitude : magnitude & ((std::uint64_t{1} << -shift) - 1);
    magnitude = shift <= -63 ? 0 : magnitude >> -shift;
    if (lost != 0) {
      exact = false;
      magnitude += mantissa < 0 ? 1 : 0;
    }
  }
  long_score const whole = shifted(magnitude, shift < 0 ? 0 : shift);
  return mantissa < 0 ? long_score{} - whole : whole;
}

/// units * 2^grid, rounded once to nearest, ties to even (where the result is a normal number).
inline double to_double(long_score value, int grid) noexcept {
  bool const negative = value.high < 0;
  if (negative) value = long_score{} - value;
  auto const high = static_cast<std::uint64_t>(value.high);
  auto const middle = static_cast<std::uint64_t>(value.low >> 64);
  auto const low = static_cast<std::uint64_t>(value.low);
  // the leading 64 bits, their last one set where anything lies below: the conversion then rounds as for all bits
  auto const lead = [](std::uint64_t a, std::uint64_t b, bool below) {
    int const zeros = std::countl_zero(a);
    std::uint64_t const top = zeros == 0 ? a : (a << zeros) | (b >> (64 - zeros));
    bool const rest = below || (zeros == 0 ? b != 0 : (b << zeros) != 0);
    return std::ldexp(static_cast<double>(top | (rest ? 1 : 0)), -zeros);
  };
  double const magnitude = high != 0     ? std::ldexp(lead(high, middle, low != 0), 128)
                           : middle != 0 ? std::ldexp(lead(middle, low, false), 64)
                                         : static_cast<double>(low);
  return std::ldexp(negative ? -magnitude : magnitude, grid);
}

/// A problem in integers. Group g's items are those of `all`; costs count from its cheapest item, scores from its last.
struct long_instance {
  instance all;
  std::vector<long_score> scores;  // of all.items, above their group's lowest; >= 0
  std::vector<std::int64_t> costs;  // of all.items, above their group's cheapest, in steps
  long_score least;                // the sum of the lowest
  std::int64_t cheapest = 0;       // the sum of the cheapest, in bits
  std::int64_t step = 1;           // bits: all costs are multiples of it
  int grid = 0;
  bool exact = true;  // otherwise every score may be off by less than a unit

  std::int64_t span(std::size_t g) const { return costs[all.first[g + 1] - 1]; }
  /// The score of a state `above` the least possible, as the user counts.
  double score(long_score const& above) const { return std::ldexp(to_double(least + above, grid), -all.shift); }
};

/// `largest` is the largest |score| of the input, before the instance's shift.
inline long_instance make_long(instance all, double largest) {
  long_instance result;
  result.all = std::move(all);
  instance const& items = result.all;
  double const scaled = std::ldexp(largest, items.shift);
  int const groups = static_cast<int>(std::bit_width(items.groups()));
  if (scaled > 0) result.grid = std::ilogb(scaled) + 1 + groups - 163;
  std::int64_t divisor = 0;
  for (std::size_t g = 0; g < items.groups(); ++g) {
    item const& first = items.items[items.first[g]];
    long_score const lowest = to_long(items.items[items.first[g + 1] - 1].score, result.grid, result.exact);
    result.least = result.least + lowest;
    result.cheapest += first.cost;
    for (std::uint32_t i = items.first[g]; i < items.first[g + 1]; ++i) {
      result.scores.push_back(to_long(items.items[i].score, result.grid, result.exact) - lowest);
      result.costs.push_back(items.items[i].cost - first.cost);
      divisor = std::gcd(divisor, result.costs.back());
    }
  }
  if (divisor > 1) {
    result.step = divisor;
    for (std::int64_t& cost : result.costs) cost /= divisor;
  }
  return result;
}

}  // namespace mixbit::solver::detail
