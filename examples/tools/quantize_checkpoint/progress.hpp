// A progress bar in bytes, with speed and time left, on a terminal; a line each quarter elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace quantize_checkpoint {

class progress {
 public:
  /// `skipped` bytes of `total` were done by an earlier run.
  progress(char const* phase, std::int64_t total, std::int64_t skipped = 0);
  ~progress();
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;

  void show(std::int64_t done);

 private:
  using clock = std::chrono::steady_clock;

  char const* phase_;
  std::int64_t total_, skipped_, shown_quarter_ = 0;
  bool terminal_, drawn_ = false;
  clock::time_point start_ = clock::now(), drawn_at_ = {};
};

/// "1.50 GiB".
std::string bytes_text(double bytes);

}  // namespace quantize_checkpoint
