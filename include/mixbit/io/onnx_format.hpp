// Which QuantizeLinear and DequantizeLinear compute what a quantizer simulates: the type of the codes, and along which
// axis scales lie. Data only.
//
//   quantizer                                                   codes          opset
//   int8, uint8: a scale a tensor, or a weight's index of an    INT8, UINT8    13
//   axis
//   E4M3: the same                                              FLOAT8E4M3FN   19; of an operand 21, for output_dtype
//   int4, uint4: the same                                       INT4, UINT4    21
//   a weight of these in blocks of one axis                     as above       21, block_size
//
// ONNX divides by the scale, rounds half to even and saturates, as policy `stored` does; zero points are 0. Not there:
// scales from each call's data (ONNX's DynamicQuantizeLinear is asymmetric), other widths, and scales that are
// quantized themselves (MX, NVFP4). Source: ONNX 1.23's operator documentation, QuantizeLinear and DequantizeLinear.
#pragma once

#include <optional>

#include "mixbit/core/partition.hpp"
#include "mixbit/io/onnx_graph.hpp"
#include "mixbit/quantizer/numerics.hpp"

namespace mixbit {

/// The type of the codes, if ONNX has one for this format.
inline std::optional<onnx_type> onnx_type_of(quantizer_numerics const& n) {
  auto const& e = n.how.element;
  if (n.how.scaling != scale_rule::ratio || n.how.scale_block != 0) return std::nullopt;
  if (e == e4m3_element) return onnx_type::f8_e4m3;
  if (e.kind != element_kind::integer) return std::nullopt;
  if (e.bits == 8) return e.is_unsigned ? onnx_type::u8 : onnx_type::i8;
  if (e.bits == 4) return e.is_unsigned ? onnx_type::u4 : onnx_type::i4;
  return std::nullopt;
}

/// Does QuantizeLinear saturate where this format does? Of an operand that is quantized when the graph runs; codes of
/// weights are stored.
inline bool saturates_as_onnx(quantizer_numerics const& n) { return !n.how.element.narrow_range; }

/// Where the scales of a tensor lie.
struct onnx_scales {
  std::optional<int> axis = {};  ///< none: one scale
  std::int64_t block = 0;        ///< not 0: along the axis, and every other axis has one for each index
};

/// Of groups of a tensor with this shape, if ONNX can say them.
inline std::optional<onnx_scales> onnx_scales_of(geometry const& shape, partition const& groups) {
  std::optional<int> split, shared;  // an axis that has several scales; one that shares them
  int splits = 0, shares = 0;
  for (int a = 0; a < shape.rank; ++a) {
    if (groups.groups[a] > 1) ++splits, split = a;
    if (groups.block[a] > 1) ++shares, shared = a;
  }
  if (splits == 0) return onnx_scales{};
  bool const blocked = shares == 1 && (splits > 1 || *shared == *split);
  if (blocked) return onnx_scales{shared, groups.block[*shared]};
  if (splits == 1 && groups.block[*split] == 1) return onnx_scales{split, 0};
  return std::nullopt;
}

}  // namespace mixbit
