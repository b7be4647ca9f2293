// Exports in ModelOpt's form as ModelOpt itself reads them: its tensor classes (nvidia-modelopt of PyPI) dequantize the
// codes by the scales to what the model simulates, bit for bit, and its exporter makes the same codes of the source's
// weights and the file's scales.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/io/npz.hpp"
#include "mixbit/model/control.hpp"
#include "support/cache_bench.hpp"
#include "support/fused_host.hpp"
#include "support/python.hpp"
#include "support/scaled_input.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Reads SOURCE|OUT|RESULT a line. A layer's class is chosen by what hf_quant_config.json says of it. INT4QTensor has
/// pairs of columns with an offset, and reciprocals for scales: the file's pairs of rows are put in that order.
constexpr char const* read_by_modelopt = R"(
import json, logging, os, sys, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import numpy as np, torch
from safetensors.torch import load_file
from modelopt.torch.export.quant_utils import to_quantized_weight
from modelopt.torch.quantization import extensions, qtensor as q
extensions.get_cuda_ext.extension = None  # it would be compiled; tensors on the CPU do without
f32 = torch.float32
def int4(codes, scale, block):
    rows = torch.stack([codes & 15, codes >> 4], 1).reshape(-1, codes.shape[1]) ^ 8  # two's complement, offset by 8
    packed = rows[:, 0::2] << 4 | rows[:, 1::2]
    return q.INT4QTensor(rows.shape, f32, packed).dequantize(scale=1 / scale, block_sizes={-1: block})
def decode(algo, block, codes, scale, second):
    a = {"scale": scale, "block_sizes": {-1: block}}
    if algo == "FP8": return "fp8", q.FP8QTensor(codes.shape, f32, codes).dequantize(scale=scale)
    if algo == "FP8_PER_CHANNEL_PER_TOKEN":
        return "fp8_pc_pt", q.FP8QTensor(codes.shape, f32, codes).dequantize(scale=scale[:, None])
    if algo == "fp8_pb_wo":
        sizes = {-1: block, -2: block}
        return algo, q.FP8QTensor(codes.shape, f32, codes).dequantize(scale=scale.squeeze((1, 3)), block_sizes=sizes)
    if algo in ("W8A16", "W8A8_SQ_PER_CHANNEL"):
        return "int8_sq", q.INT8QTensor(codes.shape, f32, codes).dequantize(scale=scale[:, None])
    if algo == "MXFP8": return "mxfp8", q.MXFP8QTensor(codes.shape, f32, codes).dequantize(scale=scale)
    if algo == "W4A16_AWQ": return "int4_awq", int4(codes, scale, block)
    if algo == "W4A8_AWQ":
        w = q.FP8QTensor.quantize(int4(codes, scale, block), second)[0]
        return "w4a8_awq", w.dequantize(scale=second)
    shape = torch.Size((codes.shape[0], 2 * codes.shape[1]))
    if algo == "mxfp4": return algo, q.MXFP4QTensor(shape, f32, codes).dequantize(**a)
    if algo in ("NVFP4", "NVFP4_AWQ", "W4A16_NVFP4"):
        return algo.lower(), q.NVFP4QTensor(shape, f32, codes).dequantize(double_scale=second, **a)
    raise ValueError(algo)
def run(source, out, result):
    source, t = load_file(source + "/model.safetensors"), load_file(out + "/model.safetensors")
    whole, read = json.load(open(out + "/hf_quant_config.json"))["quantization"], {}
    for name in sorted(n.removesuffix(".weight_scale") for n in t if n.endswith(".weight_scale")):
        field = whole["quantized_layers"][name] if whole["quant_algo"] == "MIXED_PRECISION" else whole
        codes, scale, second = t[name + ".weight"], t[name + ".weight_scale"], t.get(name + ".weight_scale_2")
        block = codes.shape[0] // scale.shape[0] if scale.dim() == 4 else field.get("group_size")
        format, read[name] = decode(field["quant_algo"], block, codes, scale, second)
        weight, s = source[name + ".weight"], t.get(name + ".pre_quant_scale")
        own = to_quantized_weight(weight if s is None else weight * (1 / s), scale, format, second, block)
        if own.dtype != codes.dtype or not torch.equal(own.view(torch.uint8), codes.view(torch.uint8)):
            print(name, field["quant_algo"], ": ModelOpt's exporter makes other codes")
    x = source.get("cache")
    for name, scale in t.items() if x is not None else ():
        if name.endswith(("k_scale", "v_scale")):
            read[name] = q.FP8QTensor.quantize(x, scale)[0].dequantize(scale=scale)
    np.savez(result, **{n: w.numpy() for n, w in read.items()})
for line in open(sys.argv[1]):
    run(*line.rstrip("\n").split("|"))
)";

/// An export's name in tests/golden/export, where it has one, and what it is made of.
struct modelopt_case {
  std::string name;
  quantize_config config;
  bool scaled_inputs = false;  ///< with a pre_quant_scale
};

/// Blocks of 128 are 16 here, in which a weight of [32,64] has several.
modelopt_case with_small_blocks(std::string name, char const* from, bool scaled_inputs = false) {
  auto config = preset(from);
  for (auto& e : config.entries)
    if (e.cfg)
      for (auto& a : *e.cfg)
        if (a.block_sizes)
          for (auto& axis : a.block_sizes->axes)
            if (axis.size == 128) axis.size = 16;
  config.algorithm = "max";
  return {std::move(name), std::move(config), scaled_inputs};
}

std::vector<modelopt_case> modelopt_cases() {
  return {with_small_blocks("fp8", "FP8_DEFAULT_CFG"),
          with_small_blocks("fp8_pb_wo", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"),
          with_small_blocks("fp8_pc_pt", "FP8_PER_CHANNEL_PER_TOKEN_CFG"),
          with_small_blocks("int4_awq", "INT4_AWQ_CFG", true),
          with_small_blocks("int4 alone", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG"),
          with_small_blocks("int8_sq", "INT8_SMOOTHQUANT_CFG", true),
          with_small_blocks("int8_wo", "INT8_WEIGHT_ONLY_CFG"),
          with_small_blocks("mxfp8", "MXFP8_DEFAULT_CFG"),
          with_small_blocks("mxfp4", "MXFP4_DEFAULT_CFG"),
          with_small_blocks("nvfp4", "NVFP4_DEFAULT_CFG"),
          with_small_blocks("nvfp4 with pre_quant_scale", "NVFP4_AWQ_LITE_CFG", true),
          with_small_blocks("nvfp4 of four over six", "NVFP4_FOUR_OVER_SIX_CFG"),
          with_small_blocks("w4a16_nvfp4", "W4A16_NVFP4_CFG"),
          with_small_blocks("w4a8_awq", "W4A8_AWQ_BETA_CFG", true)};
}

/// For INT4 each block of 16 begins with its largest value, which its pre_quant_scale of 1 leaves: 7 times a power of
/// two, so that its scale has a reciprocal in float32, which is what INT4QTensor has in its place. For MXFP4 no value
/// is a tie, which MXFP4QTensor takes down where policy `stored` takes the even code.
plain_tensor modelopt_weight(quantize_config const& config) {
  auto w = make_weight({32, 64});
  bool const int4 = std::any_of(config.entries.begin(), config.entries.end(), [](auto const& e) {
    return e.cfg && e.cfg->front().num_bits == bit_spec{4} && e.cfg->front().block_sizes;
  });
  for (std::size_t i = 0; int4 && i < w.values.size(); i += 16) w.values[i] = i % 32 == 0 ? 28.0f : -56.0f;
  return w;
}

std::vector<float> block_scales() {
  std::vector<float> s;
  for (int i = 0; i < 64; ++i)
    s.push_back(i % 16 == 0 ? 1.0f : 0.4f + std::abs(std::sin(0.7f * static_cast<float>(i))));
  return s;
}

void export_case(export_bench& b, modelopt_case const& c) {
  auto const show = [&] { b.host.show("l.fc", 3.0f); };
  b.add("l.fc", modelopt_weight(c.config));
  b.quantize([&](auto& what) { what = c.config; }, show);
  if (c.scaled_inputs) {
    scale_input(b, "l.fc", block_scales());
    calibrate(*b.m, "max", show);
  }
  b.run();
}

/// As tests/golden/export/mixed: FP8 beside weights of INT8; and NVFP4.
void export_mixed(export_bench& b) {
  for (char const* name : {"l.o_proj", "l.up", "l.down"}) b.add(name, make_weight({32, 64}, name[2]));
  b.quantize(
      [](auto& c) {
        turn_on(c, "*o_proj.*_quantizer", whole({4, 3}));
        turn_on(c, "*up.weight_quantizer", per_axis(8, 0));
        for (auto const& e : preset("W4A16_NVFP4_CFG").entries)
          if (e.cfg) turn_on(c, "*down.weight_quantizer", e.cfg->front());
        c.entries.push_back({"*output_quantizer", {}, {}, false});
      },
      [&] { b.host.show("l.o_proj", 3.0f); });
  b.run();
}

/// Q(w) of each layer, and of the caches' values, as the model has them.
std::vector<std::pair<std::string, std::vector<float>>> simulated_by(export_bench& b, plain_tensor const& cached) {
  std::vector<std::pair<std::string, std::vector<float>>> all;
  fold_weight(*b.m);
  for (auto const& module : b.m->modules()) {
    if (auto const* const values = module.weight.template as<float>())
      all.push_back({module.name, {values, values + module.weight.size()}});
    for (auto const& [quantizer, name] :
         {std::pair{"k_bmm_quantizer", ".k_proj.k_scale"}, {"v_bmm_quantizer", ".v_proj.v_scale"}}) {
      auto* const q = module.slots->shared_site()->quantizers().named(quantizer);
      if (q == nullptr) continue;
      plain_tensor made = cached;
      arena scratch;
      tensor_ref const y{made.shape, made.values.data()};
      q->members().front().quantize(b.m->device(), scratch, y, y);
      all.push_back({module.name + name, made.values});
    }
  }
  return all;
}

}  // namespace

TEST_CASE("hf modelopt: its classes read every form as the model simulates it, and its exporter makes the same codes") {
  constexpr char const* what = "checkpoints read by ModelOpt's tensor classes";
  if (skipped_without_python(what, {"modelopt", "torch", "safetensors"})) return;
  std::deque<std::pair<std::string, export_bench>> benches;
  for (auto const& c : modelopt_cases()) {
    benches.emplace_back().first = c.name;
    export_case(benches.back().second, c);
  }
  benches.emplace_back().first = "mixed";
  export_mixed(benches.back().second);
  cache_bench<export_bench> caches;
  plain_tensor const cached = make_weight({16, 4}, 9);
  caches.tensors.emplace_back("cache", cached);
  caches.write_source();
  caches.quantize(with_cache("FP8_KV_CFG"));
  caches.run();
  std::vector<std::pair<std::string, export_bench*>> all{{"fp8_kv", &caches}};
  for (auto& [name, b] : benches) all.emplace_back(name, &b);

  temporary_folder const list;
  std::string lines;
  for (auto const& one : all)
    lines += one.second->source().string() + '|' + one.second->out().string() + '|' +
             (one.second->folder / "read.npz").string() + '\n';
  write_text(list / "list", lines);
  REQUIRE(run_python(read_by_modelopt, {list / "list"}) == "");
  for (auto const& one : all) {
    auto const file = npz_file::open(one.second->folder / "read.npz");
    auto const layers = simulated_by(*one.second, cached);
    for (auto const& layer : layers) {
      auto const array = file.read(layer.first);
      auto const t = array.tensor();
      std::vector<float> const read{t.as<float>(), t.as<float>() + t.size()};
      CHECK_MESSAGE(read == layer.second, one.first << ' ' << layer.first);
    }
    CHECK_MESSAGE(file.names().size() == layers.size(), one.first);
  }
}
