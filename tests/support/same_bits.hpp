// Comparison of float tensors to the bit: NaN equals the same NaN, and 0 is not -0.
#pragma once

#include <cstddef>
#include <cstring>

namespace mixbit::test {

/// Also of the same shape. For dense tensors of Eigen and of xtensor.
template <class Tensor>
bool same_bits(Tensor const& a, Tensor const& b) {
  if constexpr (requires { a.rows(); }) {
    if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  } else {
    if (a.shape() != b.shape()) return false;
  }
  return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof *a.data()) == 0;
}

}  // namespace mixbit::test
