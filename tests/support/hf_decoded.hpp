// A quantized weight as a loader of a Hugging Face checkpoint reads it: by the layout's description and the formats'
// definitions alone, without the library's codecs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "mixbit/io/safetensors.hpp"

namespace mixbit::test {

/// What a code of a minifloat stands for; NaN aside.
inline float minifloat_value(unsigned code, int exponent_bits, int mantissa_bits) {
  unsigned const mantissa = code & ((1u << mantissa_bits) - 1);
  unsigned const exponent = (code >> mantissa_bits) & ((1u << exponent_bits) - 1);
  int const bias = (1 << (exponent_bits - 1)) - 1;
  float const fraction = std::ldexp(static_cast<float>(mantissa), -mantissa_bits);
  float const size = exponent == 0 ? std::ldexp(fraction, 1 - bias)
                                   : std::ldexp(1.0f + fraction, static_cast<int>(exponent) - bias);
  return code >> (exponent_bits + mantissa_bits) ? -size : size;
}

/// The nearest value of E4M3, of two the one with an even code.
inline float nearest_e4m3(float x) {
  static std::vector<float> const values = [] {
    std::vector<float> all;
    for (unsigned code = 0; code < 0x7f; ++code) all.push_back(minifloat_value(code, 4, 3));  // 0x7f is NaN
    return all;
  }();
  float const size = std::min(std::abs(x), values.back());
  auto const above = std::lower_bound(values.begin(), values.end(), size);
  if (above == values.begin()) return std::copysign(0.0f, x);
  float const up = *above - size, down = size - *(above - 1);  // exact: the two are neighbours
  bool const takes_above = up < down || (up == down && (above - values.begin()) % 2 == 0);
  return std::copysign(takes_above ? *above : *(above - 1), x);
}

inline int signed_nibble(unsigned bits) { return bits >= 8 ? static_cast<int>(bits) - 16 : static_cast<int>(bits); }

/// NAME.weight [out, in] of W4A16_AWQ and W4A8_AWQ (uint8, two rows a byte), NVFP4 (uint8 beside E4M3 scales),
/// INT8 and FP8 per tensor or per channel: a scale for each row and block. Before any pre_quant_scale.
inline std::vector<float> hf_decoded(safetensors_file const& file, std::string const& name) {
  auto const codes = file.at(name + ".weight"), scales = file.at(name + ".weight_scale");
  bool const nvfp4 = scales.type == dtype::f8_e4m3, int4 = codes.type == dtype::u8 && !nvfp4;
  float const second = file.contains(name + ".weight_scale_2") ? file.read_as_float(name + ".weight_scale_2")[0] : 1.0f;
  std::int64_t const rows = codes.shape[0] * (int4 ? 2 : 1), columns = codes.shape[1] * (nvfp4 ? 2 : 1);
  std::int64_t const per_row = scales.rank == 2 ? scales.shape[1] : 1, block = columns / per_row;
  std::vector<float> weight;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      std::int64_t const at = scales.rank == 0 ? 0 : r * per_row + c / block;
      auto const* const bytes = codes.as<std::uint8_t>();
      if (nvfp4) {
        unsigned const byte = bytes[r * codes.shape[1] + c / 2];
        float const value = minifloat_value(c % 2 == 0 ? byte & 15u : byte >> 4, 2, 1);
        weight.push_back(minifloat_value(scales.as<std::uint8_t>()[at], 4, 3) * second * value);
        continue;
      }
      float const scale = scales.as<float>()[at];
      if (int4) {
        unsigned const byte = bytes[r / 2 * columns + c];
        float const value = static_cast<float>(signed_nibble(r % 2 == 0 ? byte & 15u : byte >> 4)) * scale;
        bool const fp8 = file.contains(name + ".weight_scale_2");
        weight.push_back(fp8 ? nearest_e4m3(value / second) * second : value);
      } else if (codes.type == dtype::i8) {
        weight.push_back(static_cast<float>(codes.as<std::int8_t>()[r * columns + c]) * scale);
      } else {
        weight.push_back(minifloat_value(bytes[r * columns + c], 4, 3) * scale);
      }
    }
  return weight;
}

}  // namespace mixbit::test
