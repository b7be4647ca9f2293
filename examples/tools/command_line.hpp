// What the tools' command lines have in common: `--option value` pairs and flags, each at most once.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "mixbit/core/error.hpp"

namespace tools {

/// Takes an option's value.
using setter = std::function<void(std::string const& option, std::string const& value)>;

struct known_options {
  std::map<std::string, setter> values;
  std::map<std::string, bool*> flags = {};
};

/// Throws `usage`, pointing at the program's help.
[[noreturn]] inline void refuse(std::string_view program, std::string const& what) {
  mixbit::fail(mixbit::error_id::usage, what, "; see ", program, " --help");
}

/// The options given; nothing where it is --help, alone. Throws `usage` for what is unknown, repeated or without value.
inline std::optional<std::set<std::string>> read_options(std::string_view program, int count,
                                                         char const* const* arguments, known_options const& known) {
  std::set<std::string> given;
  for (int i = 1; i < count; ++i) {
    std::string const name = arguments[i];
    if (name == "--help" || name == "-h") {
      if (count != 2) refuse(program, name + " takes no other arguments");
      return std::nullopt;
    }
    auto const at = known.values.find(name);
    auto const flag = known.flags.find(name);
    if (at == known.values.end() && flag == known.flags.end()) refuse(program, "unknown option '" + name + "'");
    if (!given.insert(name).second) refuse(program, name + " is given twice");
    if (flag != known.flags.end()) {
      *flag->second = true;
      continue;
    }
    if (i + 1 == count || std::string_view{arguments[i + 1]}.starts_with("--"))
      refuse(program, name + " needs a value");
    std::string const value = arguments[++i];
    if (value.empty()) refuse(program, name + " has an empty value");
    at->second(name, value);
  }
  return given;
}

}  // namespace tools
