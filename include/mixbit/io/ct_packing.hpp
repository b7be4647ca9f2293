// pack-quantized: codes of a row one behind the other in words of 32 bits, the first in the lowest bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixbit/io/code_view.hpp"

namespace mixbit::detail::ct {

/// Words of a row of `columns` codes of 4 or 8 bits.
constexpr std::int64_t packed_words(std::int64_t columns, int bits) { return (columns * bits + 31) / 32; }

/// Two's complement codes as unsigned ones, 2^(bits-1) above; zeros behind the last of a row. Little endian.
inline std::vector<std::uint8_t> packed_rows(code_view const& codes, int bits) {
  std::int64_t const stride = packed_words(codes.columns(), bits) * 4;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(codes.rows() * stride));
  unsigned const top = 1u << (bits - 1);  // to add it, modulo 2^bits, is to flip the top bit
  for (std::int64_t r = 0; r < codes.rows(); ++r)
    for (std::int64_t c = 0; c < codes.columns(); ++c) {
      unsigned const code = codes(r, c) ^ top;
      bytes[static_cast<std::size_t>(r * stride + c * bits / 8)] |= static_cast<std::uint8_t>(code << (c * bits % 8));
    }
  return bytes;
}

}  // namespace mixbit::detail::ct
