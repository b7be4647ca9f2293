// Which form a quantized module has in a Hugging Face checkpoint as ModelOpt writes it (its "unified" checkpoint):
// the algorithm's name, the tensors' shapes, and what loaders are known to refuse. Data only; no JSON, no files.
//
//   algorithm                   weight                                    weight_scale (float32)     input
//   FP8                         E4M3, one scale                           scalar, amax/448           static, one scale
//   FP8_PER_CHANNEL_PER_TOKEN   E4M3, a scale an output channel           [out], amax/448            dynamic per token
//   fp8_pb_wo                   E4M3, 2-D blocks of the last two axes     [out/b,1,in/b,1], amax/448 not quantized
//   W8A16                       int8, a scale an output channel           [out], amax/127            not quantized
//   W8A8_SQ_PER_CHANNEL         int8, a scale an output channel           [out], amax/127            static, one scale
//   W4A16_AWQ                   int4 in blocks of the last axis, two      [out,in/g], amax/7         not quantized
//                               rows of axis 0 a byte, low nibble first
//   W4A8_AWQ                    the same; then E4M3 by weight_scale_2 =   the same                   static, one scale
//                               amax/448 of the tensor
// and with scales that are themselves quantized, two 4-bit codes a byte along the last axis, low nibble first:
//   NVFP4                       E2M1 in blocks of 16, weight_scale_2 =    E4M3 [out,in/16]           NVFP4, input_scale
//                               tensor amax/2688 (1536: four over six)                               = tensor amax/2688
//   W4A16_NVFP4                 the same                                  the same                   not quantized
//   MXFP8                       E4M3 in blocks of 32                      E8M0 as bytes [out,in/32]  MXFP8, no scale
//   mxfp4                       E2M1 in blocks of 32                      the same                   MXFP4 or none
// Convolutions take the same forms with their further axes kept.
//
// Inputs may be multiplied by NAME.pre_quant_scale [in] before all that, of which the weight then has the inverse in it
// (SmoothQuant, AWQ): in W8A8_SQ_PER_CHANNEL, W4A16_AWQ, W4A8_AWQ, and in NVFP4, which is NVFP4_AWQ by name then.
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/quantizer/describe.hpp"
#include "mixbit/quantizer/layout.hpp"
#include "mixbit/quantizer/numerics.hpp"

namespace mixbit {

enum class hf_algorithm : std::uint8_t {
  fp8, fp8_per_channel_per_token, fp8_2d_blocks, int8_weight_only, int8, int4_weight_only, int4_fp8, nvfp4,
  nvfp4_weight_only, mxfp8, mxfp4
};

/// `quant_algo`, spelled as ModelOpt spells it; `scaled`: of layers with a pre_quant_scale.
constexpr std::string_view name_of(hf_algorithm a, bool scaled = false) {
  constexpr std::string_view names[] = {"FP8",   "FP8_PER_CHANNEL_PER_TOKEN", "fp8_pb_wo",
                                        "W8A16", "W8A8_SQ_PER_CHANNEL",       "W4A16_AWQ",
                                        "W4A8_AWQ", "NVFP4",                  "W4A16_NVFP4",
                                        "MXFP8", "mxfp4"};
  if (a == hf_algorithm::nvfp4 && scaled) return "NVFP4_AWQ";
  return names[static_cast<int>(a)];
}

/// What one module's weight is in a file.
struct hf_format {
  hf_algorithm algorithm = hf_algorithm::fp8;
  std::int64_t group_size = 0;  ///< of blocks along the last axis: input channels a scale
  friend bool operator==(hf_format const&, hf_format const&) = default;

  using a = hf_algorithm;
  bool has_input_scale() const {
    return algorithm == a::fp8 || algorithm == a::int8 || algorithm == a::int4_fp8 || algorithm == a::nvfp4;
  }
  bool is_int4() const { return algorithm == a::int4_weight_only || algorithm == a::int4_fp8; }
  bool is_nvfp4() const { return algorithm == a::nvfp4 || algorithm == a::nvfp4_weight_only; }
  bool is_mx() const { return algorithm == a::mxfp8 || algorithm == a::mxfp4; }
  bool has_tensor_scale() const { return is_nvfp4() || algorithm == a::int4_fp8; }  ///< weight_scale_2
  /// Are there two codes a byte along the last axis?
  bool is_packed() const { return is_nvfp4() || algorithm == a::mxfp4; }
};

/// What an operand is quantized by, in order; empty: it is not quantized.
using hf_operand = std::vector<quantizer_numerics>;

namespace detail::hf {

using kind = grouping_scheme::kind;

/// "int4 blocks -1:32, static, then e4m3 per tensor, static", for messages.
inline std::string describe(hf_operand const& operand) {
  if (operand.empty()) return "not quantized";
  std::string text;
  for (auto const& n : operand)
    text += concat(text.empty() ? "" : ", then ", name_of(n.how), ' ', mixbit::describe(n.grouping),
                   n.amax_from == amax_source::data ? ", dynamic" : ", static");
  return text;
}

inline bool is_int(quantizer_numerics const& n, int bits) {
  auto const& e = n.how.element;
  return e.kind == element_kind::integer && e.bits == bits && !e.is_unsigned && n.how.scaling == scale_rule::ratio;
}

inline bool is_e4m3(quantizer_numerics const& n) {
  return n.how.element == e4m3_element && n.how.scaling == scale_rule::ratio;
}

inline bool is_per_tensor_static(quantizer_numerics const& n) {
  return n.grouping.what == kind::tensor && n.amax_from != amax_source::data;
}

/// A scale for each index of axis 0 of a weight.
inline bool is_per_channel(quantizer_numerics const& n, int rank) {
  auto const& kept = n.grouping.kept;
  return n.grouping.what == kind::axes && kept.size() == 1 && (kept[0] == 0 || kept[0] == -rank);
}

/// A scale for each row of the last axis, computed anew on every call.
inline bool is_per_token(quantizer_numerics const& n) {
  auto const& b = n.grouping.blocks;
  return n.grouping.what == kind::blocks && n.amax_from == amax_source::data && b.size() == 1 && b[0].axis == -1 &&
         !b[0].size;
}

/// The block size along the last axis where `count` blocked axes are exactly the last ones.
inline std::optional<std::int64_t> last_blocks(quantizer_numerics const& n, int rank, std::size_t count) {
  if (n.grouping.what != kind::blocks || n.grouping.blocks.size() != count) return std::nullopt;
  std::optional<std::int64_t> last;
  std::set<int> axes;
  for (auto const& b : n.grouping.blocks) {
    int const axis = b.axis < 0 ? b.axis + rank : b.axis;
    if (!b.size || axis < rank - static_cast<int>(count)) return std::nullopt;
    axes.insert(axis);
    if (axis == rank - 1) last = b.size;
  }
  return axes.size() == count ? last : std::nullopt;
}

/// Of inputs: blocks of this size along the last axis, under a scale rule of the same kind and the same element.
inline bool has_like_blocks(quantizer_numerics const& input, quantizer_numerics const& weight, std::int64_t size) {
  auto const& b = input.grouping.blocks;
  return input.how.element == weight.how.element && input.grouping.what == kind::blocks && b.size() == 1 &&
         b[0].axis == -1 && b[0].size == size && is_mx(input.how.scaling) == is_mx(weight.how.scaling) &&
         is_two_level(input.how.scaling) == is_two_level(weight.how.scaling);
}

/// Forms whose scales are themselves quantized: NVFP4 and MX.
inline std::optional<hf_format> scaled_blocks_format(quantizer_numerics const& weight,
                                                     std::optional<quantizer_numerics> const& input, int rank) {
  using a = hf_algorithm;
  auto const size = last_blocks(weight, rank, 1);
  if (!size) return std::nullopt;
  if (is_two_level(weight.how.scaling) && *size == 16) {
    if (!input) return hf_format{a::nvfp4_weight_only, 16};
    bool const has_scale = input->groups_from_data && input->amax_from != amax_source::data;
    if (has_scale && has_like_blocks(*input, weight, 16)) return hf_format{a::nvfp4, 16};
  }
  if (is_mx(weight.how.scaling) && *size == 32) {
    bool const same = input && has_like_blocks(*input, weight, 32);
    if (weight.how.element == e4m3_element && same) return hf_format{a::mxfp8, 32};
    if (weight.how.element == e2m1_element && (same || !input)) return hf_format{a::mxfp4, 32};
  }
  return std::nullopt;
}

/// The form of a weight with one quantizer.
inline std::optional<hf_format> single_format(quantizer_numerics const& weight,
                                              std::optional<quantizer_numerics> const& input, int rank) {
  using a = hf_algorithm;
  if (is_e4m3(weight)) {
    bool const same = input && is_e4m3(*input);
    if (weight.grouping.what == kind::tensor && same && is_per_tensor_static(*input)) return hf_format{a::fp8};
    if (is_per_channel(weight, rank) && same && is_per_token(*input)) return hf_format{a::fp8_per_channel_per_token};
    if (last_blocks(weight, rank, 2) && !input) return hf_format{a::fp8_2d_blocks};
  }
  if (is_int(weight, 8) && is_per_channel(weight, rank)) {
    if (!input) return hf_format{a::int8_weight_only};
    if (is_int(*input, 8) && is_per_tensor_static(*input)) return hf_format{a::int8};
  }
  if (is_int(weight, 4) && !input)
    if (auto const size = last_blocks(weight, rank, 1)) return hf_format{a::int4_weight_only, *size};
  return scaled_blocks_format(weight, input, rank);
}

/// The form of a weight with two, the second of which sees what the first makes of it.
inline std::optional<hf_format> sequence_format(quantizer_numerics const& first, quantizer_numerics const& second,
                                                std::optional<quantizer_numerics> const& input, int rank) {
  auto const size = last_blocks(first, rank, 1);
  bool const is_w4 = size && is_int(first, 4), is_a8 = input && is_e4m3(*input) && is_per_tensor_static(*input);
  if (!is_w4 || !is_a8 || !is_e4m3(second) || !is_per_tensor_static(second)) return std::nullopt;
  return hf_format{hf_algorithm::int4_fp8, *size};
}

}  // namespace detail::hf

/// The form of a weight of rank `rank` with these quantizers, if there is one.
inline std::optional<hf_format> hf_format_of(hf_operand const& weight, hf_operand const& input, int rank) {
  if (input.size() > 1) return std::nullopt;
  auto const of_input = input.empty() ? std::nullopt : std::optional{input.front()};
  if (weight.size() == 1) return detail::hf::single_format(weight.front(), of_input, rank);
  if (weight.size() == 2) return detail::hf::sequence_format(weight.front(), weight.back(), of_input, rank);
  return std::nullopt;
}

/// The shape and type of the codes of weight `w`.
inline geometry hf_code_shape(hf_format const& f, geometry const& w) {
  auto shape = w.shape;
  dtype type = dtype::f8_e4m3;
  if (f.algorithm == hf_algorithm::int8 || f.algorithm == hf_algorithm::int8_weight_only) type = dtype::i8;
  if (f.is_int4()) {
    type = dtype::u8;
    shape[0] = (shape[0] + 1) / 2;
  }
  if (f.is_packed()) {
    type = dtype::u8;
    auto& columns = shape[static_cast<std::size_t>(w.rank) - 1];
    columns = (columns + 1) / 2;
  }
  return dense_geometry(type, std::span{shape.data(), static_cast<std::size_t>(w.rank)});
}

/// The shape of weight_scale for a weight that is divided into `groups`. `scalar_single_block`: a single 2-D block's
/// scale is 0-d, as ModelOpt writes it, instead of [1,1,1,1].
inline geometry hf_scale_shape(hf_format const& f, partition const& groups, bool scalar_single_block) {
  std::vector<std::int64_t> shape;
  auto const rank = static_cast<std::size_t>(groups.rank);
  switch (f.algorithm) {
    case hf_algorithm::fp8: break;
    case hf_algorithm::fp8_2d_blocks:
      if (scalar_single_block && groups.group_count() == 1) break;
      for (std::size_t axis = 0; axis < rank; ++axis) {
        shape.push_back(groups.groups[axis]);
        if (axis + 2 >= rank) shape.push_back(1);
      }
      break;
    case hf_algorithm::int4_weight_only:
    case hf_algorithm::int4_fp8:
    case hf_algorithm::nvfp4:
    case hf_algorithm::nvfp4_weight_only:
    case hf_algorithm::mxfp8:
    case hf_algorithm::mxfp4:
      shape.assign(groups.groups.begin(), groups.groups.begin() + groups.rank);
      break;
    default: shape.push_back(groups.groups[0]);
  }
  return dense_geometry(f.is_nvfp4() ? dtype::f8_e4m3 : f.is_mx() ? dtype::u8 : dtype::f32, shape);
}

/// A quantized module, as far as a loader cares.
struct hf_layer {
  std::string name;
  hf_format format;
  geometry weight;  ///< in PyTorch's axis order
  partition groups;
  site_kind kind = site_kind::linear;
  bool scaled = false;  ///< has a pre_quant_scale in the file, by which loaders multiply its input
};

/// `quant_algo` of a layer.
inline std::string_view algorithm_of(hf_layer const& l) { return name_of(l.format.algorithm, l.scaled); }

/// Is there a place for a pre_quant_scale beside weights of this form? Elsewhere loaders know of none.
constexpr bool takes_pre_quant_scale(hf_algorithm a) {
  return a == hf_algorithm::int8 || a == hf_algorithm::int4_weight_only || a == hf_algorithm::int4_fp8 ||
         a == hf_algorithm::nvfp4;
}

}  // namespace mixbit
