// Bytes as tokens: windows of a text, and the views of them that a language model reads and is scored on.
#pragma once

#include <cstdint>
#include <vector>

namespace byte_lm {

/// Borrowed tokens [windows, length]; row w starts at data + w * stride.
struct token_view {
  std::uint8_t const* data = nullptr;
  std::int64_t windows = 0, length = 0, stride = 0;

  std::uint8_t const* row(std::int64_t w) const { return data + w * stride; }
  std::int64_t size() const { return windows * length; }
};

/// Windows [count, length] that own their bytes. The model reads all but the last byte of each and predicts all but
/// the first.
struct byte_windows {
  std::int64_t count = 0, length = 0;
  std::vector<std::uint8_t> bytes;

  token_view inputs() const { return {bytes.data(), count, length - 1, length}; }
  token_view targets() const { return {bytes.data() + 1, count, length - 1, length}; }

  /// Windows first .. first + n, copied; fewer where the end comes sooner.
  byte_windows slice(std::int64_t first, std::int64_t n) const {
    n = first + n < count ? n : count - first;
    return {n, length, {bytes.begin() + first * length, bytes.begin() + (first + n) * length}};
  }
};

}  // namespace byte_lm
