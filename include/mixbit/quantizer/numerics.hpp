// From attributes to arithmetic: which format, which grouping, where amax comes from.
//
// Attributes describe what ModelOpt's TensorQuantizer can be told; this says what of it the library computes, and
// refuses the rest by name instead of computing something else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "mixbit/config/quantizer_attribute_config.hpp"
#include "mixbit/core/partition.hpp"
#include "mixbit/core/quoted.hpp"
#include "mixbit/core/span_of.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/packing.hpp"
#include "mixbit/quantizer/rotation.hpp"

namespace mixbit {

enum class amax_source : std::uint8_t {
  calibration,  ///< static: observed, then fixed
  data,         ///< dynamic: of each call's tensor
  constant      ///< given by the attributes
};

/// How a tensor is divided, before its shape is known.
struct grouping_scheme {
  enum class kind : std::uint8_t { tensor, axes, blocks } what = kind::tensor;
  std::vector<int> kept;           ///< axes that keep their own amax
  std::vector<axis_block> blocks;  ///< blocked axes
  friend bool operator==(grouping_scheme const&, grouping_scheme const&) = default;
};

/// How a model's quantizers compute what its configs leave open.
struct numerics_options {
  policy rules = policy::stored;
  scale_rule mx = scale_rule::mx_nv;  ///< of MX blocks: mx_nv or mx_ocp

  constexpr numerics_options() = default;
  constexpr numerics_options(policy p, scale_rule mx_rule = scale_rule::mx_nv) : rules{p}, mx{mx_rule} {}  // NOLINT
  friend bool operator==(numerics_options const&, numerics_options const&) = default;
};

struct quantizer_numerics {
  format how;
  grouping_scheme grouping;  ///< elements that share a scale
  /// Do the scales of the groups come from each call's data? `amax_from` is then about the amax of the whole tensor,
  /// where the format has a scale for it.
  bool groups_from_data = false;
  amax_source amax_from = amax_source::calibration;
  float constant_amax = 0;
  std::optional<rotation> rotate;   ///< before everything else
  std::optional<bias_config> bias;  ///< taken off before the cast and added after it
  calibrator_config calibrator;     ///< of an amax that is calibrated

  /// The partition of a tensor of this shape. Errors name the quantizer.
  partition groups_of(geometry const& x, std::string const& where) const {
    try {
      switch (grouping.what) {
        case grouping_scheme::kind::axes: return per_axes(x, detail::span_of(grouping.kept));
        case grouping_scheme::kind::blocks: require_last_axis(x); return blocks_of(x, detail::span_of(grouping.blocks));
        default: return per_tensor(x);
      }
    } catch (error const& e) {
      fail(e.id(), where, ": ", e.message());
    }
  }

  /// What has an amax of its own: the groups, or the whole tensor where its groups take theirs from the data.
  grouping_scheme calibrated() const { return groups_from_data ? grouping_scheme{} : grouping; }
  /// Do both see the same of a tensor while they are calibrated, and keep the same of it?
  bool same_calibration(quantizer_numerics const& other) const {
    bool const same_rotation = rotate.has_value() == other.rotate.has_value() &&
                               (!rotate || rotate->block == other.rotate->block);
    return same_rotation && bias == other.bias && amax_from == other.amax_from &&
           calibrated() == other.calibrated() && calibrator == other.calibrator;
  }

 private:
  /// Blocks whose scale is held in few bits lie along the last axis: MX, NVFP4 and NF4 files know no others.
  void require_last_axis(geometry const& x) const {
    if (how.scaling == scale_rule::ratio && how.scale_block == 0) return;
    for (auto const& b : grouping.blocks)
      if (b.axis != -1 && b.axis != x.rank - 1)
        fail(error_id::format_value, "block_sizes[", b.axis, "]: ", name_of(how), " takes blocks along the last axis, ",
             "and the tensor is ", to_string(x));
  }
};

namespace detail {

inline element_type element_of(quantizer_attribute_config const& a, std::string const& where) {
  bit_spec const& bits = a.num_bits;
  if (bits.is_integer() && bits.bits() <= formats::widest_integer) {
    bool const nf4 = bits.bits() == 4 && a.block_sizes && a.block_sizes->scale_bits == bit_spec{8} &&
                     !a.block_sizes->scale_block_sizes.empty();
    return nf4 ? nf4_element : integer_element(bits.bits(), a.is_unsigned, a.narrow_range);
  }
  if (bits.is_pair()) return minifloat_element(bits.exponent(), bits.mantissa());  // check_format knows which there are
  fail(error_id::format_value, where, ": num_bits ", bits.text(), " is not computed by this version; integers of 2 to ",
       formats::widest_integer, " bits and minifloats are");
}

inline grouping_scheme grouping_of(quantizer_attribute_config const& a) {
  if (!a.axis.per_tensor()) return {grouping_scheme::kind::axes, a.axis.axes, {}};
  if (a.block_sizes && !a.block_sizes->axes.empty()) return {grouping_scheme::kind::blocks, {}, a.block_sizes->axes};
  return {grouping_scheme::kind::tensor, {}, {}};
}

/// int8 scales around their mean.
inline void set_double_scales(quantizer_numerics& n, block_config const& blocks, std::string const& where) {
  auto const refuse = [&](auto const&... why) { fail(error_id::format_value, where, ": block_sizes", why...); };
  auto const& scales = blocks.scale_block_sizes;
  if (blocks.is_dynamic()) refuse(".type dynamic: double quantization is of calibrated scales");
  if (scales.size() != 1 || scales.front().axis != -1 || !scales.front().size)
    refuse(".scale_block_sizes: double quantization takes blocks of scales along axis -1, with a size");
  if (*scales.front().size > std::numeric_limits<std::int32_t>::max())
    refuse(".scale_block_sizes[-1] ", *scales.front().size, " is above ", std::numeric_limits<std::int32_t>::max());
  if (n.how.numerics != policy::stored)
    refuse(".scale_block_sizes: policy ", name_of(n.how.numerics), " casts with other scales than the file's; double ",
           "quantization is simulated under stored");
  n.how.scale_block = static_cast<std::int32_t>(*scales.front().size);
}

/// Scales that are themselves quantized: MX, NVFP4, NF4.
inline void set_scales(quantizer_numerics& n, block_config const& blocks, numerics_options const& options,
                       std::string const& where) {
  bit_spec const& bits = *blocks.scale_bits;
  if (n.how.element == nf4_element) return set_double_scales(n, blocks, where);
  if (!blocks.scale_block_sizes.empty())
    fail(error_id::format_value, where, ": block_sizes.scale_block_sizes (double quantization) is computed for ",
         "num_bits 4 with scale_bits 8 (NF4), not for ", name_of(n.how.element), " with scale_bits ", bits.text());
  if (bits.is_pair_of(8, 0)) {
    n.how.scaling = options.mx;
    n.how.scale_type = dtype::f8_e8m0;
    n.groups_from_data = true;
  } else if (bits.is_pair_of(4, 3) && n.how.element == e2m1_element) {
    n.how.scaling = blocks.four_over_six ? scale_rule::four_over_six : scale_rule::two_level;
    n.how.scale_type = dtype::f8_e4m3;
    n.groups_from_data = blocks.is_dynamic();
  } else {
    fail(error_id::format_value, where, ": block_sizes.scale_bits ", bits.text(),
         " is not computed by this version for ", "num_bits ", name_of(n.how.element),
         "; [8,0] (MX) is, [4,3] (NVFP4) for e2m1, and 8 with ",
         "scale_block_sizes (NF4) for 4");
  }
}

inline void refuse_what_is_not_computed(quantizer_attribute_config const& a, std::string const& where) {
  auto const refuse = [&](std::string const& field) {
    fail(error_id::format_value, where, ": ", field, " is not computed by this version");
  };
  if (a.block_sizes && !a.block_sizes->scale_block_sizes.empty() && !a.block_sizes->scale_bits)
    refuse("block_sizes.scale_block_sizes without scale_bits");
  bool const reshaped = a.block_sizes && !a.block_sizes->is_dynamic() &&
                        std::any_of(a.block_sizes->axes.begin(), a.block_sizes->axes.end(),
                                    [](axis_block const& b) { return b.size.has_value(); });
  if (a.bias && reshaped) refuse("bias together with calibrated blocks, whose axes are not the tensor's,");
  if (a.backend) refuse("backend " + in_quotes(*a.backend));
  if (!a.fake_quant) refuse("fake_quant: false (weights are packed by the exporter)");
}

}  // namespace detail

/// Throws `format_value` naming the quantizer and the field for what this version does not compute.
inline quantizer_numerics interpret(quantizer_attribute_config const& a, numerics_options const& options,
                                    std::string const& where) {
  detail::refuse_what_is_not_computed(a, where);
  quantizer_numerics n;
  n.how = format{detail::element_of(a, where), options.rules};
  n.how.layout = formats::storage_packing(n.how.element);
  n.grouping = detail::grouping_of(a);
  n.rotate = rotation_of(a, where);
  n.bias = a.bias;
  n.calibrator = a.calibrator;
  if (a.block_sizes && a.block_sizes->scale_bits) detail::set_scales(n, *a.block_sizes, options, where);
  check_format(n.how, where);
  if (a.use_constant_amax || a.constant_amax) {
    n.amax_from = amax_source::constant;
    n.constant_amax = a.use_constant_amax ? 448.0f : static_cast<float>(*a.constant_amax);
    if (!(n.constant_amax > 0.0f) || !fp::is_finite(n.constant_amax))
      fail(error_id::format_amax, where, ": constant_amax ", *a.constant_amax, " is not a positive float32");
  } else if (a.type == quantizer_type::dynamic_type || is_mx(n.how.scaling)) {
    n.amax_from = amax_source::data;
  }
  if (n.how.scale_block > 0 && n.amax_from == amax_source::data)
    fail(error_id::format_value, where, ": type dynamic: double quantization is of calibrated scales");
  return n;
}

}  // namespace mixbit
