// Where the code of an element lies in the bytes of an encoded tensor.
//
// An encoded tensor is a matrix of codes: its rows are the leading axes together and its columns the last axis, but
// for nibbles_row_pairs, whose rows are axis 0 and whose columns the rest. Codes are numbered in row-major order of
// the *logical* axes, whatever the strides of the tensor were. Bits that no element owns are zero, but for the last
// nibble of nibbles_high_first, which holds the code of 0.
#pragma once

#include <cstdint>

#include "mixbit/core/format.hpp"
#include "mixbit/core/tensor_view.hpp"

namespace mixbit::formats {

/// Where the codes of a weight in this element lie in a file (docs/numerics.md, "Storage").
constexpr packing storage_packing(element_type const& e) {
  if (e.bits >= 8) return packing::bytes;
  if (e.kind == element_kind::lookup) return packing::nibbles_high_first;
  bool const signed_nibble = e.kind == element_kind::integer && e.bits == 4 && !e.is_unsigned;
  return signed_nibble ? packing::nibbles_row_pairs : packing::dense_rows;
}

struct code_matrix {
  std::int64_t rows = 1, columns = 1;
};

/// Tensors of rank 0 are one row of one code.
constexpr code_matrix code_matrix_of(packing layout, geometry const& g) {
  if (g.rank == 0) return {};
  bool const pairs = layout == packing::nibbles_row_pairs;
  int const first = pairs ? 1 : 0, last = pairs ? g.rank : g.rank - 1;
  std::int64_t leading = 1;
  for (int a = first; a < last; ++a) leading *= g.shape[a];
  if (pairs) return {g.shape[0], leading};
  return {leading, g.shape[g.rank - 1]};
}

/// Does a layout add 8 to a code before it is stored?
MIXBIT_HD constexpr bool stores_offset(packing layout, element_type const& e) {
  return layout == packing::nibbles_high_first && e.kind == element_kind::integer;
}

/// Bytes from one row (for row pairs: one pair) to the next; the flat layout of nibbles_high_first has no rows.
MIXBIT_HD constexpr std::int64_t row_bytes(packing layout, int bits, std::int64_t columns) {
  return layout == packing::dense_rows ? (columns * bits + 7) / 8 : columns * (bits > 8 ? 2 : 1);
}

/// Bytes of all codes of a matrix.
MIXBIT_HD constexpr std::int64_t payload_bytes(packing layout, int bits, code_matrix const& m) {
  switch (layout) {
    case packing::nibbles_high_first: return (m.rows * m.columns + 1) / 2;
    case packing::nibbles_row_pairs: return (m.rows + 1) / 2 * m.columns;
    default: return m.rows * row_bytes(layout, bits, m.columns);
  }
}

/// The lowest bit of a code: bit `shift` of byte `byte`. A code of dense_rows may continue in the next byte.
struct code_place {
  std::int64_t byte = 0;
  int shift = 0;
};

MIXBIT_HD constexpr code_place place_of(packing layout, int bits, code_matrix const& m, std::int64_t row,
                                        std::int64_t column) {
  switch (layout) {
    case packing::dense_rows: {
      std::int64_t const bit = column * bits;
      return {row * row_bytes(layout, bits, m.columns) + bit / 8, static_cast<int>(bit % 8)};
    }
    case packing::nibbles_high_first: {
      std::int64_t const index = row * m.columns + column;
      return {index / 2, index % 2 == 0 ? 4 : 0};
    }
    case packing::nibbles_row_pairs: return {row / 2 * m.columns + column, row % 2 == 0 ? 0 : 4};
    default: return {(row * m.columns + column) * (bits > 8 ? 2 : 1), 0};
  }
}

/// The bits that stand for a code: two's complement, or with an offset of 8.
MIXBIT_HD constexpr std::uint32_t stored_bits(packing layout, element_type const& e, int code) {
  if (layout == packing::bytes) return static_cast<std::uint32_t>(code) & (e.bits > 8 ? 0xffffu : 0xffu);
  int const shifted = stores_offset(layout, e) ? code + 8 : code;
  return static_cast<std::uint32_t>(shifted) & ((1u << e.bits) - 1u);
}

/// The code that `stored` stands for; `stored` may have further bits above.
MIXBIT_HD constexpr int code_of_bits(packing layout, element_type const& e, std::uint32_t stored) {
  int const width = layout == packing::bytes && e.bits < 8 ? 8 : e.bits;
  std::uint32_t const own = stored & ((1u << width) - 1u);
  if (stores_offset(layout, e)) return static_cast<int>(own) - 8;
  bool const negative = e.kind == element_kind::integer && !e.is_unsigned && (own >> (width - 1)) != 0;
  return negative ? static_cast<int>(own) - (1 << width) : static_cast<int>(own);
}

/// The code of one element.
MIXBIT_HD constexpr int read_code(std::uint8_t const* bytes, packing layout, element_type const& e, code_place at) {
  std::uint32_t stored = static_cast<std::uint32_t>(bytes[at.byte]) >> at.shift;
  if (at.shift + e.bits > 8 && (layout == packing::dense_rows || e.bits > 8))
    stored |= static_cast<std::uint32_t>(bytes[at.byte + 1]) << (8 - at.shift);
  return code_of_bits(layout, e, stored);
}

/// Sets the code of one element in bytes whose bits for it are zero.
MIXBIT_HD constexpr void write_code(std::uint8_t* bytes, packing layout, element_type const& e, code_place at,
                                    int code) {
  std::uint32_t const stored = stored_bits(layout, e, code) << at.shift;
  bytes[at.byte] = static_cast<std::uint8_t>(bytes[at.byte] | stored);
  if (stored >> 8) bytes[at.byte + 1] = static_cast<std::uint8_t>(bytes[at.byte + 1] | stored >> 8);
}

}  // namespace mixbit::formats
