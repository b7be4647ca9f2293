// Division by a number that is known when a kernel is launched: one multiplication and one shift.
#pragma once

#include <cstdint>

#include "mixbit/core/fp.hpp"

namespace mixbit::cuda {

/// n / d for 0 <= n, 1 <= d. Exact: with 2^(s-1) < d <= 2^s and m = ceil(2^(31+s) / d) the quotient is
/// (n * m) >> (31 + s) for all n < 2^31 (Granlund and Montgomery, 1994, theorem 4.2). Larger numbers are divided.
class divider {
 public:
  divider() = default;
  constexpr explicit divider(std::int64_t d) : divisor_{d}, factor_{0} {
    if (d > largest) return;
    int s = 0;
    while ((std::int64_t{1} << s) < d) ++s;
    shift_ = 31 + s;
    auto const wide = static_cast<std::uint64_t>(d);
    factor_ = static_cast<std::uint32_t>(((std::uint64_t{1} << shift_) + wide - 1) / wide);
  }

  MIXBIT_HD constexpr std::int64_t quotient(std::int64_t n) const {
    if (n <= largest && factor_ != 0)
      return static_cast<std::int64_t>((static_cast<std::uint64_t>(n) * factor_) >> shift_);
    return n / divisor_;
  }
  MIXBIT_HD constexpr std::int64_t divisor() const { return divisor_; }

 private:
  static constexpr std::int64_t largest = 0x7fffffff;
  std::int64_t divisor_ = 1;
  std::uint32_t factor_ = 0x80000000u;
  int shift_ = 31;
};

}  // namespace mixbit::cuda
