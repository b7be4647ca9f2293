// Key/value caches in compressed-tensors checkpoints: the scales and the scheme, what is refused, and that the package
// loads them and casts keys and values as the model does.
#include "mixbit/io/ct_kv_cache.hpp"

#include <doctest/doctest.h>

#include <deque>
#include <string>
#include <tuple>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/io/npz.hpp"
#include "support/cache_bench.hpp"
#include "support/ct_bench.hpp"
#include "support/error_text.hpp"
#include "support/python.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

using attentions = cache_bench<ct_bench>;

constexpr char const* fp8_scheme = R"({"num_bits":8,"type":"float","symmetric":true,"strategy":"tensor",)"
                                   R"("group_size":null,"dynamic":false})";

/// Attentions of the package's kind, loaded from the file; what their caches make of some keys and values is compared
/// by the bits. Prints what differs.
constexpr char const* load_and_cast = R"(
import json, sys, torch
import numpy as np
from safetensors.torch import load_file
from transformers import LlamaConfig
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.quantization.lifecycle import apply_quantization_config
class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k_proj = torch.nn.Linear(32, 4, bias=False)
        self.v_proj = torch.nn.Linear(32, 4, bias=False)
    def forward(self, x, past_key_values=None): return x
class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()
model = torch.nn.Module()
model.l = torch.nn.ModuleList([Layer(), Layer()])
model.config = LlamaConfig(num_attention_heads=1, num_key_value_heads=1, hidden_size=4)
document = json.load(open(sys.argv[1] + "/config.json"))["quantization_config"]
config = QuantizationConfig.model_validate(document)
apply_quantization_config(model, config, show_progress=False)
tensors = load_file(sys.argv[1] + "/model.safetensors")
own = {n: p for n, p in model.state_dict().items() if "_proj" not in n}
for name, p in own.items():
    if name not in tensors: print("missing", name)
    elif p.shape != tensors[name].shape: print(name, "is", list(tensors[name].shape), "and not", list(p.shape))
for name in tensors:
    if "_proj" not in name and name not in own: print("unexpected", name)
model.load_state_dict({n: t for n, t in tensors.items() if n in own}, strict=False)
for i, layer in enumerate(model.l):
    data = np.load(sys.argv[2])
    x = torch.from_numpy(data["x"]).reshape(1, 1, -1, 4)
    for what, made in zip(("keys", "values"), layer.self_attn.kv_cache(x, x)):
        if made.flatten().tolist() != data[what + str(i)].flatten().tolist(): print(what, i, "differ")
)";

/// What a quantizer makes of these.
plain_tensor cast(model<cpu_backend>& m, std::string const& module, char const* quantizer, plain_tensor x) {
  for (auto const& ref : m.modules()) {
    if (ref.name != module) continue;
    auto& q = ref.slots->shared_site()->quantizers().named(quantizer)->members().front();
    arena scratch;
    tensor_ref const y{x.shape, x.values.data()};
    q.quantize(m.device(), scratch, y, y);
  }
  return x;
}

}  // namespace

TEST_CASE("ct kv cache: a scale of keys and of values in the attention, and one scheme for the model") {
  attentions a;
  a.quantize(with_cache("FP8_KV_CFG"));
  CHECK(a.run_ct().empty());
  CHECK(a.scale("l.0.self_attn.k_scale") == 7.0f / 448.0f);
  CHECK(a.scale("l.0.self_attn.v_scale") == 3.0f / 448.0f);
  CHECK(a.scale("l.1.self_attn.k_scale") == 5.0f / 448.0f);
  CHECK(a.scale("l.1.self_attn.v_scale") == 1.0f);
  CHECK(a.file().at("l.1.self_attn.v_scale").same_shape(dense_geometry(dtype::f32, {1})));
  CHECK_FALSE(a.file().contains("l.0.self_attn.k_proj.k_scale"));
  auto const config = a.quantization();
  CHECK(config.at("kv_cache_scheme").dump() == fp8_scheme);
  CHECK(config.at("format") == "float-quantized");
  CHECK(config.at("ignore").dump() == R"(["lm_head"])");
}

TEST_CASE("ct kv cache: it may be all that is quantized, or not be there") {
  attentions a;
  a.quantize(cache_alone(whole({4, 3}), whole({4, 3})));
  CHECK(a.run_ct().empty());
  auto const config = a.quantization();
  CHECK(config.at("kv_cache_scheme").dump() == fp8_scheme);
  CHECK(config.at("format") == "dense");
  CHECK(config.at("config_groups").empty());
  CHECK(config.at("ignore").dump() == R"(["l.0.self_attn.k_proj","lm_head"])");
  disable_quantizer(*a.m, "*_bmm_quantizer");
  CHECK(mentions(a.run_ct(), "no module is quantized"));
  CHECK_FALSE(a.json("config.json").contains("quantization_config"));
  attentions weights;
  weights.quantize(preset("FP8_DEFAULT_CFG"));
  weights.run_ct();
  CHECK(weights.quantization().at("kv_cache_scheme").is_null());
}

TEST_CASE("ct kv cache: zeros alone are said, since loaders divide by the scale") {
  attentions a;
  a.quantize(with_cache("FP8_KV_CFG"), 0.0f);
  CHECK(mentions(a.run_ct(), "l.0.self_attn.v_bmm_quantizer: was always shown zeros"));
}

TEST_CASE("ct kv cache: keys without values, other formats and an attention left out are refused by name") {
  auto const eight = whole(8), fp8 = whole({4, 3}), channels = per_axis({4, 3}, -1);
  auto off = fp8;
  off.enable = false;
  for (auto const& [keys, values, said] :
       {std::tuple{fp8, off, "values not quantized"}, {off, fp8, "keys not quantized"}, {eight, eight, "keys int8"},
        {fp8, eight, "keys e4m3 per tensor, static with values int8"}, {channels, fp8, "keys e4m3 axis -1"},
        {dynamic(fp8), dynamic(fp8), "e4m3 per tensor, dynamic"}, {nvfp4(), nvfp4(), "keys e2m1 two_level"}}) {
    attentions a;
    a.quantize(cache_alone(keys, values));
    auto const text = error_text(error_id::format_value, [&] { a.run_ct(); });
    CHECK_MESSAGE(says(text, "l.0.self_attn: compressed-tensors has no form", "loaders take FP8", said), text);
    CHECK_FALSE(std::filesystem::exists(a.out()));
  }
  attentions apart, queries;
  auto config = with_cache("FP8_KV_CFG");
  config.entries.push_back({"l.1.*", std::nullopt, std::nullopt, false});
  apart.quantize(config);
  CHECK(says(error_text(error_id::format_value, [&] { apart.run_ct(); }),
             "l.0.self_attn and l.1.self_attn differ in their key/value caches: FP8 and not quantized"));
  config = with_cache("FP8_KV_CFG");
  turn_on(config, "*q_bmm_quantizer", dynamic(fp8));
  queries.quantize(config);
  auto const text = error_text(error_id::format_value, [&] { queries.run_ct(); });
  CHECK_MESSAGE(says(text, "l.0.self_attn.q_bmm_quantizer: compressed-tensors has no form", "disable"), text);
}

TEST_CASE("ct kv cache: one that saw no data is refused, and so is a source that has a scale already") {
  attentions a;
  a.quantize(with_cache("FP8_KV_CFG"));
  set_quantizer_attributes(*a.m, "l.1.self_attn.v_bmm_quantizer", whole({4, 3}));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { a.run_ct(); }), "l.1.self_attn.v_bmm_quantizer"));
  attentions c;
  c.tensors.emplace_back("l.0.self_attn.k_scale", make_weight({1}));
  c.write_source();
  c.quantize(with_cache("FP8_KV_CFG"));
  CHECK(says(error_text(error_id::file_content, [&] { c.run_ct(); }), "'l.0.self_attn.k_scale' already"));
}

TEST_CASE("ct kv cache: the package loads the scales and casts keys and values as the model does") {
  if (skipped_without_python("compressed-tensors caches read by the package", {"compressed_tensors"})) return;
  for (auto const& config : {with_cache("FP8_KV_CFG"), cache_alone(whole({4, 3}), whole({4, 3}))}) {
    attentions a;
    a.quantize(config);
    a.run_ct();
    auto const x = make_weight({16, 4});
    std::deque<plain_tensor> made;
    std::vector<named_tensor> arrays{{"x", {x.shape, x.values.data()}}};
    for (auto const& [name, module, quantizer] : {std::tuple{"keys0", "l.0.self_attn", "k_bmm_quantizer"},
                                                  {"keys1", "l.1.self_attn", "k_bmm_quantizer"},
                                                  {"values0", "l.0.self_attn", "v_bmm_quantizer"},
                                                  {"values1", "l.1.self_attn", "v_bmm_quantizer"}}) {
      auto const& y = made.emplace_back(cast(*a.m, module, quantizer, x));
      CHECK(y.values != x.values);
      arrays.push_back({name, {y.shape, y.values.data()}});
    }
    write_npz(a.folder / "cast.npz", arrays);
    REQUIRE(run_python(load_and_cast, {a.out(), a.folder / "cast.npz"}) == "");
  }
}
