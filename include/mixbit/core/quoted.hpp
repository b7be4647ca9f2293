// Names from outside - of files, tensors, keys - as messages show them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "mixbit/core/error.hpp"

namespace mixbit {

/// `text` on one line: control characters become \xNN, and what is longer than `limit` bytes is cut. Names come from
/// files that may be hostile, and an error is one line that a terminal survives.
inline std::string one_line(std::string_view text, std::size_t limit = 300) {
  return detail::on_one_line(text.substr(0, limit)) + (text.size() > limit ? "..." : "");
}

/// 'text', on one line.
inline std::string in_quotes(std::string_view text) { return "'" + one_line(text) + "'"; }

}  // namespace mixbit
