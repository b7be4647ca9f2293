// The outcome of one golden suite.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <vector>

struct suite_result {
  std::string name;
  int passed = 0, failed = 0, skipped = 0;
  std::vector<std::string> messages = {};  ///< of failures and of what was left out

  void check(bool ok, std::string const& what) {
    ++(ok ? passed : failed);
    if (!ok) messages.push_back(name + ": " + what);
  }
  void skip(int cases, std::string const& reason) {
    if (cases == 0) return;
    skipped += cases;
    messages.push_back(name + ": skipped " + std::to_string(cases) + ": " + reason);
  }
};

/// What an error says, without the id that nlohmann puts before it: "key 'cases' not found".
inline std::string reason_of(std::exception const& problem) {
  std::string_view text = problem.what();
  if (text.starts_with("[json.exception.")) text.remove_prefix(text.find("] ") + 2);
  return std::string{text};
}
