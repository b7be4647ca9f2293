// compressed-tensors checkpoints: what their weights decompress to, here by the layout's description and again by the
// compressed-tensors package of PyPI, is what the model simulates, bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <set>

#include "mixbit/io/npz.hpp"
#include "support/ct_bench.hpp"
#include "support/error_text.hpp"
#include "support/python.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// As transformers loads a checkpoint: layers of the source's shapes are made, quantized by the config, compressed and
/// filled from the file, whose tensors are to be the very ones that the package has, and decompressed.
constexpr char const* load_and_decompress = R"(
import json, sys, glob, numpy as np, torch
from safetensors.torch import load_file
from tqdm import tqdm
tqdm.__init__ = (lambda init: lambda self, *a, **k: init(self, *a, **{**k, "disable": True}))(tqdm.__init__)
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.quantization.lifecycle import apply_quantization_config
def load(folder):
    return {k: v for f in glob.glob(folder + "/*.safetensors") for k, v in load_file(f).items()}
def run(source, folder, out):
    tensors = load(folder)
    model = torch.nn.Module()
    for name, w in load(source).items():
        at = model
        *path, leaf = name.removesuffix(".weight").split(".")
        for part in path:
            if not hasattr(at, part): at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.add_module(leaf, torch.nn.Linear(w.shape[1], w.shape[0], bias=False))
    config = QuantizationConfig.model_validate(json.load(open(folder + "/config.json"))["quantization_config"])
    for scheme in config.config_groups.values():
        inferred = infer_module_format(torch.nn.Linear, scheme).value
        if inferred != scheme.format and not (inferred == "naive-quantized" and not scheme.input_activations):
            print("format", scheme.format, "where the package writes", inferred)
    apply_quantization_config(model, config, show_progress=False)
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    for name, own in model.state_dict().items():
        if name not in tensors: print("missing", name)
        elif own.dtype != tensors[name].dtype or own.shape != tensors[name].shape:
            print(name, "is", tensors[name].dtype, list(tensors[name].shape), "and not", own.dtype, list(own.shape))
    for name in tensors.keys() - model.state_dict().keys(): print("unexpected", name)
    model.load_state_dict(tensors)
    compressor.decompress_model(model)
    np.savez(out, **{n.removesuffix(".weight"): p.float().detach().numpy()
                     for n, p in model.named_parameters() if n.endswith(".weight")})
for line in open(sys.argv[1]):
    run(*line.rstrip("\n").split("|"))
)";

/// Decompresses all benches' outputs in one run of Python; their weights are then in `folder`/read.npz of each.
std::string decompress(std::vector<ct_bench*> const& benches) {
  temporary_folder const list;
  std::string lines;
  for (auto const* const b : benches)
    lines += b->source().string() + '|' + b->out().string() + '|' + (b->folder / "read.npz").string() + '\n';
  write_text(list / "list", lines);
  return run_python(load_and_decompress, {list / "list"});
}

std::vector<float> read_back(ct_bench const& b, std::string const& name) {
  auto const file = npz_file::open(b.folder / "read.npz");
  auto const array = file.read(name);
  auto const t = array.tensor();
  return {t.as<float>(), t.as<float>() + t.size()};
}

/// The layers of a network in as many forms as it has layers.
void make_mixed(ct_bench& b) {
  b.tensors.emplace_back("model.plain.weight", make_weight({3, 8}));
  for (char const* name : {"l.q_proj", "l.o_proj", "l.gate", "l.down", "l.up", "l.last"}) b.add_layer(name, 6, 64);
  b.host.add("model.plain", b.tensors.front().second);
  b.quantize(
      [](auto& c) {
        turn_on(c, "*q_proj.weight_quantizer", blocks(4, {{-1, 32}}));
        turn_on(c, "*o_proj.weight_quantizer", blocks(4, {{-1, 16}}));
        turn_on(c, "*gate.weight_quantizer", whole({4, 3}));
        turn_on(c, "*gate.input_quantizer", whole({4, 3}));
        turn_on(c, "*down.weight_quantizer", nvfp4());
        turn_on(c, "*down.input_quantizer", nvfp4());
        turn_on(c, "*up.weight_quantizer", mxfp8());
        turn_on(c, "*last.weight_quantizer", per_axis(8, 0));
        turn_on(c, "*last.input_quantizer", per_token(8));
      },
      [&] { b.show_all(); });
}

}  // namespace

TEST_CASE("compressed-tensors: every form holds by its description what the model simulates, bit for bit") {
  for (auto const& c : ct_cases()) {
    ct_bench b{c};
    b.run_ct();
    CHECK(b.quantization().at("format") == c.format);
    CHECK(b.quantization().at("config_groups").at("group_0").at("format") == c.format);
    auto const read = ct_decoded(b.file(), b.quantization(), "l.fc", 6, c.columns);
    auto const before = b.tensors.front().second.values;
    CHECK_MESSAGE(read == b.folded().at("l.fc"), c.format << ' ' << b.quantization().dump());
    CHECK(read != before);
  }
}

TEST_CASE("compressed-tensors: the package loads every form, and decompresses what the model simulates") {
  if (skipped_without_python("compressed-tensors checkpoints read by the package", {"compressed_tensors"})) return;
  std::deque<ct_bench> benches;
  for (auto const& c : ct_cases()) benches.emplace_back(c);
  make_mixed(benches.emplace_back());
  std::vector<ct_bench*> all;
  for (auto& b : benches) {
    b.run_ct();
    all.push_back(&b);
  }
  REQUIRE(decompress(all) == "");
  for (auto& b : benches)
    for (auto const& layer : b.folded())
      CHECK_MESSAGE(read_back(b, layer.first) == layer.second, layer.first << ' ' << b.quantization().dump());
}

TEST_CASE("compressed-tensors: a mix has a group a form, with its layers by name, and leaves the rest alone") {
  ct_bench b;
  make_mixed(b);
  b.run_ct();
  auto const config = b.quantization();
  CHECK(config.at("format") == "mixed-precision");
  CHECK(config.at("quant_method") == "compressed-tensors");
  CHECK(config.at("quantization_status") == "compressed");
  CHECK(config.at("ignore").dump() == R"(["lm_head","model.plain"])");
  CHECK(config.at("config_groups").size() == 6);
  CHECK(config.at("config_groups").at("group_1").dump() ==
        R"({"targets":["l.o_proj"],"weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"group",)"
        R"("group_size":16,"dynamic":false},"input_activations":null,"output_activations":null,)"
        R"("format":"pack-quantized"})");
  CHECK(b.file().read_as_float("model.plain.weight") == b.tensors.front().second.values);
  auto const file = b.file();
  for (auto const& [name, weight] : b.folded())
    if (name != "model.plain") CHECK(ct_decoded(file, config, name, 6, 64) == weight);
}

TEST_CASE("compressed-tensors: tensors are the form's own, in shape, type and bits") {
  ct_bench packed;
  plain_tensor w{2, 12};
  for (std::size_t i = 0; i < w.values.size(); ++i) w.values[i] = static_cast<float>(static_cast<int>(i % 12) - 7);
  packed.add("fc", w);
  packed.quantize([](auto& c) { turn_on(c, "*weight_quantizer", per_axis(4, 0)); });
  packed.run_ct();
  auto const file = packed.file();
  CHECK(std::set<std::string>{file.names().begin(), file.names().end()} ==
        std::set<std::string>{"fc.weight_packed", "fc.weight_scale", "fc.weight_shape"});
  auto const words = file.at("fc.weight_packed");
  REQUIRE((words.type == dtype::i32 && words.same_shape(dense_geometry(dtype::i32, {2, 2}))));
  CHECK(words.as<std::uint32_t>()[2] == 0x87654321u);  // -7 is 1, the first in the lowest bits
  CHECK(words.as<std::uint32_t>()[3] == 0xcba9u);      // zeros behind the row
  auto const shape = file.at("fc.weight_shape");
  REQUIRE((shape.type == dtype::i64 && shape.same_shape(dense_geometry(dtype::i64, {2}))));
  CHECK((shape.as<std::int64_t>()[0] == 2 && shape.as<std::int64_t>()[1] == 12));
  CHECK(file.at("fc.weight_scale").same_shape(dense_geometry(dtype::f32, {2, 1})));
}

TEST_CASE("compressed-tensors: static inputs have a scale, NVFP4's a reciprocal; zeros have none") {
  ct_bench fp8{{"", whole({4, 3}), whole({4, 3})}}, fp4{{"", nvfp4(), nvfp4()}}, zero;
  fp8.run_ct();
  CHECK(fp8.file().at("l.fc.input_scale").same_shape(dense_geometry(dtype::f32, {1})));
  CHECK(fp8.file().read_as_float("l.fc.input_scale")[0] == 3.0f / 448.0f);
  fp4.run_ct();
  CHECK(fp4.file().read_as_float("l.fc.input_global_scale")[0] == 1.0f / (3.0f / 2688.0f));
  CHECK(fp4.file().read_as_float("l.fc.weight_global_scale")[0] == 512.0f);
  auto const group = fp4.quantization().at("config_groups").at("group_0");
  CHECK(group.at("input_activations").at("dynamic") == "local");
  CHECK(group.at("weights").at("scale_dtype") == "torch.float8_e4m3fn");
  zero.add("fc", plain_tensor{2, 32});
  zero.quantize([](auto& c) { turn_on(c, "*_quantizer", nvfp4()); c.entries.push_back({"*output*", {}, {}, false}); },
                [&] { zero.host.show("fc", 0.0f); });
  CHECK(mentions(zero.run_ct(), "fc: its input was always zero in calibration; its global scale, which would be"));
  CHECK(zero.file().read_as_float("fc.weight_global_scale")[0] == 1.0f);
  CHECK(zero.file().read_as_float("fc.input_global_scale")[0] == 1.0f);
  for (float const v : ct_decoded(zero.file(), zero.quantization(), "fc", 2, 32)) CHECK(v == 0.0f);
}

TEST_CASE("compressed-tensors: NVFP4 whose global scale is no power of two is within the last bits") {
  ct_bench b;
  b.add_layer("fc", 4, 64);
  for (auto& [name, w] : b.tensors) w.values[7] = 4.7f;
  b.host = {};
  b.host.add("fc", b.tensors.front().second);
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", nvfp4()); });
  b.run_ct();
  auto const read = ct_decoded(b.file(), b.quantization(), "fc", 4, 64), simulated = b.folded().at("fc");
  for (std::size_t i = 0; i < read.size(); ++i)
    CHECK(std::abs(read[i] - simulated[i]) <= std::abs(simulated[i]) * 0x1p-22f);
}

TEST_CASE("compressed-tensors: a tied head that is in no file is ignored, shards have an index, ModelOpt's file goes") {
  ct_bench b;
  b.config["tie_word_embeddings"] = true;
  b.tensors.emplace_back("embed.weight", make_weight({5, 32}));
  b.add_layer("a", 6, 32);
  b.add_layer("b", 6, 32, 2);
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", blocks(4, {{-1, 32}})); });
  b.run();
  CHECK(std::filesystem::exists(b.out() / "hf_quant_config.json"));
  b.run_ct({{}, 200});
  CHECK_FALSE(std::filesystem::exists(b.out() / "hf_quant_config.json"));
  CHECK_FALSE(std::filesystem::exists(b.out() / "model.safetensors"));
  CHECK(std::filesystem::exists(b.out() / "generation_config.json"));
  CHECK(b.json("model.safetensors.index.json").at("weight_map").contains("b.weight_packed"));
  CHECK(b.quantization().at("ignore").dump() == R"(["embed","lm_head"])");
  CHECK(b.quantization().at("config_groups").at("group_0").at("targets").dump() == R"(["Linear"])");
  CHECK(b.json("config.json").at("tie_word_embeddings") == true);
  CHECK_THROWS_AS(export_ct_checkpoint(*b.m, b.source(), b.source() / "inside"), error);
}
