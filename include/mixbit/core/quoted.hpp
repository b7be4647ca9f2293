// Names from outside - of files, tensors, keys - as messages show them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mixbit {

/// `text` on one line: control characters become \xNN, and what is longer than `limit` bytes is cut. Names come from
/// files that may be hostile, and an error is one line that a terminal survives.
inline std::string one_line(std::string_view text, std::size_t limit = 300) {
  constexpr char digits[] = "0123456789abcdef";
  std::string result;
  for (char const c : text.substr(0, limit)) {
    auto const code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code != 0x7f) result += c;
    else result += {'\\', 'x', digits[code >> 4], digits[code & 15]};
  }
  if (text.size() > limit) result += "...";
  return result;
}

/// 'text', on one line.
inline std::string in_quotes(std::string_view text) { return "'" + one_line(text) + "'"; }

}  // namespace mixbit
