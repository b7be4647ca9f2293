// Quantizer attributes to and from JSON, field by field, each error with the field's path. Included by config/json.hpp.
#pragma once

#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mixbit/config/closest.hpp"
#include "mixbit/config/quantizer_attribute_config.hpp"
#include "mixbit/config/strict_json.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit {

/// Keeps the order of keys: in the legacy dictionary form the order of rules is the order of keys.
using config_json = json_document;

/// `sparse` writes what differs from the defaults or was written in the file that it came from, `normal` every field.
enum class json_form : std::uint8_t { sparse, normal };

namespace detail {

inline std::string child(std::string_view where, std::string_view key) {
  return where.empty() ? std::string{key} : std::string{where}.append(".").append(key);
}

/// At most 60 characters of a value, for messages.
inline std::string excerpt(config_json const& j) {
  std::string text = j.dump(-1, ' ', false, config_json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

[[noreturn]] inline void wrong(std::string_view where, std::string_view wanted, config_json const& got) {
  fail(error_id::config_value, where, ": must be ", wanted, ", got ", excerpt(got));
}

inline bool read_bool(config_json const& j, std::string const& where) {
  if (!j.is_boolean()) wrong(where, "true or false", j);
  return j.get<bool>();
}

inline std::int64_t read_integer(config_json const& j, std::string const& where,
                                 std::string_view wanted = "an integer") {
  constexpr std::uint64_t largest = std::numeric_limits<std::int64_t>::max();
  bool const fits = j.is_number_integer() && !(j.is_number_unsigned() && j.get<std::uint64_t>() > largest);
  if (!fits) wrong(where, wanted, j);
  return j.get<std::int64_t>();
}

/// An integer that fits int: bits, axes.
inline int read_int(config_json const& j, std::string const& where, std::string_view wanted = "an integer") {
  std::int64_t const value = read_integer(j, where, wanted);
  if (value != static_cast<int>(value)) wrong(where, "a small integer", j);
  return static_cast<int>(value);
}

inline double read_number(config_json const& j, std::string const& where) {
  if (!j.is_number()) wrong(where, "a number", j);
  return j.get<double>();
}

inline std::string read_string(config_json const& j, std::string const& where) {
  if (!j.is_string()) wrong(where, "a text", j);
  return j.get<std::string>();
}

inline void need_object(config_json const& j, std::string const& where) {
  if (!j.is_object()) wrong(where, "an object", j);
}

/// "static" or "dynamic"; "mean" or "max_min"; ...: the value of `Enum` so named.
template <class Enum>
Enum read_name(config_json const& j, std::string const& where, Enum first, Enum second) {
  std::string const name = read_string(j, where);
  if (name == name_of(first)) return first;
  if (name != name_of(second))
    fail(error_id::config_value, where, ": must be \"", name_of(first), "\" or \"", name_of(second), "\", got \"",
         name, '"');
  return second;
}

inline quantizer_type read_type(config_json const& j, std::string const& where) {
  return read_name(j, where, quantizer_type::static_type, quantizer_type::dynamic_type);
}

inline bit_spec read_bits(config_json const& j, std::string const& where) {
  constexpr std::string_view wanted = "an integer, a pair [exponent, mantissa] or a name";
  if (j.is_string()) return j.get<std::string>();
  if (!j.is_array()) return read_int(j, where, wanted);
  if (j.size() != 2) wrong(where, wanted, j);
  return {read_int(j[0], where, wanted), read_int(j[1], where, wanted)};
}

inline axis_list read_axis(config_json const& j, std::string const& where) {
  constexpr std::string_view wanted = "null, an integer or a list of integers";
  if (j.is_null()) return {};
  if (!j.is_array()) return read_int(j, where, wanted);
  std::vector<int> axes;
  for (config_json const& axis : j) axes.push_back(read_int(axis, where, wanted));
  return axes;
}

/// A key "-1" as an axis; no value if it is no integer.
inline std::optional<int> axis_key(std::string const& key) {
  int axis = 0;
  auto const [end, failure] = std::from_chars(key.data(), key.data() + key.size(), axis);
  if (failure != std::errc{} || end != key.data() + key.size()) return std::nullopt;
  return axis;
}

inline axis_block read_axis_block(int axis, config_json const& j, std::string const& where) {
  if (j.is_null()) return {axis, std::nullopt};
  return {axis, read_integer(j, where, "a block size or null")};
}

inline std::vector<axis_block> read_scale_blocks(config_json const& j, std::string const& where) {
  need_object(j, where);
  std::vector<axis_block> blocks;
  for (auto const& [key, size] : j.items()) {
    std::optional<int> const axis = axis_key(key);
    if (!axis) fail(error_id::config_value, where, ": \"", key, "\" is no axis");
    blocks.push_back(read_axis_block(*axis, size, where + '[' + key + ']'));
  }
  return blocks;
}

inline block_config read_blocks(config_json const& j, std::string const& where) {
  need_object(j, where);
  block_config blocks;
  for (auto const& [key, value] : j.items()) {
    std::string const at = where + '[' + key + ']';
    if (std::optional<int> const axis = axis_key(key)) {
      blocks.axes.push_back(read_axis_block(*axis, value, at));
    } else if (key == "type") {
      if (!value.is_null()) blocks.type = read_type(value, child(where, key));
    } else if (key == "scale_bits") {
      if (!value.is_null()) blocks.scale_bits = read_bits(value, child(where, key));
    } else if (key == "scale_block_sizes") {
      if (!value.is_null()) blocks.scale_block_sizes = read_scale_blocks(value, child(where, key));
    } else if (key == "four_over_six") {
      bool const as_number = value.is_number_integer() && (value == 0 || value == 1);  // ModelOpt's own form
      blocks.four_over_six = as_number ? value == 1 : read_bool(value, child(where, key));
    } else {
      fail(error_id::config_unknown_field, at,
           ": keys are axes (\"-1\"), type, scale_bits, scale_block_sizes and four_over_six");
    }
  }
  return blocks;
}

inline bias_config read_bias(config_json const& j, std::string const& where) {
  need_object(j, where);
  bias_config bias;
  for (auto const& [key, value] : j.items()) {
    if (std::optional<int> const axis = axis_key(key)) {
      if (!value.is_null()) wrong(where + '[' + key + ']', "null (the whole axis is reduced)", value);
      bias.axes.push_back(*axis);
    } else if (key == "type") {
      bias.type = read_type(value, child(where, key));
    } else if (key == "method") {
      bias.method = read_name(value, child(where, key), bias_method::mean, bias_method::max_min);
    } else {
      fail(error_id::config_unknown_field, where, '[', key, "]: keys are axes (\"-1\"), type and method");
    }
  }
  return bias;
}

inline rotate_config read_rotate(config_json const& j, std::string const& where) {
  if (j.is_boolean()) return j.get<bool>();
  if (!j.is_object()) wrong(where, "true, false or an object", j);
  rotate_config rotate;
  rotate.as_struct.value = true;
  for (auto const& [key, value] : j.items()) {
    std::string const at = child(where, key);
    if (key == "enable") rotate.enable = read_bool(value, at);
    else if (key == "mode") rotate.mode = read_name(value, at, rotate_mode::rotate, rotate_mode::rotate_back);
    else if (key == "rotate_fp32") rotate.rotate_fp32 = read_bool(value, at);
    else if (key == "block_size") {
      if (!value.is_null()) rotate.block_size = read_integer(value, at);
    } else fail(error_id::config_unknown_field, at, ": fields are enable, mode, rotate_fp32 and block_size");
  }
  return rotate;
}

inline algorithm_value read_algorithm_value(config_json const& j, std::string const& where) {
  if (j.is_boolean()) return j.get<bool>();
  if (j.is_number_integer()) return read_integer(j, where);
  if (j.is_number()) return j.get<double>();
  return read_string(j, where);
}

/// The name of one of the library's own alone, as in ModelOpt, or {"name": ..., its parameters}.
inline calibrator_config read_calibrator(config_json const& j, std::string const& where) {
  if (j.is_string()) {
    calibrator_config const c{j.get<std::string>()};
    c.validate(where);
    if (find_calibrator(c.name()) == nullptr)
      fail(error_id::config_value, where, ": '", c.name(), "' is none of the library's own",
           close_names(c.name(), built_in_calibrators()), "; one registered by name is written {\"name\": \"", c.name(),
           "\"}");
    return c;
  }
  if (!j.is_object() || !j.contains("name")) wrong(where, "a name or an object with \"name\"", j);
  calibrator_parameters parameters;
  for (auto const& [key, value] : j.items())
    if (key != "name" && !value.is_null())  // null keeps the default
      parameters.emplace_back(key, read_algorithm_value(value, child(where, key)));
  return {read_string(j["name"], child(where, "name")), std::move(parameters)};
}

template <class T, class Read>
std::optional<T> read_optional(config_json const& j, std::string const& where, Read read) {
  if (j.is_null()) return std::nullopt;
  return read(j, where);
}

inline std::string read_extra_args(config_json const& j, std::string const& where) {
  need_object(j, where);
  return j.dump();
}

inline void read_field(quantizer_attribute_config& c, attribute_field f, config_json const& j, std::string const& at) {
  switch (f) {
    case attribute_field::enable: c.enable = read_bool(j, at); break;
    case attribute_field::num_bits: c.num_bits = read_bits(j, at); break;
    case attribute_field::effective_bits: c.effective_bits = read_optional<double>(j, at, read_number); break;
    case attribute_field::axis: c.axis = read_axis(j, at); break;
    case attribute_field::fake_quant: c.fake_quant = read_bool(j, at); break;
    case attribute_field::is_unsigned: c.is_unsigned = read_bool(j, at); break;
    case attribute_field::narrow_range: c.narrow_range = read_bool(j, at); break;
    case attribute_field::learn_amax: c.learn_amax = read_bool(j, at); break;
    case attribute_field::type: c.type = read_type(j, at); break;
    case attribute_field::block_sizes: c.block_sizes = read_optional<block_config>(j, at, read_blocks); break;
    case attribute_field::bias: c.bias = read_optional<bias_config>(j, at, read_bias); break;
    case attribute_field::trt_high_precision_dtype: c.trt_high_precision_dtype = read_string(j, at); break;
    case attribute_field::calibrator: c.calibrator = read_calibrator(j, at); break;
    case attribute_field::rotate: c.rotate = read_rotate(j, at); break;
    case attribute_field::pass_through_bwd: c.pass_through_bwd = read_bool(j, at); break;
    case attribute_field::backend: c.backend = read_optional<std::string>(j, at, read_string); break;
    case attribute_field::backend_extra_args:
      c.backend_extra_args = read_optional<std::string>(j, at, read_extra_args);
      break;
    case attribute_field::use_constant_amax: c.use_constant_amax = read_bool(j, at); break;
    case attribute_field::constant_amax: c.constant_amax = read_optional<double>(j, at, read_number); break;
  }
}

inline config_json bits_to_json(bit_spec const& bits) {
  if (bits.is_name()) return bits.name();
  if (bits.is_pair()) return config_json::array({bits.exponent(), bits.mantissa()});
  return bits.bits();
}

inline config_json axis_blocks_to_json(std::vector<axis_block> const& blocks) {
  config_json j = config_json::object();
  for (axis_block const& b : blocks) j[std::to_string(b.axis)] = b.size ? config_json(*b.size) : config_json();
  return j;
}

inline config_json blocks_to_json(block_config const& blocks) {
  config_json j = axis_blocks_to_json(blocks.axes);
  if (blocks.type) j["type"] = name_of(*blocks.type);
  if (blocks.scale_bits) j["scale_bits"] = bits_to_json(*blocks.scale_bits);
  if (!blocks.scale_block_sizes.empty()) j["scale_block_sizes"] = axis_blocks_to_json(blocks.scale_block_sizes);
  if (blocks.four_over_six) j["four_over_six"] = 1;
  return j;
}

inline config_json bias_to_json(bias_config const& bias) {
  config_json j = config_json::object();
  for (int axis : bias.axes) j[std::to_string(axis)] = nullptr;
  if (bias.type) j["type"] = name_of(*bias.type);
  if (bias.method) j["method"] = name_of(*bias.method);
  return j;
}

inline config_json rotate_to_json(rotate_config const& r) {
  if (!r.as_struct.value && r == rotate_config{r.enable}) return r.enable;
  return {{"enable", r.enable}, {"mode", name_of(r.mode)}, {"rotate_fp32", r.rotate_fp32},
          {"block_size", r.block_size ? config_json(*r.block_size) : config_json()}};
}

inline config_json algorithm_value_to_json(algorithm_value const& value) {
  return std::visit([](auto const& v) { return config_json(v); }, value);
}

inline config_json calibrator_to_json(calibrator_config const& c) {
  if (c.parameters().empty() && find_calibrator(c.name())) return c.name();
  config_json j{{"name", c.name()}};
  for (auto const& [key, value] : c.parameters()) j[key] = algorithm_value_to_json(value);
  return j;
}

template <class T>
config_json optional_to_json(std::optional<T> const& value) {
  return value ? config_json(*value) : config_json();
}

inline config_json field_to_json(quantizer_attribute_config const& c, attribute_field f) {
  switch (f) {
    case attribute_field::enable: return c.enable;
    case attribute_field::num_bits: return bits_to_json(c.num_bits);
    case attribute_field::effective_bits: return optional_to_json(c.effective_bits);
    case attribute_field::axis:
      if (c.axis.tuple.value || c.axis.axes.size() > 1) return c.axis.axes;
      return c.axis.per_tensor() ? config_json() : config_json(c.axis.axes[0]);
    case attribute_field::fake_quant: return c.fake_quant;
    case attribute_field::is_unsigned: return c.is_unsigned;
    case attribute_field::narrow_range: return c.narrow_range;
    case attribute_field::learn_amax: return c.learn_amax;
    case attribute_field::type: return name_of(c.type);
    case attribute_field::block_sizes: return c.block_sizes ? blocks_to_json(*c.block_sizes) : config_json();
    case attribute_field::bias: return c.bias ? bias_to_json(*c.bias) : config_json();
    case attribute_field::trt_high_precision_dtype: return c.trt_high_precision_dtype;
    case attribute_field::calibrator: return calibrator_to_json(c.calibrator);
    case attribute_field::rotate: return rotate_to_json(c.rotate);
    case attribute_field::pass_through_bwd: return c.pass_through_bwd;
    case attribute_field::backend: return optional_to_json(c.backend);
    case attribute_field::backend_extra_args:
      return c.backend_extra_args ? config_json::parse(*c.backend_extra_args) : config_json();
    case attribute_field::use_constant_amax: return c.use_constant_amax;
    case attribute_field::constant_amax: return optional_to_json(c.constant_amax);
  }
  return {};
}

}  // namespace detail

/// Reads and validates one attribute config. `written` remembers the fields that were named. Throws `error` with the
/// path of the field: config_unknown_field, config_value, config_conflict.
inline quantizer_attribute_config attributes_from_json(config_json const& j, std::string const& where = "") {
  detail::need_object(j, where.empty() ? "attributes" : where);
  quantizer_attribute_config c;
  for (auto const& [key, value] : j.items()) {
    std::vector<std::string_view> names;
    bool known = false;
    for (int i = 0; i < attribute_field_count && !known; ++i) {
      auto const field = static_cast<attribute_field>(i);
      names.push_back(name_of(field));
      if (key != name_of(field)) continue;
      detail::read_field(c, field, value, detail::child(where, key));
      c.written.value |= bit_of(field);
      known = true;
    }
    if (!known)
      fail(error_id::config_unknown_field, detail::child(where, key), ": no such field",
           close_names(key, names));
  }
  if (c.written.value == bit_of(attribute_field::enable) && c.enable)
    fail(error_id::config_conflict, where.empty() ? "attributes" : where, ": enable = true alone says no format");
  c.validate(where);
  return c;
}

/// The config as JSON; in sparse form at least num_bits.
inline config_json attributes_to_json(quantizer_attribute_config const& c, json_form form = json_form::sparse) {
  quantizer_attribute_config const plain;
  config_json j = config_json::object();
  for (int i = 0; i < attribute_field_count; ++i) {
    auto const field = static_cast<attribute_field>(i);
    config_json value = detail::field_to_json(c, field);
    if (form == json_form::normal || c.says(field) || value != detail::field_to_json(plain, field))
      j[std::string{name_of(field)}] = std::move(value);
  }
  if (j.empty()) j["num_bits"] = detail::bits_to_json(c.num_bits);
  return j;
}

}  // namespace mixbit
