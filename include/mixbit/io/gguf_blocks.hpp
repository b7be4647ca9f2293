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
#include <span>
#include <utility>
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

/// 2·Half codes as bytes of element j and j + Half. `flip`: Q4_0's offset of 8, in both halves of a byte.
template <int Half>
std::byte* put_nibbles(std::byte* out, std::uint8_t const* codes, unsigned flip = 0) {
  for (int j = 0; j < Half; ++j) out[j] = static_cast<std::byte>((codes[j] | codes[j + Half] << 4) ^ flip);
  return out + Half;
}

/// One row, from its codes, a byte each. `scales`: of each block of the row, floats of Q8_0 and Q4_0.
inline void put_row(std::byte* out, gguf_type type, std::span<std::uint8_t const> codes, float const* scales) {
  for (std::size_t at = 0; at < codes.size(); at += 32) {
    out = put_half(out, scales[at / 32]);
    if (type == gguf_type::q4_0) {
      out = put_nibbles<16>(out, codes.data() + at, 0x88u);
    } else {
      std::memcpy(out, codes.data() + at, 32);
      out += 32;
    }
  }
}

/// The same for E2M1, whose scales are bytes.
inline void put_row(std::byte* out, gguf_type type, std::span<std::uint8_t const> codes, std::uint8_t const* scales) {
  std::size_t const size = type == gguf_type::nvfp4 ? 16 : 32, blocks = type == gguf_type::nvfp4 ? 4 : 1;
  for (std::size_t at = 0; at < codes.size(); at += size * blocks) {
    std::memcpy(out, scales + at / size, blocks);
    out += blocks;
    for (std::size_t b = 0; b < blocks; ++b) {
      auto const* const block = codes.data() + at + b * size;
      out = size == 16 ? put_nibbles<8>(out, block) : put_nibbles<16>(out, block);
    }
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
    std::vector<std::uint8_t> row(static_cast<std::size_t>(codes.columns()));
    for (std::int64_t r = part * at_once; r < std::min(rows, (part + 1) * at_once); ++r) {
      std::int64_t const from = permuted_row(r, rows, heads);
      codes.copy_row(from, row.data());
      put_row(out.data() + r * bytes, type, std::span{std::as_const(row)}, scales.data() + from * per_row);
    }
  });
  return out;
}

}  // namespace mixbit::detail::gguf
