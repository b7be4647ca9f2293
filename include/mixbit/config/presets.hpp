// ModelOpt's 39 named configurations, built from config/preset_table.hpp and equal to ModelOpt's own
// (tests/golden/presets.json). Their enabling entries have origin `preset`, what turns things off `default_rule`.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/config/closest.hpp"
#include "mixbit/config/preset_table.hpp"
#include "mixbit/config/quantize_config.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit {

namespace detail::presets {

/// An element of so many bits; `with_axis` writes "axis" out, as ModelOpt's file does, also where it is null.
inline quantizer_attribute_config scaled(bit_spec bits, std::optional<int> axis) {
  quantizer_attribute_config c;
  c.num_bits = std::move(bits);
  if (axis) c.axis = *axis;
  c.written.value = bit_of(attribute_field::num_bits) | bit_of(attribute_field::axis);
  return c;
}

/// An element in blocks along the last axis.
inline quantizer_attribute_config blocked(bit_spec bits, int size, quantizer_type type,
                                          std::optional<bit_spec> scale_bits = std::nullopt) {
  quantizer_attribute_config c;
  c.num_bits = std::move(bits);
  c.block_sizes = block_config{{{-1, size}}, type, std::move(scale_bits)};
  c.written.value = bit_of(attribute_field::num_bits);
  return c;
}

inline quantizer_attribute_config mx(bit_spec bits) {
  return blocked(std::move(bits), 32, quantizer_type::dynamic_type, bit_spec{8, 0});
}

inline quantizer_attribute_config nvfp4_of(quantizer_type type, int size = 16) {
  quantizer_attribute_config c = blocked({2, 1}, size, type, bit_spec{4, 3});
  if (type == quantizer_type::dynamic_type && size == 16) c.effective_bits = 4.5;
  return c;
}

/// The bias of the affine KV cache: reduced over the tokens' and the batch's axes of [batch, heads, tokens, width].
inline quantizer_attribute_config with_kv_bias(quantizer_attribute_config c) {
  c.bias = bias_config{{-2, -4}, quantizer_type::static_type};
  return c;
}

inline quantizer_attribute_config rotated(quantizer_attribute_config c) {
  c.rotate = true;
  return c;
}

inline quantizer_attribute_config fp8_with_blocks(std::vector<axis_block> axes, quantizer_type type) {
  quantizer_attribute_config c = scaled({4, 3}, std::nullopt);
  c.block_sizes = block_config{std::move(axes)};
  c.type = type;
  return c;
}

inline quantizer_attribute_config four_over_six() {
  quantizer_attribute_config c = nvfp4_of(quantizer_type::static_type);
  c.block_sizes->four_over_six = true;
  return c;
}

inline std::vector<quantizer_attribute_config> attributes_of(preset_element e) {
  constexpr auto calibrated = quantizer_type::static_type, dynamic = quantizer_type::dynamic_type;
  switch (e) {
    case off: return {};
    case int8: return {scaled(8, std::nullopt)};
    case int8_channel: return {scaled(8, 0)};
    case int4_b128: return {blocked(4, 128, calibrated)};
    case fp8: return {scaled({4, 3}, std::nullopt)};
    case fp8_channel: return {scaled({4, 3}, 0)};
    case fp8_token: return {fp8_with_blocks({{-1, std::nullopt}}, dynamic)};
    case fp8_2d: return {fp8_with_blocks({{-1, 128}, {-2, 128}}, calibrated)};
    case fp8_affine: return {with_kv_bias(scaled({4, 3}, std::nullopt))};
    case mxfp4: return {mx({2, 1})};
    case mxfp6: return {mx({3, 2})};
    case mxfp8: return {mx({4, 3})};
    case mxint8: return {mx(8)};
    case nvfp4: return {nvfp4_of(dynamic)};
    case nvfp4_b32: return {nvfp4_of(dynamic, 32)};
    case nvfp4_static: return {nvfp4_of(calibrated)};
    case nvfp4_four_six: return {four_over_six()};
    case nvfp4_affine: return {with_kv_bias(nvfp4_of(dynamic))};
    case nvfp4_rotated: return {rotated(nvfp4_of(dynamic))};
    case rotate_only: return {rotated({})};
    case int4_then_fp8: return {blocked(4, 128, calibrated), scaled({4, 3}, std::nullopt)};
  }
  return {};
}

inline quantizer_entry turn_off(std::string_view name, std::string_view parent_class = {}) {
  quantizer_entry entry{.quantizer_name = name, .enable = false, .origin = entry_origin::default_rule};
  if (!parent_class.empty()) entry.parent_class = parent_class;
  return entry;
}

/// The words of `text`, which are separated by single spaces.
inline std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> found;
  while (!text.empty()) {
    std::size_t const end = std::min(text.find(' '), text.size());
    found.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return found;
}

/// A table's "0.1", "32" or "true".
inline algorithm_value value_of(std::string_view text) {
  if (text == "true" || text == "false") return text == "true";
  double number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.find('.') == std::string_view::npos) return static_cast<std::int64_t>(number);
  return number;
}

inline algorithm_config algorithm_of(std::string_view text) {
  if (text.empty()) return {};
  if (text == "null") return algorithm_config::none();
  std::vector<std::string_view> const parts = words(text);
  algorithm_step step{std::string{parts[0]}, {}, {parts.size() > 1}};
  for (std::size_t i = 1; i < parts.size(); ++i)
    if (std::size_t const equals = parts[i].find('='); equals != std::string_view::npos)
      step.parameters.push_back({std::string{parts[i].substr(0, equals)}, value_of(parts[i].substr(equals + 1))});
  return step;
}

inline void add_entry(quantize_config& config, std::string name, preset_element element) {
  std::vector<quantizer_attribute_config> attributes = attributes_of(element);
  if (attributes.empty()) return;
  config.entries.push_back({.quantizer_name = std::move(name), .cfg = std::move(attributes),
                            .enable = element != rotate_only, .origin = entry_origin::preset});
}

inline void add_tail(quantize_config& config, preset_tail tail) {
  if (tail == none) return;
  auto const add = [&](auto... selector) { config.entries.push_back(turn_off(selector...)); };
  if (tail == weight_only) add("*input_quantizer");
  for (std::string_view name : common_off) add(name);
  for (std::string_view parent_class : classes_off) add("*", parent_class);
  std::size_t const mamba = tail == mamba_conservative ? std::size(mamba_off)
                            : tail == mamba_aggressive ? mamba_aggressive_count
                                                       : 0;
  for (std::size_t i = 0; i < mamba; ++i) add(mamba_off[i]);
}

inline quantize_config build(preset_row const& row) {
  quantize_config config{.name = std::string{row.name}, .algorithm = algorithm_of(row.algorithm)};
  bool const whole_pattern = row.places.ends_with("_quantizer");
  if (!whole_pattern && !row.places.empty()) config.entries.push_back(turn_off("*"));
  for (std::string_view place : words(row.places)) {
    std::string const prefix{place};
    add_entry(config, whole_pattern ? prefix : prefix + "weight_quantizer", row.weight);
    add_entry(config, whole_pattern ? prefix : prefix + "input_quantizer", row.input);
  }
  for (extra_entry const& extra : extra_entries) {
    if (extra.preset != row.name) continue;
    if (extra.element == off) config.entries.push_back(turn_off(extra.pattern));
    else add_entry(config, std::string{extra.pattern}, extra.element);
  }
  add_tail(config, row.tail);
  return config;
}

}  // namespace detail::presets

/// All names, in alphabetical order.
inline std::span<std::string_view const> preset_names() {
  static constexpr auto names = [] {
    std::array<std::string_view, std::size(detail::presets::preset_rows)> all{};
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = detail::presets::preset_rows[i].name;
    return all;
  }();
  return names;
}

/// The full name of the preset that `name` means, with or without its ending `_CFG` or `_CONFIG`; "" if there is none.
inline std::string_view preset_full_name(std::string_view name) {
  for (std::string_view full : preset_names()) {
    if (full == name) return full;
    for (std::string_view ending : {"_CFG", "_CONFIG"})
      if (full.ends_with(ending) && full.substr(0, full.size() - ending.size()) == name) return full;
  }
  return {};
}

/// The preset, with its full name. Throws config_unknown_field with the names that come close.
inline quantize_config preset(std::string_view name) {
  std::string_view const full = preset_full_name(name);
  for (detail::presets::preset_row const& row : detail::presets::preset_rows)
    if (row.name == full) return detail::presets::build(row);
  fail(error_id::config_unknown_field, "no preset is named \"", name, '"', close_names(name, preset_names()));
}

}  // namespace mixbit
