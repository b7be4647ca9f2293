// What fast-math modes change, as a kernel: sums, products and quotients with subnormal operands and results, and ones
// whose last bit an approximate division misses.
#pragma once

#include "mixbit/cuda/kernels/context.hpp"

namespace mixbit::cuda {

struct arithmetic_probe {
  static constexpr int operands = 8, results = operands * operands * 3;
  float operand[operands];
  std::uint32_t* result;  ///< [results]

  static arithmetic_probe into(std::uint32_t* result) {
    return {{1.0f, 3.0f, 0.7f, -1e-20f, 1e-40f, 0x1p-149f, 1.17549435e-38f, 6.0221408e23f}, result};
  }

  MIXBIT_HD std::uint32_t compute(int i) const {
    float const a = operand[i / 3 / operands], b = operand[i / 3 % operands];
    return fp::bits(i % 3 == 0 ? a + b : i % 3 == 1 ? fp::mul(a, b) : fp::div(a, b));
  }

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    at.each([&](int thread) {
      for_stretches(at, results, at.threads(), [&](std::int64_t first) {
        if (first + thread < results) result[first + thread] = compute(static_cast<int>(first) + thread);
      });
    });
  }
};

}  // namespace mixbit::cuda
