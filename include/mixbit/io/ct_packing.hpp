// pack-quantized: codes of a row one behind the other in words of 32 bits, the first in the lowest bits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixbit/core/executor.hpp"
#include "mixbit/io/code_view.hpp"

namespace mixbit::detail::ct {

/// Words of a row of `columns` codes of 4 or 8 bits.
constexpr std::int64_t packed_words(std::int64_t columns, int bits) { return (columns * bits + 31) / 32; }

/// One row, in whole words. The view is a copy, so that its fields can stay in registers while bytes are written.
inline void pack_row(code_view const codes, std::int64_t row, int bits, std::uint8_t* to) {
  unsigned const top = 1u << (bits - 1);  // to add it, modulo 2^bits, is to flip the top bit
  std::int64_t const columns = codes.columns(), in_word = 32 / bits;
  for (std::int64_t first = 0; first < columns; first += in_word) {
    std::uint32_t word = 0;
    for (std::int64_t c = first; c < std::min(columns, first + in_word); ++c)
      word |= (codes(row, c) ^ top) << ((c - first) * bits);
    for (int byte = 0; byte < 4; ++byte) *to++ = static_cast<std::uint8_t>(word >> (8 * byte));
  }
}

/// Two's complement codes as unsigned ones, 2^(bits-1) above; zeros behind the last of a row. Little endian. Rows have
/// bytes of their own, so `threads` makes no difference to them.
inline std::vector<std::uint8_t> packed_rows(code_view const& codes, int bits, executor_ref threads = {}) {
  constexpr std::int64_t at_once = 16;
  std::int64_t const rows = codes.rows(), stride = packed_words(codes.columns(), bits) * 4;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * stride));
  threads.parallel_for((rows + at_once - 1) / at_once, [&](std::int64_t part) {
    for (std::int64_t r = part * at_once; r < std::min(rows, (part + 1) * at_once); ++r)
      pack_row(codes, r, bits, bytes.data() + r * stride);
  });
  return bytes;
}

}  // namespace mixbit::detail::ct
