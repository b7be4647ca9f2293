// byte_lm: from a trained model to a mixed-precision checkpoint. See options.hpp for the command line.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <thread>

#include "mixbit/core/quoted.hpp"
#include "quantization.hpp"

/// Of an error, which may quote what was given.
inline constexpr std::size_t longest_line = 4000;

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is then an error like a full disk
  try {
    auto const options = byte_lm::parse_options(argc, argv);
    if (options.help) {
      std::fputs(byte_lm::usage_text, stdout);
    } else {
      if (!options.dry_run) byte_lm::check_folders(options.model, options.out, options.checkpoint);
      mixbit::thread_pool pool{options.threads.value_or(static_cast<int>(std::thread::hardware_concurrency()))};
      byte_lm::job{options, pool}.run();
    }
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
    std::fprintf(stderr, "byte_lm: standard output: %s\n", std::strerror(errno));
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "byte_lm: %s\n", mixbit::one_line(e.message(), longest_line).c_str());
  } catch (std::exception const& e) {
    std::fprintf(stderr, "byte_lm: %s\n", mixbit::one_line(e.what(), longest_line).c_str());
  }
  return 2;
}
