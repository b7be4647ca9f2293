// quantize_checkpoint --to gguf: the file that the library's export writes of the same model, byte for byte, though the
// weights stream through it some rows at a time; and what it refuses, with nothing written.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "examples/tools/quantize_checkpoint/gguf_layer.hpp"
#include "examples/tools/quantize_checkpoint/job.hpp"
#include "mixbit/io/gguf_checkpoint.hpp"
#include "support/checkpoint_program.hpp"
#include "support/error_text.hpp"
#include "support/gguf_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

constexpr std::int64_t least_memory = (std::int64_t{49} << 20) + 1;  // of which 48 MiB are the program's

struct gguf_tool : llama {
  using llama::llama;
  std::filesystem::path made() const { return folder / "tool" / "model.gguf"; }

  template <class How>
  quantize_checkpoint::options program(How const& how) const {
    return program_on(*this, "gguf", how);
  }
  quantize_checkpoint::options choosing(double bits, std::vector<std::string> formats) const {
    auto o = program("");
    o.target = effective_bits{bits};
    o.formats = std::move(formats);
    return o;
  }
  /// The file of the library's export of the host.
  std::string exported(quantize_config const& how) {
    m = std::make_unique<mixbit::model<cpu_backend>>(host);
    mixbit::quantize(*m, how);
    round_gguf_scales(*m);
    export_gguf(*m, source(), file());
    return read_text(file());
  }
  std::string refusal(error_id id, quantize_checkpoint::options const& o) const {
    auto const text = error_text(id, [&] { quantize_checkpoint::run(o); });
    CHECK_FALSE(std::filesystem::exists(o.out));
    return text;
  }
};

quantize_config type(char const* name) { return *quantize_checkpoint::gguf_config(name); }

quantize_config mixed() {
  auto config = nothing_on();
  config.name = "MIXED";
  configure_mixed(config);
  return config;
}

/// Makes all values of source and host such that every type holds them.
void coarsen(gguf_tool& b) {
  auto const coarse = [](std::span<float> values) {
    for (float& v : values) v = std::round(v * 16) / 16;
  };
  for (auto& [name, t] : b.tensors) coarse(t.values);
  b.host.walk([&](auto const& m) {
    coarse({static_cast<float*>(m.weight.data), static_cast<std::size_t>(m.weight.size())});
  });
}

/// The source in other types.
void write_source_as(gguf_tool const& b, dtype vectors, dtype matrices) {
  b.write_source();
  cpu_backend device;
  std::vector<std::vector<std::byte>> bytes;
  std::vector<named_tensor> named;
  for (auto const& [name, t] : b.tensors) {
    auto const to = t.shape.rank == 1 ? vectors : matrices;
    bytes.push_back(detail::hf::converted(device, {t.shape, t.values.data()}, to));
    std::span const sizes{t.shape.shape.data(), static_cast<std::size_t>(t.shape.rank)};
    named.push_back({name, {dense_geometry(to, sizes), bytes.back().data()}});
  }
  write_safetensors(b.source() / "model.safetensors", named);
}

}  // namespace

TEST_CASE("quantize_checkpoint: GGUF's bytes are those of the library's export, of each type and of mixtures") {
  auto const mlp_alone = [] {
    auto config = nothing_on();
    config.name = "MLP";
    turn_on(config, "*mlp*weight_quantizer", mxfp4_blocks());
    return config;
  };
  for (auto const& config : {type("Q8_0"), type("Q4_0"), type("MXFP4"), type("NVFP4"), preset("W4A16_NVFP4_CFG"),
                             preset("MXFP4_MLP_WEIGHT_ONLY_CFG"), mixed(), mlp_alone()}) {
    gguf_tool b;
    b.tensors.emplace_back("model.layers.0.self_attn.q_proj.bias", make_weight({64}, 30));
    b.tensors.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", make_weight({8}, 31));
    b.write_source();
    auto const expected = b.exported(config);
    bool const known = quantize_checkpoint::gguf_config(config.name) || !preset_full_name(config.name).empty();
    quantize_checkpoint::run(known ? b.program(config.name) : b.program(config));
    CHECK_MESSAGE(read_text(b.made()) == expected, config.name);
    CHECK(listing(b.folder / "tool") == std::set<std::string>{"model.gguf"});
  }
}

TEST_CASE("quantize_checkpoint: GGUF of a source in half types: matrices stay in theirs, vectors are float32") {
  for (auto const& types : {std::pair{dtype::bf16, dtype::bf16}, {dtype::f16, dtype::f16}, {dtype::f16, dtype::f32}}) {
    gguf_tool b;
    b.tensors.emplace_back("model.layers.0.self_attn.k_proj.bias", make_weight({32}, 30));
    coarsen(b);
    write_source_as(b, types.first, types.second);
    auto config = nothing_on();
    config.name = "UP";
    turn_on(config, "*up_proj.weight_quantizer", blocks(4, {{-1, 32}}));
    auto const expected = b.exported(config);
    quantize_checkpoint::run(b.program(config));
    CHECK(read_text(b.made()) == expected);
  }
}

TEST_CASE("quantize_checkpoint: however little memory there is, GGUF's bytes are the same") {
  for (char const* name : {"Q8_0", "Q4_0", "MXFP4", "NVFP4"}) {
    gguf_tool b{608, 3008};  // parts begin within a head
    std::string const up = "model.layers.0.mlp.up_proj";  // the tensor's scale is not the first rows'
    for (auto& [tensor, t] : b.tensors)
      if (tensor == up + ".weight") t.values.back() = 30.0f;
    b.host.walk([&](auto const& m) {
      if (m.name == up) static_cast<float*>(m.weight.data)[m.weight.size() - 1] = 30.0f;
    });
    b.write_source();
    auto o = b.program(name);
    o.memory = least_memory;
    quantize_checkpoint::run(o);
    CHECK_MESSAGE(read_text(b.made()) == b.exported(type(name)), name);
  }
}

TEST_CASE("quantize_checkpoint: the gguf package reads what fake quantization gives") {
  if (skipped_without_python("quantize_checkpoint's GGUF read by the gguf package", {"gguf"})) return;
  gguf_tool b;
  b.write_source();
  (void)b.exported(mixed());
  quantize_checkpoint::run(b.program(mixed()));
  auto const file = dequantized(b.made(), b.folder / "read.npz");
  auto const weights = b.folded();
  auto const folded = [&](char const* name) { return weights.at(std::string{"model.layers.0."} + name); };
  CHECK(same_values(file, "blk.0.attn_q.weight", rotated(folded("self_attn.q_proj"), 4)));
  CHECK(same_values(file, "blk.0.attn_k.weight", rotated(folded("self_attn.k_proj"), 2)));
  CHECK(same_values(file, "blk.0.attn_v.weight", folded("self_attn.v_proj")));
  CHECK(same_values(file, "blk.0.ffn_down.weight", folded("mlp.down_proj")));
  CHECK(same_values(file, "output_norm.weight", b.source_tensor("model.norm.weight")));
  CHECK(type_in(file, "blk.0.attn_q.weight") == 8);
  CHECK(type_in(file, "blk.0.attn_k.weight") == 2);
  CHECK(type_in(file, "blk.0.attn_output.weight") == 0);
}

TEST_CASE("quantize_checkpoint: under a budget GGUF's own bits count, and the plan gives the same file") {
  gguf_tool b;
  b.write_source();
  auto o = b.choosing(8.5, {"Q8_0"});  // float16 scales: with float32 ones it would be 9
  quantize_checkpoint::run(o);
  CHECK(read_text(b.made()) == b.exported(type("Q8_0")));
  o = b.choosing(5.5, {"Q8_0", "Q4_0", "MXFP4", "NVFP4"});
  quantize_checkpoint::run(o);
  auto const chosen = read_text(b.made());
  auto const bits = read_json_file(b.folder / "tool" / "plan.json").at("achieved").at("effective_bits").get<double>();
  CHECK(bits <= 5.5);
  CHECK(bits > 5);
  auto again = b.program("");
  again.plan = (b.folder / "tool" / "plan.json").string();
  again.out = (b.folder / "again").string();
  quantize_checkpoint::run(again);
  CHECK(read_text(b.folder / "again" / "model.gguf") == chosen);
}

TEST_CASE("quantize_checkpoint: what GGUF has no type or no name for is refused, and nothing is written") {
  gguf_tool b;
  b.write_source();
  auto const value = error_id::format_value, content = error_id::file_content;
  CHECK(says(b.refusal(value, b.program("INT8_WEIGHT_ONLY_CFG")),
             "INT8_WEIGHT_ONLY_CFG: model.layers.0.mlp.down_proj: no type of GGUF holds weight int8"));
  CHECK(says(b.refusal(value, b.program("MXFP4_DEFAULT_CFG")),
             "MXFP4_DEFAULT_CFG: model.layers.0.mlp.down_proj.input_quantizer: GGUF has no place"));
  auto calibrated = blocks(8, {{-1, 32}});
  calibrated.calibrator = calibrator_config{"histogram"};
  auto config = nothing_on();
  config.name = "MINE";
  turn_on(config, "*up_proj.weight_quantizer", calibrated);
  CHECK(says(b.refusal(value, b.program(config)),
             "MINE: model.layers.0.mlp.up_proj.weight_quantizer: is calibrated by 'histogram'"));
  auto given = blocks(8, {{-1, 32}});
  given.constant_amax = 3.0f;
  turn_on(config, "*up_proj.weight_quantizer", given);
  CHECK(says(b.refusal(value, b.program(config)),
             "MINE: model.layers.0.mlp.up_proj.weight_quantizer: constant_amax 3 has a scale that float16"));
  b.config["architectures"] = {"MambaForCausalLM"};
  b.write_source();
  CHECK(says(b.refusal(content, b.choosing(6, {"Q8_0", "Q4_0"})), "model.safetensors'",
             "config.json is no LlamaForCausalLM's"));
  gguf_tool odd{16, 96};
  odd.write_source();
  CHECK(says(odd.refusal(value, odd.program("NVFP4")), "NVFP4: model.layers.0.mlp.down_proj: rows of 96 elements",
             "NVFP4 takes a multiple of 64"));
  odd.tensors.emplace_back("model.layers.0.mamba.in_proj.weight", make_weight({4, 32}));
  odd.write_source();
  CHECK(says(odd.refusal(content, odd.program("Q8_0")), "'model.layers.0.mamba.in_proj.weight' has no name in GGUF"));
  gguf_tool scaled;
  scaled.config["rope_scaling"] = {{"rope_type", "llama3"}};
  scaled.write_source();
  auto const text = scaled.refusal(content, scaled.program("Q8_0"));
  CHECK(says(text, "its rotary embedding is scaled", "llama3"));
  CHECK_MESSAGE(!says(text, "gguf_export_options"), text);  // which nobody has who runs a program
}

TEST_CASE("quantize_checkpoint: a format that GGUF has no type for is refused before a weight is read") {
  gguf_tool b;
  b.tensors[2].second.values[70] = std::numeric_limits<float>::quiet_NaN();
  b.write_source();
  CHECK(says(b.refusal(error_id::format_value, b.choosing(6, {"Q4_0", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"})),
             "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "no type of GGUF holds weight e4m3"));
  CHECK(says(b.refusal(error_id::search_infeasible, b.choosing(4.4, {"Q4_0"})), "4.5 to 16 bits", "can be reached"));
  CHECK(says(b.refusal(error_id::file_content, b.choosing(6, {"Q4_0"})), "NaN"));
  b.config["architectures"] = {"Other"};
  b.write_source();
  CHECK(says(b.refusal(error_id::file_content, b.choosing(6, {"Q4_0"})), "no LlamaForCausalLM's"));
}

TEST_CASE("quantize_checkpoint: weights that GGUF cannot hold leave nothing of a file that was begun") {
  gguf_tool b;
  for (auto& [name, t] : b.tensors)
    if (name == "model.layers.0.self_attn.v_proj.weight") t.values[2 * 64 + 33] = 1e6f;  // the last that is quantized
  b.write_source();
  CHECK(says(b.refusal(error_id::format_amax, b.program("Q4_0")),
             "'model.layers.0.self_attn.v_proj.weight': the scale of block 5 is 142857", "Q4_0 has float16 scales"));
}
