// A peer that is a Python script of bench/peers and answers with its last line.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace bench {

/// Runs python3, or MIXBIT_PYTHON, with the script and its argument. Empty where that cannot be run.
inline std::string last_line_of(char const* script, std::string const& argument) {
  char const* const chosen = std::getenv("MIXBIT_PYTHON");
  std::string const python = chosen ? chosen : "python3";
  std::string const command =
      "'" + python + "' '" MIXBIT_BENCH_DIR "/peers/" + script + "' '" + argument + "' 2>/dev/null";
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::string last;
  for (char text[512]; std::fgets(text, sizeof text, pipe);) last = text;
  ::pclose(pipe);
  while (!last.empty() && last.back() == '\n') last.pop_back();
  return last;
}

/// Asks the script whether its library is there; where not, `skipped: NAME: WHY` says so on stderr.
inline bool is_peer_there(char const* name, char const* script) {
  std::string const answer = last_line_of(script, "");
  if (answer != "ready")
    std::fprintf(stderr, "skipped: %s: %s\n", name, answer.empty() ? "python3 cannot be run" : answer.c_str());
  return answer == "ready";
}

}  // namespace bench
