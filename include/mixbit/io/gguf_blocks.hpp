// The bytes of GGUF's blocks from the codes and scales that an export has of a weight (io/hf_encoding.hpp). Blocks are
// ggml's (ggml-common.h):
//
//   block_q8_0   f16 d; int8 qs[32]
//   block_q4_0   f16 d; u8 qs[16]: low nibbles elements 0 to 15, high nibbles 16 to 31; two's complement plus 8
//   block_mxfp4  u8 e (E8M0); u8 qs[16], as q4_0, codes of E2M1
//   block_nvfp4  u8 d[4] (E4M3); u8 qs[32]: for each 16 elements 8 bytes, low nibbles the first 8, high the last
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "mixbit/io/code_view.hpp"
#include "mixbit/io/gguf_format.hpp"

namespace mixbit::detail::gguf {

inline void put_half(std::vector<std::byte>& out, float scale) {
  half const h = from_float<half>(scale);
  std::byte bytes[sizeof h];
  std::memcpy(bytes, &h, sizeof h);
  out.insert(out.end(), bytes, bytes + sizeof h);
}

/// 2·half codes of a row from `column` on, as bytes of element j and j + half. `flip`: Q4_0's offset of 8.
inline void put_nibbles(std::vector<std::byte>& out, code_view const& codes, std::int64_t row, std::int64_t column,
                        std::int64_t half_block, unsigned flip = 0) {
  for (std::int64_t j = column; j < column + half_block; ++j)
    out.push_back(static_cast<std::byte>((codes(row, j) ^ flip) | (codes(row, j + half_block) ^ flip) << 4));
}

/// Appends one row. `scales`: of each block of the row, floats of Q8_0 and Q4_0.
inline void put_row(std::vector<std::byte>& out, gguf_type type, code_view const& codes, std::int64_t row,
                    std::span<float const> scales) {
  for (std::int64_t at = 0; at < codes.columns(); at += 32) {
    put_half(out, scales[static_cast<std::size_t>(at / 32)]);
    if (type == gguf_type::q4_0) put_nibbles(out, codes, row, at, 16, 8u);
    else
      for (std::int64_t j = at; j < at + 32; ++j) out.push_back(static_cast<std::byte>(codes(row, j)));
  }
}

/// The same for E2M1, whose scales are bytes.
inline void put_row(std::vector<std::byte>& out, gguf_type type, code_view const& codes, std::int64_t row,
                    std::span<std::uint8_t const> scales) {
  std::int64_t const size = type == gguf_type::nvfp4 ? 16 : 32, blocks = type == gguf_type::nvfp4 ? 4 : 1;
  for (std::int64_t at = 0; at < codes.columns(); at += size * blocks) {
    for (std::int64_t b = 0; b < blocks; ++b) out.push_back(static_cast<std::byte>(scales[at / size + b]));
    for (std::int64_t b = 0; b < blocks; ++b) put_nibbles(out, codes, row, at + b * size, size / 2);
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

/// All blocks of a weight, rows permuted. `Scale`: float or the bytes of the blocks' scales.
template <class Scale>
std::vector<std::byte> blocks_of_rows(gguf_type type, code_view const& codes, std::vector<Scale> const& scales,
                                      std::int64_t heads) {
  std::vector<std::byte> out;
  auto const info = gguf_info(type);
  out.reserve(static_cast<std::size_t>(codes.rows() * codes.columns() / info.block * info.bytes));
  auto const per_row = scales.size() / static_cast<std::size_t>(codes.rows());
  for (std::int64_t r = 0; r < codes.rows(); ++r) {
    std::int64_t const from = permuted_row(r, codes.rows(), heads);
    put_row(out, type, codes, from, std::span{scales}.subspan(static_cast<std::size_t>(from) * per_row, per_row));
  }
  return out;
}

}  // namespace mixbit::detail::gguf
