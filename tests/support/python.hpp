// Readers of other makers as oracles: modules of the python3 on the PATH, where it has them. MIXBIT_PYTHON names
// another interpreter, of a virtual environment for instance.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "support/temporary_folder.hpp"

namespace mixbit::test {

inline std::string python_interpreter() {
  char const* const own = std::getenv("MIXBIT_PYTHON");
  return own != nullptr && *own != '\0' ? own : "python3";
}

/// What a script prints, errors included; it starts with "(exit N)" where it fails.
inline std::string run_python(std::string_view script, std::initializer_list<std::filesystem::path> arguments = {}) {
  temporary_folder const folder;
  write_text(folder / "script.py", script);
  std::string command = python_interpreter() + " -B '" + (folder / "script.py").string() + "'";
  for (auto const& a : arguments) command += " '" + a.string() + "'";
  std::FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error{"cannot run " + command};
  std::string text;
  char piece[4096];
  for (std::size_t n = 0; (n = std::fread(piece, 1, sizeof piece, pipe)) > 0;) text.append(piece, n);
  int const status = ::pclose(pipe);
  return status == 0 ? text : "(exit " + std::to_string(status >> 8) + ") " + text;
}

/// Says so and returns true where a module is not there.
inline bool skipped_without_python(std::string const& what, std::initializer_list<std::string_view> modules) {
  for (auto const module : modules)
    if (!run_python("import " + std::string{module}).empty()) {
      std::cout << "skipped: " << what << ": " << python_interpreter() << " has no " << module << std::endl;
      return true;
    }
  return false;
}

}  // namespace mixbit::test
