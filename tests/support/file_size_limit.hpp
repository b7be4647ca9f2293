// A file size limit, which is a full disk to a program.
#pragma once

#include <signal.h>
#include <sys/resource.h>

namespace mixbit::test {

/// While it lives, no file can grow beyond `bytes`; keep checks, which may print, outside.
class file_size_limit {
 public:
  explicit file_size_limit(rlim_t bytes) : handler_{::signal(SIGXFSZ, SIG_IGN)} {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit const limited{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limited);
  }
  ~file_size_limit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

}  // namespace mixbit::test
