// The descriptor of one encoded tensor: the convention of its format (describe.hpp), and where each code and scale of
// this tensor lies. With it and the arrays a kernel of somebody's own computes what `decode` computes, bit for bit,
// under policy `stored`; tests/support/described_kernel.hpp is such a kernel, of nothing else.
//
// Element i = (i0, i1, ...) in the order of the logical axes:
//
//   code   row r = the index over the first `row_axes` axes, row-major, column c over the others; then by `nibbles`
//            none, low_first   bits [c * code_bits, + code_bits) of the row that starts at byte r * row_bytes; bit b is
//                              bit b % 8 of byte b / 8, so a code of 16 bits has its low byte first
//            high_first        with k = r * columns + c, byte k / 2: its high nibble for even k, its low one for odd
//            low_is_even_row   byte r / 2 * row_bytes + c: its low nibble for even r, its high one for odd
//   value  values[code]; of 16-bit integers the code itself, in two's complement unless element.is_unsigned
//   group  g = sum over axes of i[a] / block[a] * scale_stride[a]
//   scale  plain              scales[g], of type scale_entry
//          times_tensor_scale float(scales[g]) * tensor_scale[0]
//          around_mean        max(float(scales[g]) * block_scales[g / scale_block] + tensor_scale[0], 0)
//   y      value * scale (value / scale where `use` divides), + 0.0f unless negative_zero; rounded to `type`
//
// Everything is float32, one rounding an operation (no fused multiply-add), to nearest even.
#pragma once

#include <vector>

#include "mixbit/formats/describe.hpp"
#include "mixbit/formats/scale_types.hpp"
#include "mixbit/formats/storage.hpp"

namespace mixbit {

/// What the scale of a group is made of.
enum class scale_form : std::uint8_t {
  plain,               ///< the entry itself
  times_tensor_scale,  ///< two levels: times one float32 a tensor
  around_mean          ///< double quantization: int8 codes times a float32 a block of groups, plus one float32 a tensor
};

struct tensor_description : format_description {
  // The tensor: axes in the order of the codes, for a weight PyTorch's ([out, in] of a linear layer).
  dtype type = dtype::f32;            ///< to which a decoded value is rounded
  int rank = 0;                       ///< axes; 0 is one element
  extents shape{1, 1, 1, 1, 1, 1};    ///< elements along each axis

  // Its codes. They have no padding but what rows and the last byte have; a ragged block has none.
  packing layout = packing::bytes;
  int row_axes = 0;                   ///< axes that number rows, from the first; the others number columns
  std::int64_t rows = 1, columns = 1;
  int code_bits = 8;                  ///< from one code of a row to the next
  std::int64_t row_bytes = 0;         ///< from one row to the next, of low_is_even_row from one pair to the next; of
                                      ///< high_first 0: rows follow one another without a gap
  int padding_code = 0;               ///< what the unused bits of a last byte hold
  int exponent_bias = 0;              ///< of minifloats: a normal value is 2^(field - bias) * 1.mantissa
  std::vector<float> values;          ///< of each pattern of code_bits bits, before scaling; empty for 16 bits

  // Its scales, dense in row-major order of groups.
  extents block{1, 1, 1, 1, 1, 1};    ///< elements that a scale covers along each axis; the last block may be cut short
  extents groups{1, 1, 1, 1, 1, 1};   ///< scales along each axis
  extents scale_stride{};             ///< entries from one group to the next along each axis
  scale_form form = scale_form::plain;
  dtype scale_entry = dtype::f32;     ///< of the array: scale_type, or i8 around a mean
  std::int64_t scale_count = 0;       ///< groups, each with an entry
  std::int32_t scale_block = 0;       ///< around a mean: consecutive groups that share a block scale
  std::int64_t block_scale_count = 0;
  std::int64_t tensor_scale_count = 0;  ///< 1 where there is a scale or a mean of the tensor

  storage_size size;                  ///< bytes of the codes, of both arrays of scales, of the tensor's own
};

namespace detail {

/// The value of every pattern that a code may be stored as.
inline std::vector<float> code_values(format const& how, int code_bits) {
  if (code_bits > 8) return {};
  std::vector<float> values(std::size_t{1} << code_bits);
  for (std::size_t stored = 0; stored < values.size(); ++stored) {
    int const code = formats::code_of_bits(how.layout, how.element, static_cast<std::uint32_t>(stored));
    values[stored] = formats::visit_rule(how, {}, [&](auto const& rule) { return rule.decode(1.0f, code); });
  }
  return values;
}

inline void describe_codes(format const& how, geometry const& g, tensor_description& d) {
  auto const matrix = formats::code_matrix_of(how.layout, g);
  bool const whole_bytes = how.layout == packing::bytes;
  d.layout = how.layout;
  d.row_axes = g.rank == 0 ? 0 : how.layout == packing::nibbles_row_pairs ? 1 : g.rank - 1;
  d.rows = matrix.rows;
  d.columns = matrix.columns;
  d.code_bits = !whole_bytes ? how.element.bits : how.element.bits > 8 ? 16 : 8;
  bool const flat = how.layout == packing::nibbles_high_first;
  d.row_bytes = flat ? 0 : formats::row_bytes(how.layout, how.element.bits, matrix.columns);
  if (flat) d.padding_code = how.element.kind == element_kind::lookup ? formats::nf4_zero : d.code_offset;
  if (how.element.kind == element_kind::minifloat) d.exponent_bias = formats::codes_of(how.element).bias;
  d.values = code_values(how, d.code_bits);
}

inline void describe_scales(format const& how, partition const& groups, tensor_description& d) {
  d.block = groups.block;
  d.groups = groups.groups;
  std::int64_t step = 1;
  for (int a = groups.rank - 1; a >= 0; --a) {
    d.scale_stride[a] = step;
    step *= groups.groups[a];
  }
  d.scale_count = groups.group_count();
  d.scale_entry = how.scale_type;
  if (is_two_level(how.scaling)) d.form = scale_form::times_tensor_scale;
  if (how.scale_block > 0) {
    d.form = scale_form::around_mean;
    d.scale_entry = dtype::i8;
    d.scale_block = how.scale_block;
    d.block_scale_count = (d.scale_count + how.scale_block - 1) / how.scale_block;
  }
  d.tensor_scale_count = d.form == scale_form::plain ? 0 : 1;
}

}  // namespace detail

/// The descriptor of a tensor of shape and type `g` in the format `how`, with one scale for each of `groups`: where its
/// `encode` puts what. `how` has passed check_encodable.
inline tensor_description describe(format const& how, geometry const& g, partition const& groups) {
  tensor_description d;
  static_cast<format_description&>(d) = describe(how);
  d.type = g.type;
  d.rank = g.rank;
  d.shape = g.shape;
  detail::describe_codes(how, g, d);
  detail::describe_scales(how, groups, d);
  d.size = storage_size_of(how, g, groups);
  return d;
}

}  // namespace mixbit
