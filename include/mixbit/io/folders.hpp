// Whether two folders lie in one another: an export must not write over what it reads.
#pragma once

#include <filesystem>

#include "mixbit/io/path_error.hpp"

namespace mixbit {

/// Where a path leads, with links and ".." resolved as far as it exists. Throws `file_open`.
inline std::filesystem::path resolved_path(std::filesystem::path const& path) {
  std::error_code failure;
  auto const whole = std::filesystem::absolute(path, failure);
  auto const result = failure ? whole : std::filesystem::weakly_canonical(whole, failure);
  if (failure) fail_path("resolve", path, failure.value());
  return result.has_filename() ? result : result.parent_path();  // "a/" is "a"
}

/// Is one of them inside the other, or are they the same? Throws `file_open` for a path that cannot be resolved.
inline bool lie_in_one_another(std::filesystem::path const& a, std::filesystem::path const& b) {
  auto const left = resolved_path(a), right = resolved_path(b);
  auto const is_inside = [](auto const& inner, auto const& outer) {  // also where both are the same
    auto const way = inner.lexically_relative(outer);
    return !way.empty() && *way.begin() != "..";
  };
  return is_inside(left, right) || is_inside(right, left);
}

}  // namespace mixbit
