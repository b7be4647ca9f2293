// A Hugging Face checkpoint with quantized weights, without a model that runs: what usage_text says.
#include <cstdio>

#include "../../run_program.hpp"
#include "job.hpp"

int main(int argc, char** argv) {
  return run_program("quantize_checkpoint", [&] {
    auto const options = quantize_checkpoint::parse_options(argc, argv);
    if (options.help) std::fputs(quantize_checkpoint::usage_text, stdout);
    else quantize_checkpoint::run(options);
    return 0;
  });
}
