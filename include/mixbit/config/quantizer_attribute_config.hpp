// What one quantizer does, as data: ModelOpt's QuantizerAttributeConfig with the same fields and defaults. The rules
// are those that ModelOpt 0.47 enforces (tests/golden/validation.json), and some that it lacks: block sizes are
// positive, a block type is static or dynamic, an axis is a number and given once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/config/attribute_types.hpp"
#include "mixbit/config/calibrator_config.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/format.hpp"

namespace mixbit {

/// The fields, in the order of JSON; for `as_written` masks and messages.
enum class attribute_field : std::uint8_t {
  enable, num_bits, effective_bits, axis, fake_quant, is_unsigned, narrow_range, learn_amax, type, block_sizes, bias,
  trt_high_precision_dtype, calibrator, rotate, pass_through_bwd, backend, backend_extra_args, use_constant_amax,
  constant_amax
};
inline constexpr int attribute_field_count = 19;

/// The field's name in JSON.
constexpr std::string_view name_of(attribute_field f) {
  constexpr std::string_view names[attribute_field_count] = {
      "enable", "num_bits", "effective_bits", "axis", "fake_quant", "unsigned", "narrow_range", "learn_amax", "type",
      "block_sizes", "bias", "trt_high_precision_dtype", "calibrator", "rotate", "pass_through_bwd", "backend",
      "backend_extra_args", "use_constant_amax", "constant_amax"};
  return names[static_cast<int>(f)];
}

constexpr std::uint32_t bit_of(attribute_field f) { return std::uint32_t{1} << static_cast<int>(f); }

struct quantizer_attribute_config {
  bool enable = true;
  bit_spec num_bits = 8;
  std::optional<double> effective_bits = std::nullopt;  ///< what the search charges an element, in (0, 16]
  axis_list axis = {};                                  ///< axes with an amax of their own; excludes block_sizes
  bool fake_quant = true;
  bool is_unsigned = false;  ///< "unsigned" in JSON; integers only
  bool narrow_range = false;
  bool learn_amax = false;  ///< kept for old files; true is refused, as in ModelOpt
  quantizer_type type = quantizer_type::static_type;
  std::optional<block_config> block_sizes = std::nullopt;
  std::optional<bias_config> bias = std::nullopt;
  std::string trt_high_precision_dtype = "Float";
  calibrator_config calibrator = {};  ///< of static quantizers: how calibration finds the amax
  rotate_config rotate = {};
  bool pass_through_bwd = true;
  std::optional<std::string> backend = std::nullopt;             ///< a cast of the user's own, by name
  std::optional<std::string> backend_extra_args = std::nullopt;  ///< the text of a JSON object
  bool use_constant_amax = false;                                ///< amax 448, never calibrated
  std::optional<double> constant_amax = std::nullopt;            ///< that amax, never calibrated
  as_written<std::uint32_t> written = {};  ///< bits of fields that a file named; adds them to sparse JSON

  /// Throws `error` (config_value, config_conflict) that names `where`.field and the value. Signed 1-bit integers and
  /// the like pass: what a format can compute is the format's to say.
  void validate(std::string_view where) const;

  /// Did a file name this field?
  bool says(attribute_field f) const { return (written.value & bit_of(f)) != 0; }
  friend bool operator==(quantizer_attribute_config const&, quantizer_attribute_config const&) = default;
};

namespace detail {

inline std::string field_path(std::string_view where, attribute_field f) {
  std::string path{where};
  if (!path.empty()) path += '.';
  return path += name_of(f);
}

/// Integers are positive; minifloats are known ones, and but for E4M3 and E2M1 need dynamic blocks.
inline void check_num_bits(quantizer_attribute_config const& c, std::string const& where) {
  if (c.num_bits.is_name()) {
    if (c.num_bits.name().empty()) fail(error_id::config_value, where, ": the name is empty");
    return;
  }
  if (c.num_bits.is_integer()) {
    if (c.num_bits.bits() <= 0)
      fail(error_id::config_value, where, ": must be positive, got ", c.num_bits.text());
    return;
  }
  std::string known;
  for (element_type const& e : minifloat_elements) {
    bit_spec const pair{e.exponent_bits, e.mantissa_bits};
    known.append(known.empty() ? "" : ", ").append(pair.text());
    if (c.num_bits != pair) continue;
    bool const anywhere = e == e4m3_element || e == e2m1_element;
    if (!anywhere && !(c.block_sizes && c.block_sizes->is_dynamic()))
      fail(error_id::config_conflict, where, ": ", c.num_bits.text(), " needs block_sizes of type dynamic");
    return;
  }
  fail(error_id::config_value, where, ": ", c.num_bits.text(), " is none of ", known);
}

inline void check_blocks(quantizer_attribute_config const& c, std::string const& where) {
  block_config const& b = *c.block_sizes;
  if (!c.axis.per_tensor() || c.axis.tuple.value)
    fail(error_id::config_conflict, where, ": block_sizes and axis exclude each other");
  check_axis_blocks(b.axes, where);
  check_axis_blocks(b.scale_block_sizes, where + ".scale_block_sizes");
  if (b.is_dynamic() && b.axes.size() != 1)
    fail(error_id::config_conflict, where, ": dynamic blocks take exactly one axis, got ", b.axes.size());
  if (b.scale_bits) {
    bit_spec const& s = *b.scale_bits;
    bool const pair = s.is_pair() && s.exponent() >= 0 && s.mantissa() >= 0 && s.exponent() + s.mantissa() > 0;
    bool const fits = pair || (s.is_integer() && s.bits() > 0);
    if (!fits) fail(error_id::config_value, where, ".scale_bits: must be positive bits or a pair, got ", s.text());
  }
}

inline void check_one_of(std::string const& value, std::initializer_list<std::string_view> allowed,
                         std::string const& where) {
  std::string list;
  for (std::string_view a : allowed) {
    if (value == a) return;
    list += (list.empty() ? "\"" : ", \"") + std::string{a} + '"';
  }
  fail(error_id::config_value, where, ": \"", value, "\" is none of ", list);
}

}  // namespace detail

inline void quantizer_attribute_config::validate(std::string_view where) const {
  using field = attribute_field;
  auto const at = [&](field f) { return detail::field_path(where, f); };
  if (!backend) detail::check_num_bits(*this, at(field::num_bits));  // a user's backend gives bits its own meaning
  if (effective_bits && !(*effective_bits > 0 && *effective_bits <= 16))
    fail(error_id::config_value, at(field::effective_bits), ": must be above 0 and at most 16, got ", *effective_bits);
  detail::check_axes_differ(axis.axes, at(field::axis));
  if (learn_amax) fail(error_id::config_value, at(field::learn_amax), ": true is not supported; use the algorithm lsq");
  if (block_sizes) detail::check_blocks(*this, at(field::block_sizes));
  if (bias) {
    if (bias->axes.empty()) fail(error_id::config_conflict, at(field::bias), ": names no axis to reduce");
    detail::check_axes_differ(bias->axes, at(field::bias));
  }
  detail::check_one_of(trt_high_precision_dtype, {"Float", "Half", "BFloat16"}, at(field::trt_high_precision_dtype));
  calibrator.validate(at(field::calibrator));
  if (rotate.block_size && *rotate.block_size <= 0)
    fail(error_id::config_value, at(field::rotate), ".block_size: must be positive, got ", *rotate.block_size);
  if (constant_amax && !(*constant_amax > 0))
    fail(error_id::config_value, at(field::constant_amax), ": must be above 0, got ", *constant_amax);
  if (constant_amax && use_constant_amax)
    fail(error_id::config_conflict, at(field::constant_amax), ": excludes use_constant_amax (which means 448)");
}

}  // namespace mixbit
