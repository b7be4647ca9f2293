// A progress bar with the time left on a terminal; plain lines, a few a phase, elsewhere.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace byte_lm {

class progress {
 public:
  explicit progress(std::FILE* out = stderr) : out_{out}, terminal_{isatty(fileno(out)) != 0} {}

  /// `done` of `total` steps of a phase are over; a new phase starts the clock anew.
  void show(std::string_view phase, int done, int total) {
    auto const now = std::chrono::steady_clock::now();
    if (phase != phase_) {
      phase_ = phase;
      start_ = last_;
    }
    last_ = now;
    double const spent = std::chrono::duration<double>(now - start_).count();
    double const left = done > 0 ? spent / done * (total - done) : 0;
    if (terminal_)
      draw(done, total, left);
    else if (done == total || done * 4 / total != (done - 1) * 4 / total)
      std::fprintf(out_, "%s: %d of %d, %.1f s left\n", phase_.c_str(), done, total, left);
    if (terminal_ && done == total) std::fputc('\n', out_);
    std::fflush(out_);
  }

 private:
  void draw(int done, int total, double left) {
    constexpr int width = 30;
    int const filled = done * width / total;
    std::string const bar = std::string(static_cast<std::size_t>(filled), '#') +
                            std::string(static_cast<std::size_t>(width - filled), '.');
    std::fprintf(out_, "\r%-10s [%s] %d/%d, %.1f s left ", phase_.c_str(), bar.c_str(), done, total, left);
  }

  std::FILE* out_;
  bool terminal_;
  std::string phase_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
};

}  // namespace byte_lm
