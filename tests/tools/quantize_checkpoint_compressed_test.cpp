// quantize_checkpoint --to compressed-tensors: the files that the library's export writes of the same model, byte for
// byte, though the weights stream through it some rows at a time.
#include <doctest/doctest.h>

#include <string>

#include "examples/tools/quantize_checkpoint/job.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/io/ct_checkpoint.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

struct tool_bench : export_bench {
  tool_bench() {
    config["tie_word_embeddings"] = true;
    tensors.emplace_back("embed.weight", make_weight({5, 128}));
    add("a.fc", make_weight({7, 256}));
    add("b.fc", make_weight({130, 128}, 2));
  }
  /// Exports from the host, and runs the program on the same source.
  void run_both(char const* preset_name) {
    write_source();
    m = std::make_unique<mixbit::model<cpu_backend>>(host);
    mixbit::quantize(*m, preset(preset_name));
    export_ct_checkpoint(*m, source(), out());
    quantize_checkpoint::run(program(preset_name));
  }
  quantize_checkpoint::options program(char const* preset_name) const {
    quantize_checkpoint::options o;
    o.model = source().string();
    o.out = (folder / "tool").string();
    o.to = "compressed-tensors";
    o.preset = preset_name;
    o.threads = 2;
    return o;
  }
};

}  // namespace

TEST_CASE("quantize_checkpoint: compressed-tensors' files are those of the library's export") {
  for (char const* name : {"INT8_WEIGHT_ONLY_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "W4A16_NVFP4_CFG",
                           "MXFP8_DEFAULT_CFG", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "FP8_PER_CHANNEL_PER_TOKEN_CFG"}) {
    tool_bench b;
    b.run_both(name);
    for (char const* file : {"model.safetensors", "config.json"})
      CHECK_MESSAGE(read_text(b.out() / file) == read_text(b.folder / "tool" / file), name << ' ' << file);
    CHECK_FALSE(std::filesystem::exists(b.folder / "tool" / "hf_quant_config.json"));
  }
}

TEST_CASE("quantize_checkpoint: what compressed-tensors has no form for is refused by format and layer") {
  tool_bench b;
  b.add("c.fc", make_weight({4, 40}));
  b.write_source();
  auto const text = error_text(error_id::format_value,
                               [&] { quantize_checkpoint::run(b.program("INT4_BLOCKWISE_WEIGHT_ONLY_CFG")); });
  CHECK_MESSAGE(says(text, "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "c.fc: rows of 40 elements"), text);
  CHECK_FALSE(std::filesystem::exists(b.folder / "tool"));
}
