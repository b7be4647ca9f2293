// quantize_checkpoint --to compressed-tensors: the files that the library's export writes of the same model, byte for
// byte, though the weights stream through it some rows at a time; and what that form has no place for.
#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "examples/tools/quantize_checkpoint/assignment.hpp"
#include "examples/tools/quantize_checkpoint/job.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/io/ct_checkpoint.hpp"
#include "support/checkpoint_program.hpp"
#include "support/ct_bench.hpp"
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
  void run_both(quantize_config const& how, std::int64_t memory = std::int64_t{1} << 30,
                std::int64_t shard_bytes = default_shard_bytes) {
    write_source();
    m = std::make_unique<mixbit::model<cpu_backend>>(host);
    mixbit::quantize(*m, how);
    export_ct_checkpoint(*m, source(), out(), {.preceding = {}, .shard_bytes = shard_bytes});
    auto o = program(how);
    o.memory = memory;
    o.shard_bytes = shard_bytes;
    quantize_checkpoint::run(o);
  }
  template <class How>
  quantize_checkpoint::options program(How const& how) const {
    return program_on(*this, "compressed-tensors", how);
  }
  /// In how many parts the rows of the last layer are encoded.
  int parts_of_last(quantize_checkpoint::options const& o, std::int64_t memory_for_weights) const {
    hf_source const checkpoint{source()};
    quantize_checkpoint::stored_model stored{checkpoint};
    auto const made = quantize_checkpoint::assign(o, checkpoint, stored, {}, [](auto, auto) {});
    int parts = 0;
    quantize_checkpoint::weight_rows{{}, made.layers.back(), "'f'", memory_for_weights}.encode(
        [&](auto const&) { ++parts; });
    return parts;
  }
  void check_alike(std::string const& what) const {
    for (char const* file : {"model.safetensors", "config.json"})
      CHECK_MESSAGE(read_text(out() / file) == read_text(folder / "tool" / file), what << ' ' << file);
    CHECK_FALSE(std::filesystem::exists(folder / "tool" / "hf_quant_config.json"));
  }
};

quantize_config with(quantizer_attribute_config weight, std::optional<quantizer_attribute_config> input = {}) {
  auto config = nothing_on();
  config.name = "MINE";
  turn_on(config, "*weight_quantizer", std::move(weight));
  if (input) turn_on(config, "*input_quantizer", std::move(*input));
  return config;
}

std::set<std::string> files_of(std::filesystem::path const& folder) {
  std::set<std::string> names;
  for (auto const& entry : std::filesystem::directory_iterator{folder}) names.insert(entry.path().filename().string());
  return names;
}

/// What compressed-tensors has a form for and ModelOpt's form has not.
std::vector<std::pair<char const*, quantize_config>> forms_of_its_own() {
  bit_spec const e4m3{4, 3};
  return {{"int-quantized", with(per_axis(8, 0), per_token(8))},
          {"int-quantized", with(whole(8), per_token(8))},
          {"int-quantized", with(dynamic(whole(8)), per_token(8))},
          {"float-quantized", with(per_axis(e4m3, 0))},
          {"float-quantized", with(whole(e4m3))},
          {"float-quantized", with(blocks(e4m3, {{-1, 32}, {-2, 4}}), dynamic(blocks(e4m3, {{-1, 32}})))},
          {"pack-quantized", with(blocks(8, {{-1, 64}}))},
          {"pack-quantized", with(per_axis(4, 0))},
          {"pack-quantized", with(whole(4))},
          {"mxfp8-quantized", with(mxfp8())}};
}

}  // namespace

TEST_CASE("quantize_checkpoint: compressed-tensors' files are those of the library's export") {
  for (char const* name : {"INT8_WEIGHT_ONLY_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "W4A16_NVFP4_CFG",
                           "MXFP8_DEFAULT_CFG", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "FP8_PER_CHANNEL_PER_TOKEN_CFG"}) {
    tool_bench b;
    b.run_both(preset(name));
    b.check_alike(name);
  }
}

TEST_CASE("quantize_checkpoint: what compressed-tensors alone has a form for is written in it") {
  for (auto const& [format, how] : forms_of_its_own()) {
    tool_bench b;
    b.run_both(how);
    b.check_alike(format);
    auto const config = read_json_file(b.folder / "tool" / "config.json");
    CHECK(config.at("quantization_config").at("format") == format);
    auto modelopt = b.program(how);
    modelopt.to = "modelopt";
    CHECK(says(error_text(error_id::format_value, [&] { quantize_checkpoint::run(modelopt); }),
               "MINE: a.fc: no Hugging Face form"));
  }
}

TEST_CASE("quantize_checkpoint: however little memory there is, compressed-tensors' bytes are the same") {
  constexpr std::int64_t least = (std::int64_t{49} << 20) + 1;  // of which 48 MiB are the program's
  auto forms = forms_of_its_own();
  for (char const* name : {"INT8_WEIGHT_ONLY_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "W4A16_NVFP4_CFG",
                           "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"})
    forms.emplace_back(name, preset(name));
  for (auto const& [name, how] : forms) {
    tool_bench b;
    auto z = make_weight({1101, 256}, 3);
    z.values[1000 * 256] = 9.0f;  // the largest of all is in one part
    b.add("z.fc", z);             // last in the file: what is written too far makes it longer
    b.run_both(how, least);
    b.check_alike(name);
    CHECK(b.parts_of_last(b.program(how), (std::int64_t{1} << 20) + 1) > 3);
  }
}

TEST_CASE("quantize_checkpoint: compressed-tensors' bytes are the same on any number of threads") {
  for (auto const& how : {with(per_axis(4, 0)), with(blocks(8, {{-1, 8}})), with(whole(8), per_token(8))}) {
    tool_bench b;
    b.add("z.fc", make_weight({333, 152}, 3));
    b.tensors.erase(b.tensors.begin() + 1, b.tensors.end() - 1);  // but the embedding and the last
    b.write_source();
    std::vector<std::string> files;
    for (int const threads : {1, 2, 5}) {
      auto o = b.program(how);
      o.threads = threads;
      quantize_checkpoint::run(o);
      files.push_back(read_text(b.folder / "tool" / "model.safetensors"));
      CHECK(files.back() == files.front());
    }
  }
}

TEST_CASE("quantize_checkpoint: layers that loaders fuse share the scale of a whole weight") {
  tool_bench b;
  b.add("l.mlp.gate_proj", make_weight({6, 32}));
  b.add("l.mlp.up_proj", make_weight({6, 32}));
  b.tensors.back().second.values[5] = 30.0f;
  b.write_source();
  quantize_checkpoint::run(b.program(with(whole(8), per_token(8))));
  auto const file = safetensors_file::open(b.folder / "tool" / "model.safetensors");
  for (char const* name : {"l.mlp.gate_proj.weight_scale", "l.mlp.up_proj.weight_scale"})
    CHECK(file.read_as_float(name) == std::vector{30.0f / 127.0f});
  CHECK(file.read_as_float("a.fc.weight_scale")[0] < 0.1f);
}

TEST_CASE("quantize_checkpoint: what compressed-tensors has no form for is refused by format and layer") {
  tool_bench b;
  b.add("c.fc", make_weight({4, 40}));
  b.write_source();
  auto const refusal = [&](auto const& how) {
    auto const text = error_text(error_id::format_value, [&] { quantize_checkpoint::run(b.program(how)); });
    CHECK_FALSE(std::filesystem::exists(b.folder / "tool"));
    return text;
  };
  auto const ragged = refusal("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  CHECK_MESSAGE(says(ragged, "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "c.fc: rows of 40 elements"), ragged);
  auto const needs_data = "has a static scale of its inputs, which needs data that runs through the model";
  CHECK(says(refusal(with(per_axis(8, 0), whole(8))), "MINE: a.fc: int-quantized", needs_data));
  CHECK(says(refusal(with(nvfp4(), nvfp4())), "MINE: a.fc: nvfp4-pack-quantized", needs_data));
  CHECK(says(refusal(with(per_axis(6, 0))), "MINE: a.fc: compressed-tensors has no form"));
}

TEST_CASE("quantize_checkpoint: shards and their index are the export's") {
  for (auto const& [what, how] :
       {std::pair{"packed", with(blocks(4, {{-1, 32}}))}, {"codes", with(per_axis({4, 3}, 0))}}) {
    tool_bench b;
    b.run_both(how, std::int64_t{1} << 30, 9000);
    auto const files = files_of(b.folder / "tool");  // of others the export makes a generation_config.json
    CHECK(files.size() == 5);
    CHECK(files.contains("model-00003-of-00003.safetensors"));
    for (auto const& name : files)
      CHECK_MESSAGE(read_text(b.out() / name) == read_text(b.folder / "tool" / name), what << ' ' << name);
  }
}
