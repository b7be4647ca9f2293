// How a program ends: with 0, or with an error's one line on stderr and exit status 2.
#pragma once

#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <string_view>

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"
#include "mixbit/io/missing_pages.hpp"

/// Throws `file_open` where stdout has not taken all that was printed.
inline void flush_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    mixbit::fail(mixbit::error_id::file_open, "standard output: ",
                 errno != 0 ? std::strerror(errno) : "could not be written");
}

/// As many files at a time as the system lets the program have: a checkpoint's shards stay open while they are read.
inline void raise_file_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &files);
}

/// Runs a program's body, whose result is the exit status where nothing is thrown and stdout takes all.
inline int run_program(char const* name, std::function<int()> const& body) {
  constexpr std::size_t longest_line = 4000;  // an error may quote what was given
  auto const report = [&](std::string_view what) {
    std::fprintf(stderr, "%s: %s\n", name, mixbit::one_line(what, longest_line).c_str());
    return 2;
  };
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is then an error like a full disk,
  mixbit::watch_missing_pages();  // and so is a file that is cut short while it is read
  raise_file_limit();
  try {
    int const status = body();
    mixbit::require_no_missing_pages();
    flush_output();
    return status;
  } catch (mixbit::error const& e) {
    return report(e.message());
  } catch (std::exception const& e) {
    return report(e.what());
  }
}
