// The bytes of GGUF's blocks from the codes and scales that an export has of a weight (io/hf_encoding.hpp). Blocks are
// ggml's (ggml-common.h):
//
//   block_q8_0   f16 d; int8 qs[32]
//   block_q4_0   f16 d; u8 qs[16]: low nibbles elements 0 to 15, high nibbles 16 to 31; two's complement plus 8
//   block_mxfp4  u8 e (E8M0); u8 qs[16], as q4_0, codes of E2M1
//   block_nvfp4  u8 d[4] (E4M3); u8 qs[32]: for each 16 elements 8 bytes, low nibbles the first 8, high the last
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

#include "mixbit/core/executor.hpp"
#include "mixbit/io/code_view.hpp"
#include "mixbit/io/gguf_format.hpp"

namespace mixbit::detail::gguf {

/// Bytes of a row of so many elements.
constexpr std::int64_t row_bytes(gguf_type type, std::int64_t columns) {
  return columns / gguf_info(type).block * gguf_info(type).bytes;
}

inline std::byte* put_half(std::byte* out, float scale) {
  half const h = from_float<half>(scale);
  std::memcpy(out, &h, sizeof h);
  return out + sizeof h;
}

/// 2·half codes of a row from `column` on, as bytes of element j and j + half. `flip`: Q4_0's offset of 8.
inline std::byte* put_nibbles(std::byte* out, code_view const codes, std::int64_t row, std::int64_t column,
                              std::int64_t half_block, unsigned flip = 0) {
  for (std::int64_t j = column; j < column + half_block; ++j)
    *out++ = static_cast<std::byte>((codes(row, j) ^ flip) | (codes(row, j + half_block) ^ flip) << 4);
  return out;
}

/// One row. `scales`: of each block of the row, floats of Q8_0 and Q4_0. The view is a copy, so that its fields can
/// stay in registers while bytes are written.
inline void put_row(std::byte* out, gguf_type type, code_view const codes, std::int64_t row, float const* scales) {
  for (std::int64_t at = 0; at < codes.columns(); at += 32) {
    out = put_half(out, scales[at / 32]);
    if (type == gguf_type::q4_0) out = put_nibbles(out, codes, row, at, 16, 8u);
    else
      for (std::int64_t j = at; j < at + 32; ++j) *out++ = static_cast<std::byte>(codes(row, j));
  }
}

/// The same for E2M1, whose scales are bytes.
inline void put_row(std::byte* out, gguf_type type, code_view const codes, std::int64_t row,
                    std::uint8_t const* scales) {
  std::int64_t const size = type == gguf_type::nvfp4 ? 16 : 32, blocks = type == gguf_type::nvfp4 ? 4 : 1;
  for (std::int64_t at = 0; at < codes.columns(); at += size * blocks) {
    for (std::int64_t b = 0; b < blocks; ++b) *out++ = static_cast<std::byte>(scales[at / size + b]);
    for (std::int64_t b = 0; b < blocks; ++b) out = put_nibbles(out, codes, row, at + b * size, size / 2);
  }
}

/// The row that comes in row r's place where the rows of each of `heads` heads go from two halves to pairs: rotary
/// embeddings turn elements i and i + n/2 of a head in Hugging Face's order, 2i and 2i + 1 in llama.cpp's (its
/// converter's LlamaModel.permute). Without heads rows stay.
constexpr std::int64_t permuted_row(std::int64_t r, std::int64_t rows, std::int64_t heads) {
  if (heads == 0) return r;
  std::int64_t const size = rows / heads, in_head = r % size;
  return r - in_head + in_head % 2 * (size / 2) + in_head / 2;
}

/// The other way round: the place of row r.
constexpr std::int64_t place_of_row(std::int64_t r, std::int64_t rows, std::int64_t heads) {
  if (heads == 0) return r;
  std::int64_t const size = rows / heads, in_head = r % size;
  return r - in_head + in_head % (size / 2) * 2 + in_head / (size / 2);
}

/// All blocks of a weight, rows permuted. `Scale`: float or the bytes of the blocks' scales. Rows have bytes of their
/// own, so `on` makes no difference to them.
template <class Scale>
std::vector<std::byte> blocks_of_rows(gguf_type type, code_view const& codes, std::vector<Scale> const& scales,
                                      std::int64_t heads, executor_ref on = {}) {
  constexpr std::int64_t at_once = 16;
  std::int64_t const rows = codes.rows(), bytes = row_bytes(type, codes.columns());
  std::vector<std::byte> out(static_cast<std::size_t>(rows * bytes));
  auto const per_row = std::ssize(scales) / rows;
  on.parallel_for((rows + at_once - 1) / at_once, [&](std::int64_t part) {
    for (std::int64_t r = part * at_once; r < std::min(rows, (part + 1) * at_once); ++r) {
      std::int64_t const from = permuted_row(r, rows, heads);
      put_row(out.data() + r * bytes, type, codes, from, scales.data() + from * per_row);
    }
  });
  return out;
}

}  // namespace mixbit::detail::gguf
