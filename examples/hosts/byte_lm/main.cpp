// byte_lm: from a trained model to a mixed-precision checkpoint. See options.hpp for the command line.
#include <cstdio>
#include <thread>

#include "../../run_program.hpp"
#include "quantization.hpp"

namespace {

/// What was printed may not get out though every file is written; the error says that they are.
void flush_results(std::string const& out) {
  try {
    flush_output();
  } catch (mixbit::error const& e) {
    mixbit::fail(e.id(), e.message(), "; every file of --out ", mixbit::in_quotes(out), " is written, and complete");
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("byte_lm", [&] {
    auto const options = byte_lm::parse_options(argc, argv);
    if (options.help) {
      std::fputs(byte_lm::usage_text, stdout);
      return 0;
    }
    if (!options.dry_run) byte_lm::check_folders(options.model, options.out, options.checkpoint);
    mixbit::thread_pool pool{options.threads.value_or(static_cast<int>(std::thread::hardware_concurrency()))};
    byte_lm::job{options, pool}.run();
    if (!options.dry_run) flush_results(options.out);
    return 0;
  });
}
