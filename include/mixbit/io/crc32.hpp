// CRC-32 as ZIP, gzip and PNG use it (ITU-T V.42; polynomial 0x04c11db7, bits reflected), eight bytes a step:
// M. Kounavis and F. Berry, "A systematic approach to building high performance software-based CRC generators", 2005.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mixbit::detail {

using crc32_tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr crc32_tables make_crc32_tables() {
  crc32_tables t{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t r = byte;
    for (int bit = 0; bit < 8; ++bit) r = (r >> 1) ^ ((r & 1u) != 0 ? 0xedb88320u : 0u);
    t[0][byte] = r;
  }
  for (std::size_t k = 1; k < t.size(); ++k)
    for (std::size_t byte = 0; byte < 256; ++byte) t[k][byte] = (t[k - 1][byte] >> 8) ^ t[0][t[k - 1][byte] & 0xffu];
  return t;
}

inline constexpr crc32_tables crc32_table = make_crc32_tables();

/// Of bytes that come in pieces; it takes the place of a file where something writes to one.
class crc32 {
 public:
  constexpr void write(std::span<std::byte const> bytes) {
    auto const& t = crc32_table;
    auto const at = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
      std::uint32_t const low = rest_ ^ (at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24);
      rest_ = t[7][low & 0xffu] ^ t[6][(low >> 8) & 0xffu] ^ t[5][(low >> 16) & 0xffu] ^ t[4][low >> 24] ^
              t[3][at(4)] ^ t[2][at(5)] ^ t[1][at(6)] ^ t[0][at(7)];
    }
    for (std::size_t i = 0; i < bytes.size(); ++i) rest_ = (rest_ >> 8) ^ t[0][(rest_ ^ at(i)) & 0xffu];
  }
  constexpr std::uint32_t value() const { return ~rest_; }

 private:
  std::uint32_t rest_ = 0xffffffffu;
};

}  // namespace mixbit::detail
