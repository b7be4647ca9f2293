// Messages about files: paths in quotes that stay on one line, and the system's reason for a failure.
#pragma once

#include <cerrno>
#include <concepts>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"

namespace mixbit {

namespace detail {

/// What lies in staged_output's hidden folder, `FOLDER/.mixbit-PID-N/new/FILE`, under the name that its user knows.
inline std::filesystem::path as_published(std::filesystem::path const& path) {
  std::string const& text = path.native();
  auto const hidden = text.find("/.mixbit-");
  auto const end = hidden == text.npos ? text.npos : text.find('/', hidden + 1);
  constexpr std::string_view inside = "/new/";
  if (end == text.npos || text.compare(end, inside.size(), inside) != 0) return path;
  return text.substr(0, hidden + 1) + text.substr(end + inside.size());
}

}  // namespace detail

/// Paths are cut later than names: the system's own limit is 4096.
template <std::same_as<std::filesystem::path> Path>  // text converts to a path too: it must not come here
std::string in_quotes(Path const& path) { return "'" + one_line(detail::as_published(path).native(), 4096) + "'"; }

/// Throws `file_open`: "cannot ACTION 'PATH': REASON". `code` is an errno value.
[[noreturn]] inline void fail_path(std::string_view action, std::filesystem::path const& path, int code = errno) {
  fail(error_id::file_open, "cannot ", action, " ", in_quotes(path), ": ", std::generic_category().message(code));
}

}  // namespace mixbit
