// The command line of the programs that time kernels, and the lines that they print.
#pragma once

#include <regex.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "mixbit/core/dtype.hpp"
#include "timing.hpp"

namespace bench {

/// Picks lines by a POSIX extended regular expression, whose matching takes linear time, unlike std::regex.
class name_filter {
 public:
  static constexpr std::size_t longest = 200;
  name_filter() = default;
  name_filter(name_filter const&) = delete;
  name_filter& operator=(name_filter const&) = delete;
  ~name_filter() {
    if (given_) regfree(&expression_);
  }
  bool set(char const* text) {
    given_ = std::strlen(text) <= longest && regcomp(&expression_, text, REG_EXTENDED | REG_NOSUB) == 0;
    return given_;
  }
  bool matches(std::string const& name) const {
    return !given_ || regexec(&expression_, name.c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t expression_{};
  bool given_ = false;
};

struct kernel_options {
  bool json = false, quick = false, peers = false, filtered = false;
  name_filter filter;
  mutable int lines = 0;  ///< printed so far
};

struct kernel_line {
  std::string_view kernel, format;
  double bytes;  ///< that a call moves, an element
  mixbit::dtype type;
  std::int64_t elements;
  std::int64_t repeats;  ///< calls that were timed together

  std::string name(std::string_view backend) const {
    return std::string{kernel}.append("/").append(format).append("/").append(backend).append("/")
        .append(name_of(type)).append("/").append(std::to_string(elements));
  }
};

inline void print(kernel_options const& o, kernel_line const& l, std::string_view backend, comparison const& c,
                  char const* peer) {
  double const rate = static_cast<double>(l.elements * l.repeats) / c.kernel / 1e9;
  auto const kernel = std::string{l.kernel}, format = std::string{l.format}, on = std::string{backend};
  auto const type = std::string{name_of(l.type)};
  auto const size = static_cast<long long>(l.elements);
  bool const compared = peer && c.peer_to_kernel > 0;
  if (o.json) {
    char text[96] = "null,\"ratio_to_peer\":null";
    if (compared) std::snprintf(text, sizeof text, "\"%s\",\"ratio_to_peer\":%.4g", peer, c.peer_to_kernel);
    std::printf("{\"kernel\":\"%s\",\"format\":\"%s\",\"backend\":\"%s\",\"dtype\":\"%s\",\"elements\":%lld,"
                "\"gelem_s\":%.4g,\"gb_s\":%.4g,\"ratio_to_copy\":%.4g,\"peer\":%s}\n",
                kernel.c_str(), format.c_str(), on.c_str(), type.c_str(), size, rate, rate * l.bytes, c.copy_to_kernel,
                text);
  } else {
    std::printf("%-14s %-13s %-17s %-8s %9lld  %7.3f Gelem/s %7.2f GB/s  %6.3f of a copy", kernel.c_str(),
                format.c_str(), on.c_str(), type.c_str(), size, rate, rate * l.bytes, c.copy_to_kernel);
    std::printf(compared ? "  %6.2f x %s\n" : "\n", c.peer_to_kernel, peer);
  }
  std::fflush(stdout);
  ++o.lines;
}

/// Reads the command line. Returns -1, or the status to exit with.
inline int parse(kernel_options& o, char const* program, bool has_peers, int count, char** arguments) {
  std::string const synopsis =
      std::string{program} + " [--json] [--quick]" + (has_peers ? " [--peers]" : "") + " [--filter REGEX]";
  auto const usage = [&](std::string_view what, std::string const& why) {
    std::fprintf(stderr, "%s: '%s' %s; %s\n", program, std::string{what.substr(0, 80)}.c_str(), why.c_str(),
                 synopsis.c_str());
    return 2;
  };
  for (int i = 1; i < count; ++i) {
    std::string_view const option = arguments[i];
    if (option == "--help") return std::printf("%s\n", synopsis.c_str()), 0;
    bool* const flag = option == "--json" ? &o.json : option == "--quick" ? &o.quick
                       : option == "--peers" && has_peers ? &o.peers : option == "--filter" ? &o.filtered : nullptr;
    if (flag == nullptr || *flag) return usage(option, flag == nullptr ? "is an unknown option" : "is given twice");
    *flag = true;
    if (flag != &o.filtered) continue;
    if (++i == count) return usage(option, "is given without its regular expression");
    if (!o.filter.set(arguments[i]))
      return usage(arguments[i],
                   "is no regular expression of at most " + std::to_string(name_filter::longest) + " bytes");
  }
  return -1;
}

/// The status of a run that has printed its lines.
inline int finish(kernel_options const& o, char const* program) {
  if (o.lines == 0) return std::fprintf(stderr, "%s: --filter matches no line that would be printed\n", program), 2;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
  return std::fprintf(stderr, "%s: standard output: %s\n", program, std::strerror(errno)), 2;
}

}  // namespace bench
