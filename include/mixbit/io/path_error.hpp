// Messages about files: names in quotes that stay on one line, and the system's reason for a failure.
#pragma once

#include <cerrno>
#include <concepts>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "mixbit/core/error.hpp"

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

/// Paths are cut later than names: the system's own limit is 4096.
template <std::same_as<std::filesystem::path> Path>  // text converts to a path too: it must not come here
std::string in_quotes(Path const& path) { return "'" + one_line(path.native(), 4096) + "'"; }

/// Throws `file_open`: "cannot ACTION 'PATH': REASON". `code` is an errno value.
[[noreturn]] inline void fail_path(std::string_view action, std::filesystem::path const& path, int code = errno) {
  fail(error_id::file_open, "cannot ", action, " ", in_quotes(path), ": ", std::generic_category().message(code));
}

}  // namespace mixbit
