// A kernel as a host would write it from a descriptor: it reads codes and scales by `tensor_description` alone. Nothing
// of the library is called, types of 8 and 16 bits included.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "mixbit/formats/describe_tensor.hpp"

namespace mixbit::test {

/// The arrays of an encoded tensor, as they lie in memory.
struct described_arrays {
  std::uint8_t const* codes;
  std::uint8_t const* scales;
  float const* block_scales;
  float const* tensor_scale;
};

class described_kernel {
 public:
  described_kernel(tensor_description const& d, described_arrays const& a) : d_{d}, a_{a} {}

  /// The element at these indices, as float32 before it is rounded to the tensor's type.
  float operator()(extents const& at) const {
    std::int64_t row = 0, column = 0, group = 0;
    for (int a = 0; a < d_.rank; ++a) {
      std::int64_t& index = a < d_.row_axes ? row : column;
      index = index * d_.shape[a] + at[a];
      group += at[a] / d_.block[a] * d_.scale_stride[a];
    }
    float const value = value_of(pattern(row, column)), s = scale(group);
    float const y = d_.use == scale_use::divides ? value / s : value * s;
    return d_.negative_zero ? y : y + 0.0f;
  }

 private:
  unsigned pattern(std::int64_t row, std::int64_t column) const {
    if (d_.nibbles == nibble_order::high_first) {
      std::int64_t const k = row * d_.columns + column;
      return k % 2 == 0 ? a_.codes[k / 2] >> 4 : a_.codes[k / 2] & 15u;
    }
    if (d_.nibbles == nibble_order::low_is_even_row) {
      unsigned const pair = a_.codes[row / 2 * d_.row_bytes + column];
      return row % 2 == 0 ? pair & 15u : pair >> 4;
    }
    unsigned code = 0;
    for (int i = 0; i < d_.code_bits; ++i) {
      std::int64_t const bit = column * d_.code_bits + i;
      unsigned const one = a_.codes[row * d_.row_bytes + bit / 8] >> (bit % 8) & 1u;
      code |= one << i;
    }
    return code;
  }

  float value_of(unsigned pattern) const {
    if (!d_.values.empty()) return d_.values[pattern];
    return d_.element.is_unsigned ? static_cast<float>(pattern)
                                  : static_cast<float>(static_cast<std::int16_t>(pattern));
  }

  float scale(std::int64_t g) const {
    float const entry = read(g);
    if (d_.form == scale_form::times_tensor_scale) return entry * a_.tensor_scale[0];
    if (d_.form == scale_form::plain) return entry;
    float volatile const product = entry * a_.block_scales[g / d_.scale_block];  // no fused multiply-add
    float const sum = product + a_.tensor_scale[0];
    return sum > 0.0f ? sum : 0.0f;
  }

  float read(std::int64_t g) const {
    unsigned const byte = a_.scales[g];  // of the types of one byte
    if (d_.scale_entry == dtype::i8) return static_cast<float>(static_cast<std::int8_t>(byte));
    if (d_.scale_entry == dtype::f8_e8m0) return std::ldexp(1.0f, static_cast<int>(byte) - 127);
    if (d_.scale_entry == dtype::f8_e4m3) {
      int const field = static_cast<int>(byte >> 3 & 15u), mantissa = static_cast<int>(byte & 7u);
      return field == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                        : std::ldexp(static_cast<float>(8 + mantissa), field - 10);
    }
    if (d_.scale_entry == dtype::f32) {
      float value = 0;
      std::memcpy(&value, a_.scales + 4 * g, 4);
      return value;
    }
    unsigned const word = a_.scales[2 * g] | static_cast<unsigned>(a_.scales[2 * g + 1]) << 8;
    bool const is_half = d_.scale_entry == dtype::f16;
    int const mantissa_bits = is_half ? 10 : 7, bias = is_half ? 15 : 127;
    int const field = static_cast<int>((word & 0x7fffu) >> mantissa_bits);
    int const mantissa = static_cast<int>(word & ((1u << mantissa_bits) - 1u)), one = 1 << mantissa_bits;
    return std::ldexp(static_cast<float>(field == 0 ? mantissa : one + mantissa),
                      (field == 0 ? 1 : field) - bias - mantissa_bits);
  }

  tensor_description const& d_;
  described_arrays a_;
};

/// Every element of a described tensor, in row-major order.
inline std::vector<float> decode_described(tensor_description const& d, described_arrays const& a) {
  described_kernel const kernel{d, a};
  std::vector<float> y;
  extents at{};
  std::int64_t count = 1;
  for (int axis = 0; axis < d.rank; ++axis) count *= d.shape[axis];
  for (; count > 0; --count) {
    y.push_back(kernel(at));
    for (int axis = d.rank - 1; axis >= 0 && ++at[axis] == d.shape[axis]; --axis) at[axis] = 0;
  }
  return y;
}

}  // namespace mixbit::test
