// The command line of a benchmark that takes --json and nothing else.
#pragma once

#include <cstdio>
#include <exception>
#include <string_view>

namespace bench {

/// Calls measure(json) and gives the status that the program ends with. An option that is unknown or repeated, and what
/// is thrown, is a line on stderr and status 2; --help is told without measuring.
template <class F>
int with_json_option(char const* program, int argc, char** argv, F&& measure) try {
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view const option{argv[i]};
    if (option == "--help" && argc == 2)
      return std::printf("%s [--json]\n  --json   one JSON object a line\n", program), 0;
    if (option != "--json" || json) {
      std::fprintf(stderr, "%s: '%s' is %s; %s [--json]\n", program, argv[i],
                   option == "--json" ? "given twice" : "an unknown option", program);
      return 2;
    }
    json = true;
  }
  measure(json);
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "%s: %s\n", program, problem.what());
  return 2;
}

}  // namespace bench
