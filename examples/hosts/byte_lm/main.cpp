// byte_lm: from a trained model to a mixed-precision checkpoint. See options.hpp for the command line.
#include <cstdio>
#include <thread>
#include <vector>

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

/// Names of presets among them are files' too where such a file is.
std::vector<byte_lm::input_file> inputs_of(byte_lm::options const& o) {
  std::vector<byte_lm::input_file> all{
      {"--text", o.text}, {"--windows", o.windows}, {"--latency", o.latency}, {"--plan", o.plan}};
  for (auto const& name : o.formats) all.push_back({"--formats", name});
  for (auto const& name : o.preset) all.push_back({"--preset", name});
  return all;
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
    byte_lm::check_inputs(inputs_of(options), options.model, options.dry_run ? "" : options.out, options.resolved);
    mixbit::thread_pool pool{options.threads.value_or(static_cast<int>(std::thread::hardware_concurrency()))};
    byte_lm::job{options, pool}.run();
    if (!options.dry_run) flush_results(options.out);
    return 0;
  });
}
