#include "progress.hpp"

#include <unistd.h>

#include <algorithm>

namespace quantize_checkpoint {

std::string bytes_text(double bytes) {
  constexpr char const* units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
  return text;
}

progress::progress(char const* phase, std::int64_t total, std::int64_t skipped)
    : phase_{phase},
      total_{std::max<std::int64_t>(total, 1)},
      skipped_{skipped},
      shown_quarter_{skipped * 4 / total_},
      terminal_{isatty(STDERR_FILENO) != 0} {}

progress::~progress() {
  if (drawn_) std::fputc('\n', stderr);
}

void progress::show(std::int64_t done) {
  auto const now = clock::now();
  bool const is_last = done >= total_;
  std::int64_t const quarter = done * 4 / total_;
  if (terminal_ ? !is_last && now - drawn_at_ < std::chrono::milliseconds{100} : quarter == shown_quarter_) return;
  shown_quarter_ = quarter;
  drawn_at_ = now;
  double const seconds = std::max(std::chrono::duration<double>(now - start_).count(), 1e-6);
  double const speed = static_cast<double>(done - skipped_) / seconds;
  double const left = speed > 0 ? static_cast<double>(total_ - done) / speed : 0;
  std::string const text = bytes_text(static_cast<double>(done)) + " of " + bytes_text(static_cast<double>(total_)) +
                           ", " + bytes_text(speed) + "/s";
  if (!terminal_) {
    std::fprintf(stderr, "%s: %s, %.1f s left\n", phase_, text.c_str(), left);
    return;
  }
  constexpr std::int64_t width = 24;
  auto const filled = static_cast<std::size_t>(done * width / total_);
  std::string const bar = std::string(filled, '#') + std::string(static_cast<std::size_t>(width) - filled, '.');
  std::fprintf(stderr, "\r%s [%s] %s, %.0f s left   ", phase_, bar.c_str(), text.c_str(), left);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace quantize_checkpoint
