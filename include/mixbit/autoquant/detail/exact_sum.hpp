// Sums of doubles without rounding error, and 128-bit fixed-point numbers.
//
// The solver compares totals that may differ in the last bit of a score only, at any scale. It therefore works on
// integers: a score difference is a whole number of units of 2^grid. Totals that are reported are summed as an
// expansion of doubles that do not overlap (J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997,
// GROW-EXPANSION) and rounded once.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#error "mixbit: the solver's proofs need IEEE arithmetic; compile without -ffast-math and -fassociative-math"
#endif

namespace mixbit::solver::detail {

/// A signed integer of 128 bits; g++ and clang++ both have it, -Wpedantic wants it marked.
__extension__ typedef __int128 wide;

/// a + b as a rounded sum and its exact error (Knuth's two-sum, valid for any order of magnitudes).
struct rounded_pair {
  double high;
  double low;
};

inline rounded_pair two_sum(double a, double b) noexcept {
  double const sum = a + b;
  double const b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

/// The exact difference of two doubles as the sum of two doubles.
inline rounded_pair two_difference(double a, double b) noexcept { return two_sum(a, -b); }

/// An accumulator of doubles that loses nothing. rounded() is the exact sum, rounded once to nearest, ties to even.
class exact_sum {
 public:
  void add(double value) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      rounded_pair const pair = two_sum(value, parts_[i]);
      if (pair.low != 0) parts_[kept++] = pair.low;
      value = pair.high;
    }
    parts_.resize(kept);
    if (value != 0) parts_.push_back(value);
  }

  /// Adds units * 2^grid exactly, in four limbs of 32 bits.
  void add(wide units, int grid) {
    for (int limb = 0; limb < 4 && units != 0; ++limb) {
      auto const digit = static_cast<double>(static_cast<std::int64_t>(units % (wide{1} << 32)));  // signed as units
      if (digit != 0) add(std::ldexp(digit, grid + 32 * limb));
      units /= wide{1} << 32;
    }
  }

  double rounded() const noexcept {
    if (parts_.empty()) return 0;
    std::size_t i = parts_.size() - 1;
    double high = parts_[i];
    double low = 0;
    while (i > 0 && low == 0) {
      rounded_pair const pair = two_sum(high, parts_[--i]);
      high = pair.high;
      low = pair.low;
    }
    // `low` may be half a unit of `high`, rounded to even: what lies below decides the direction.
    if (i > 0 && ((low < 0 && parts_[i - 1] < 0) || (low > 0 && parts_[i - 1] > 0))) {
      double const moved = high + 2 * low;
      if (moved - high == 2 * low) high = moved;
    }
    return high;
  }

 private:
  std::vector<double> parts_;  // increasing magnitude, without overlap
};

/// `value` in units of 2^grid, rounded down; `exact` is cleared when bits were lost. |value| is below 2^(grid+126).
inline wide to_fixed(double value, int grid, bool& exact) noexcept {
  if (value == 0) return 0;
  int exponent = 0;
  auto const mantissa = static_cast<std::int64_t>(std::ldexp(std::frexp(value, &exponent), 53));
  int const shift = exponent - 53 - grid;
  if (shift >= 0) return wide{mantissa} * (wide{1} << shift);
  if (shift <= -63) {
    exact = false;
    return mantissa < 0 ? -1 : 0;
  }
  std::int64_t const whole = mantissa >> -shift;
  if (whole * (std::int64_t{1} << -shift) != mantissa) exact = false;
  return whole;
}

}  // namespace mixbit::solver::detail
