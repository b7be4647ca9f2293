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

/// A row's codes, a byte each, into bytes that are zero. To add 2^(bits-1), modulo 2^bits, is to flip the top bit.
inline void pack_row(std::uint8_t const* codes, std::int64_t columns, int bits, std::uint8_t* to) {
  if (bits == 8) {
    for (std::int64_t c = 0; c < columns; ++c) to[c] = codes[c] ^ 0x80u;
    return;
  }
  for (std::int64_t c = 0; c + 1 < columns; c += 2)
    to[c / 2] = static_cast<std::uint8_t>((codes[c] | codes[c + 1] << 4) ^ 0x88);
  if (columns % 2 != 0) to[columns / 2] = codes[columns - 1] ^ 0x08u;
}

/// Two's complement codes as unsigned ones, 2^(bits-1) above; zeros behind the last of a row. Little endian. Rows have
/// bytes of their own, so `threads` makes no difference to them.
inline std::vector<std::uint8_t> packed_rows(code_view const& codes, int bits, executor_ref threads = {}) {
  constexpr std::int64_t at_once = 16;
  std::int64_t const rows = codes.rows(), stride = packed_words(codes.columns(), bits) * 4;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(rows * stride));
  threads.parallel_for((rows + at_once - 1) / at_once, [&](std::int64_t part) {
    std::vector<std::uint8_t> row(static_cast<std::size_t>(codes.columns()));
    for (std::int64_t r = part * at_once; r < std::min(rows, (part + 1) * at_once); ++r) {
      codes.copy_row(r, row.data());
      pack_row(row.data(), codes.columns(), bits, bytes.data() + r * stride);
    }
  });
  return bytes;
}

}  // namespace mixbit::detail::ct
