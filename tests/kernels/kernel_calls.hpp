// The quantizing kernels as functions: what a backend B makes of a tensor.
#pragma once

#include <cstring>

#include "mixbit/formats/check.hpp"
#include "mixbit/formats/storage.hpp"
#include "support/kernel_data.hpp"

namespace kernel_tests {

using namespace mixbit;
using namespace test_data;

template <class T>
bool same_memory(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

struct call {
  partition groups;
  std::vector<float> amax;  // empty: from the data
  format how;
  float tensor_amax = 0;
  amax_use use() const { return amax.empty() ? amax_use::data : amax_use::given; }
  float const* given() const { return amax.empty() ? nullptr : amax.data(); }
};

template <class B, class T>
std::vector<T> quantized(tensor<T> x, geometry const& to, call const& c, bool in_place) {
  tensor<T> y{to};
  data_flags flags;
  B cpu;
  auto& target = in_place ? x : y;
  cpu.fake_quantize({x.view(), target.ref(), c.groups, c.given(), c.how, &flags, &c.tensor_amax, c.use()});
  target.memory.push_back(T(from_float<T>(static_cast<float>(flags.negative_unsigned))));
  return target.memory;
}

/// Codes, scales, the tensor's scale and the count of NaN, in this order.
template <class B, class T>
std::vector<std::uint8_t> encoded(tensor<T> x, call const& c) {
  auto const size = storage_size_of(c.how, x.g, c.groups);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload) + 8, 0xee),
      scales(static_cast<std::size_t>(size.scales), 0xee);
  float tensor_scale = 0;
  data_flags flags;
  B cpu;
  cpu.encode({x.view(), c.groups, c.given(), c.how, codes.data(), scales.data(), &flags, &c.tensor_amax, &tensor_scale,
              c.use()});
  codes.insert(codes.end(), scales.begin(), scales.end());
  for (int i = 0; i < 4; ++i) codes.push_back(static_cast<std::uint8_t>(fp::bits(tensor_scale) >> 8 * i));
  codes.push_back(static_cast<std::uint8_t>(flags.nonfinite));
  return codes;
}

template <class B, class T>
std::vector<T> decoded(geometry const& g, call const& c, std::vector<std::uint8_t> const& codes) {
  auto const size = storage_size_of(c.how, g, c.groups);
  tensor<T> y{g};
  float tensor_scale = 0;
  std::memcpy(&tensor_scale, codes.data() + codes.size() - 5, sizeof tensor_scale);
  // memory of their own, which is aligned for any type of scale
  auto const first = codes.begin() + static_cast<std::ptrdiff_t>(size.payload) + 8;
  std::vector<std::uint8_t> const scales(first, first + static_cast<std::ptrdiff_t>(size.scales));
  B cpu;
  cpu.decode({codes.data(), scales.data(), c.groups, c.how, y.ref(), &tensor_scale});
  return y.memory;
}

}  // namespace kernel_tests
