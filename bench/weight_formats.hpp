// Formats of weights alone that no preset has: each element that a config can name, in blocks and a row at a time.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block_weights.hpp"
#include "mixbit/config/presets.hpp"

namespace bench {

/// These attributes for all weights, and no other quantizer.
inline mixbit::quantize_config weights_alone(std::string name, mixbit::quantizer_attribute_config attributes,
                                             mixbit::algorithm_config const& algorithm) {
  mixbit::quantize_config config{.name = std::move(name), .algorithm = algorithm};
  config.entries.push_back({.quantizer_name = "*", .enable = false});
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = {{std::move(attributes)}}, .enable = true});
  return config;
}

inline mixbit::quantizer_attribute_config element_in(mixbit::bit_spec bits, mixbit::block_config blocks) {
  mixbit::quantizer_attribute_config a;
  a.num_bits = std::move(bits);
  a.block_sizes = std::move(blocks);
  return a;
}

/// Integers of 2 to 8 bits: in blocks of 32, and with one scale a row (8: INT8_WEIGHT_ONLY_CFG).
inline void add_integers(std::vector<mixbit::quantize_config>& to) {
  for (int const bits : {2, 3, 4, 5, 6, 7, 8}) to.push_back(block_weights(bits, "mse"));
  for (int const bits : {2, 3, 4, 5, 6, 7}) {
    mixbit::quantizer_attribute_config row;
    row.num_bits = mixbit::bit_spec{bits};
    row.axis = 0;
    to.push_back(weights_alone("INT" + std::to_string(bits) + "_ROW", row, "mse"));
  }
}

/// Minifloats: in MX's blocks, in blocks of 32 with a float32 scale and with one a row. MXINT8 is beside them.
inline void add_minifloats(std::vector<mixbit::quantize_config>& to) {
  constexpr auto dynamic = mixbit::quantizer_type::dynamic_type;  // what a config asks for but for E4M3 and E2M1
  for (auto const& [exponent, mantissa] : std::initializer_list<std::pair<int, int>>{
           {4, 3}, {5, 2}, {3, 2}, {2, 3}, {2, 1}, {1, 2}, {0, 3}, {3, 0}}) {
    mixbit::bit_spec const bits{exponent, mantissa};
    std::string const name = "E" + std::to_string(exponent) + "M" + std::to_string(mantissa);
    to.push_back(weights_alone("MX_" + name, element_in(bits, {{{-1, 32}}, dynamic, mixbit::bit_spec{8, 0}}),
                               mixbit::algorithm_config::none()));
    to.push_back(weights_alone(name + "_B32", element_in(bits, {{{-1, 32}}, dynamic}), "mse"));
    to.push_back(weights_alone(name + "_ROW", element_in(bits, {{{-1, std::nullopt}}, dynamic}), "mse"));
  }
  to.push_back(weights_alone("MX_INT8", element_in(8, {{{-1, 32}}, dynamic, mixbit::bit_spec{8, 0}}),
                             mixbit::algorithm_config::none()));
}

/// NF4 with its scales in int8, as QLoRA has it and in smaller blocks; NVFP4 with calibrated scales.
inline void add_four_bits(std::vector<mixbit::quantize_config>& to) {
  for (int const size : {64, 32})
    to.push_back(weights_alone("NF4_B" + std::to_string(size),
                               element_in(4, {{{-1, size}}, {}, mixbit::bit_spec{8}, {{-1, 256}}}), "mse"));
  for (char const* preset : {"NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG", "NVFP4_FOUR_OVER_SIX_CFG"}) {
    auto config = mixbit::preset(preset);
    config.name = std::string{preset}.substr(0, std::string{preset}.size() - 4) + "_WEIGHTS";
    std::erase_if(config.entries,
                  [](auto const& e) { return e.enable && e.quantizer_name.matches("input_quantizer"); });
    to.push_back(std::move(config));
  }
}

inline std::vector<mixbit::quantize_config> weight_formats() {
  std::vector<mixbit::quantize_config> all;
  add_integers(all);
  add_minifloats(all);
  add_four_bits(all);
  return all;
}

}  // namespace bench
