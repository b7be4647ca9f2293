// A weight of a compressed-tensors checkpoint as its config and the layout's description say it, without the library's
// codecs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "mixbit/io/json.hpp"
#include "support/hf_decoded.hpp"

namespace mixbit::test {

/// The group of config_groups that a linear layer of that name belongs to.
inline json_document ct_group(json_document const& config, std::string const& name) {
  for (auto const& ignored : config.at("ignore"))
    if (ignored == name) throw std::runtime_error{name + " is ignored"};
  for (auto const& [key, group] : config.at("config_groups").items())
    for (auto const& target : group.at("targets"))
      if (target == name || target == "Linear") return group;
  throw std::runtime_error{name + " has no group"};
}

/// The code at a place as a value, before its scale.
inline float ct_value(safetensors_file const& file, std::string const& name, json_document const& group, std::int64_t r,
                      std::int64_t c) {
  std::string const format = group.at("format");
  bool const packed = format.find("pack") != format.npos;
  auto const codes = file.at(name + (packed ? ".weight_packed" : ".weight"));
  std::int64_t const stride = codes.shape[1];
  if (format == "pack-quantized") {
    int const bits = group.at("weights").at("num_bits");
    std::int64_t const bit = c * bits;
    auto const word = static_cast<std::uint32_t>(codes.as<std::int32_t>()[r * stride + bit / 32]);
    return static_cast<float>((word >> (bit % 32)) & ((1u << bits) - 1)) - static_cast<float>(1 << (bits - 1));
  }
  if (format == "int-quantized") return static_cast<float>(codes.as<std::int8_t>()[r * stride + c]);
  unsigned const byte = codes.as<std::uint8_t>()[r * stride + (packed ? c / 2 : c)];
  if (!packed) return minifloat_value(byte, 4, 3);
  return minifloat_value(c % 2 == 0 ? byte & 15u : byte >> 4, 2, 1);
}

inline float ct_scale(safetensors_file const& file, std::string const& name, json_document const& group, std::int64_t r,
                      std::int64_t c) {
  auto const& weights = group.at("weights");
  std::string const strategy = weights.at("strategy"), format = group.at("format");
  auto const scales = file.at(name + ".weight_scale");
  std::int64_t row = r, column = 0;
  if (strategy == "tensor") row = 0;
  if (strategy == "group" || strategy == "tensor_group") column = c / weights.at("group_size").get<std::int64_t>();
  if (strategy == "block") {
    row = r / weights.at("block_structure").at(0).get<std::int64_t>();
    column = c / weights.at("block_structure").at(1).get<std::int64_t>();
  }
  std::int64_t const at = row * (scales.rank == 2 ? scales.shape[1] : 1) + column;
  if (format.starts_with("mx")) return std::ldexp(1.0f, scales.as<std::uint8_t>()[at] - 127);
  if (format.starts_with("nvfp4"))
    return minifloat_value(scales.as<std::uint8_t>()[at], 4, 3) / file.read_as_float(name + ".weight_global_scale")[0];
  return scales.as<float>()[at];
}

/// All of the weight, [rows, columns].
inline std::vector<float> ct_decoded(safetensors_file const& file, json_document const& config, std::string const& name,
                                     std::int64_t rows, std::int64_t columns) {
  auto const group = ct_group(config, name);
  std::vector<float> weight;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      weight.push_back(ct_value(file, name, group, r, c) * ct_scale(file, name, group, r, c));
  return weight;
}

}  // namespace mixbit::test
