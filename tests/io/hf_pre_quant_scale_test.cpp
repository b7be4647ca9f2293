// Exports of layers whose inputs are scaled by channels (SmoothQuant, AWQ), and of weights with two quantizers.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/io/hf_form.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/shared_state.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"
#include "support/fused_host.hpp"
#include "support/hf_decoded.hpp"
#include "support/scaled_input.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

std::vector<float> scales(std::int64_t count, float step = 0.7f) {
  std::vector<float> s;
  for (std::int64_t i = 0; i < count; ++i) s.push_back(0.3f + std::abs(std::sin(step * static_cast<float>(i + 1))));
  return s;
}

void calibrate_again(export_bench& b) {
  calibrate(*b.m, "max", [&] {
    for (auto const& module : b.m->modules()) b.host.show(module.name, 3.0f);
  });
}

/// Layers of one config, calibrated by max, in blocks of 32 where it has larger ones.
void make(export_bench& b, quantize_config config, std::vector<std::string> const& layers) {
  for (std::size_t i = 0; i < layers.size(); ++i) b.add(layers[i], make_weight({6, 64}, static_cast<int>(i + 1)));
  for (auto& e : config.entries)
    if (e.cfg)
      for (auto& a : *e.cfg)
        if (a.block_sizes && !a.block_sizes->axes.empty() && *a.block_sizes->axes.front().size > 32)
          a.block_sizes->axes.front().size = 32;
  config.algorithm = "max";
  b.write_source();
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
  mixbit::quantize(*b.m, config, [&] {
    for (auto const& layer : layers) b.host.show(layer, 3.0f);
  });
}

std::string refused(export_bench& b, error_id id) {
  return error_text(id, [&] { hf_export<cpu_backend>{*b.m, b.source()}; });
}

}  // namespace

TEST_CASE("pre_quant_scale: in the file, and codes of the weight under its inverse, bit for bit as simulated") {
  struct {
    char const* preset;
    char const* algorithm;
    char const* fields;
  } const cases[] = {
      {"INT4_AWQ_CFG", "W4A16_AWQ", R"("group_size":32,"has_zero_point":false,"pre_quant_scale":true,)"},
      {"W4A8_AWQ_BETA_CFG", "W4A8_AWQ", R"("group_size":32,"has_zero_point":false,"pre_quant_scale":true,)"},
      {"INT8_SMOOTHQUANT_CFG", "W8A8_SQ_PER_CHANNEL", ""},
      {"NVFP4_AWQ_LITE_CFG", "NVFP4_AWQ", R"("group_size":16,"has_zero_point":false,"pre_quant_scale":true,)"}};
  for (auto const& c : cases) {
    CAPTURE(c.preset);
    export_bench b;
    make(b, preset(c.preset), {"mlp.fc"});
    auto const s = scales(64);
    scale_input(b, "mlp.fc", s);
    calibrate_again(b);
    auto const notes = b.run();
    CHECK(mentions(notes, std::string{"vLLM refuses "} + c.algorithm));
    CHECK_FALSE(mentions(notes, "without pre_quant_scale"));
    auto const file = b.file();
    CHECK(file.at("mlp.fc.pre_quant_scale").same_shape(dense_geometry(dtype::f32, {64})));
    CHECK(file.read_as_float("mlp.fc.pre_quant_scale") == s);
    CHECK(b.json("hf_quant_config.json")["quantization"].dump() ==
          std::string{R"({"quant_algo":")"} + c.algorithm + R"(","kv_cache_quant_algo":null,)" + c.fields +
              R"("exclude_modules":[]})");
    CHECK_FALSE(b.json("config.json")["quantization_config"].contains("config_groups"));
    CHECK(file.contains("mlp.fc.input_scale") == (std::string_view{c.preset} != "INT4_AWQ_CFG"));
    auto const decoded = hf_decoded(file, "mlp.fc");
    fold_weight(*b.m);
    auto const weight = b.m->modules().front().weight;
    CHECK(decoded == std::vector<float>(weight.as<float>(), weight.as<float>() + weight.size()));
  }
}

TEST_CASE("pre_quant_scale: in the weight's type where that holds every value, as calibration makes them") {
  using namespace detail::hf;
  auto rounded = scales(5);
  for (float& s : rounded) s = to_float(from_float<bfloat16>(s));
  CHECK(pre_quant_scale_type(dtype::bf16, rounded) == dtype::bf16);
  CHECK(pre_quant_scale_type(dtype::f32, rounded) == dtype::f32);
  CHECK(pre_quant_scale_type(dtype::bf16, scales(5)) == dtype::f32);
  CHECK(pre_quant_scale_type(dtype::f16, {0.5f, 1e-9f}) == dtype::f32);
  auto const bytes = bytes_in(dtype::bf16, rounded);
  REQUIRE(bytes.size() == 2 * rounded.size());
  for (std::size_t i = 0; i < rounded.size(); ++i) {
    bfloat16 held;
    std::memcpy(&held, bytes.data() + 2 * i, 2);
    CHECK(to_float(held) == rounded[i]);
  }
}

TEST_CASE("W4A8: a second scale, the tensor's amax/448, and the same weights without pre_quant_scale") {
  export_bench b;
  make(b, preset("W4A8_AWQ_BETA_CFG"), {"mlp.fc"});
  CHECK(mentions(b.run(), "W4A8_AWQ is written without pre_quant_scale (\"pre_quant_scale\": false)"));
  float amax = 0;
  for (float const w : make_weight({6, 64}).values) amax = std::max(amax, std::abs(w));
  CHECK(b.file().read_as_float("mlp.fc.weight_scale_2")[0] == amax / 448.0f);
  CHECK(b.file().read_as_float("mlp.fc.input_scale")[0] == 3.0f / 448.0f);
  CHECK(b.file().at("mlp.fc.weight_scale_2").rank == 0);
  CHECK_FALSE(b.file().contains("mlp.fc.pre_quant_scale"));
  auto const decoded = hf_decoded(b.file(), "mlp.fc");
  fold_weight(*b.m);
  auto const weight = b.m->modules().front().weight;
  CHECK(decoded == std::vector<float>(weight.as<float>(), weight.as<float>() + weight.size()));
}

TEST_CASE("pre_quant_scale: fused layers that differ in it are refused with both values; share_state makes them one") {
  for (bool const has_none : {false, true}) {
    export_bench b;
    make(b, preset("INT4_AWQ_CFG"), {"l.q_proj", "l.k_proj", "l.o_proj"});
    auto s = scales(64);
    scale_input(b, "l.q_proj", s);
    scale_input(b, "l.o_proj", scales(64, 0.9f));  // of its own input
    s[5] = 2.0f;
    if (!has_none) scale_input(b, "l.k_proj", s);
    calibrate_again(b);
    auto const text = refused(b, error_id::format_value);
    char const* const first = has_none ? "[0]" : "[5]";
    CHECK_MESSAGE(says(text, "l.q_proj and l.k_proj differ in pre_quant_scale", first, "share_state"), text);
    CHECK(says(text, has_none ? "none" : "and 2;"));
    if (has_none) continue;
    share_state(*b.m);
    b.run();
    CHECK(b.file().read_as_float("l.q_proj.pre_quant_scale") == b.file().read_as_float("l.k_proj.pre_quant_scale"));
    CHECK(b.file().read_as_float("l.o_proj.pre_quant_scale") == scales(64, 0.9f));
  }
}

TEST_CASE("pre_quant_scale: fused layers of several formats are named by a note, which no common scale would help") {
  export_bench b;
  make(b, preset("INT4_AWQ_CFG"), {"l.q_proj", "l.k_proj"});
  set_quantizer_attributes(*b.m, "l.k_proj.weight_quantizer", per_axis(8, 0));
  scale_input(b, "l.q_proj", scales(64));
  calibrate_again(b);
  auto const notes = b.run();
  CHECK(mentions(notes, "l.q_proj is W4A16_AWQ, l.k_proj W8A16: vLLM fuses them"));
  CHECK(mentions(notes, "vLLM refuses W4A16_AWQ in MIXED_PRECISION"));
  auto const layers = b.json("hf_quant_config.json")["quantization"]["quantized_layers"];
  CHECK(layers["l.q_proj"]["pre_quant_scale"] == true);
}

TEST_CASE("pre_quant_scale: a checkpoint is of one format whether or not each layer has one") {
  for (auto const& [name, algorithm] : {std::pair{"NVFP4_AWQ_LITE_CFG", "NVFP4_AWQ"}, {"INT4_AWQ_CFG", "W4A16_AWQ"}}) {
    export_bench b;
    make(b, preset(name), {"a.up", "a.down"});
    scale_input(b, "a.down", scales(64));
    calibrate_again(b);
    CHECK_FALSE(mentions(b.run(), "MIXED"));
    auto const q = b.json("hf_quant_config.json")["quantization"];
    CHECK(q["quant_algo"] == algorithm);
    CHECK(q["pre_quant_scale"] == true);
    CHECK_FALSE(b.file().contains("a.up.pre_quant_scale"));
  }
  export_bench b;  // in a mix each layer says it of itself
  make(b, preset("NVFP4_AWQ_LITE_CFG"), {"a.up", "a.down", "a.other"});
  set_quantizer_attributes(*b.m, "a.other.weight_quantizer", per_axis(8, 0));
  set_quantizer_attributes(*b.m, "a.other.input_quantizer", whole(8));
  scale_input(b, "a.down", scales(64));
  calibrate_again(b);
  b.run();
  auto const layers = b.json("hf_quant_config.json")["quantization"]["quantized_layers"];
  CHECK(layers["a.up"]["quant_algo"] == "NVFP4");
  CHECK(layers["a.down"]["quant_algo"] == "NVFP4_AWQ");
  auto const groups = b.json("config.json")["quantization_config"]["config_groups"];
  CHECK(groups.size() == 3);
  CHECK(groups["group_1"]["input_activations"]["num_bits"] == 8);  // as ModelOpt has it
}

TEST_CASE("pre_quant_scale: forms whose loaders know of none refuse it by name, on inputs that are off too") {
  for (char const* name : {"FP8_DEFAULT_CFG", "INT8_WEIGHT_ONLY_CFG", "W4A16_NVFP4_CFG", "MXFP8_DEFAULT_CFG"}) {
    CAPTURE(name);
    export_bench b;
    make(b, preset(name), {"mlp.fc"});
    scale_input(b, "mlp.fc", scales(64));
    calibrate_again(b);
    auto const text = refused(b, error_id::format_value);
    CHECK_MESSAGE(says(text, "mlp.fc.input_quantizer", "pre_quant_scale", "fold_pre_quant_scales"), text);
  }
}

TEST_CASE("pre_quant_scale: one of another length is refused, and so is a source that has a tensor of that name") {
  export_bench b;
  make(b, preset("INT4_AWQ_CFG"), {"mlp.fc"});
  auto& slots = *b.m->modules().front().slots;
  quantizer_in(slots, quantizer_role::input).set_pre_quant_scale(b.m->device(), scales(63));
  CHECK(says(refused(b, error_id::tensor_shape), "mlp.fc: its pre_quant_scale has 63 values", "64 inputs"));
  quantizer_in(slots, quantizer_role::input).set_pre_quant_scale(b.m->device(), scales(64));
  quantizer_in(slots, quantizer_role::weight).set_pre_quant_scale(b.m->device(), scales(65));
  CHECK(says(refused(b, error_id::tensor_shape), "mlp.fc.weight_quantizer", "65 values", "[6,64]"));
  quantizer_in(slots, quantizer_role::weight).set_pre_quant_scale(b.m->device(), scales(64));
  b.tensors.emplace_back("mlp.fc.pre_quant_scale", make_weight({64}));
  b.write_source();
  CHECK(says(refused(b, error_id::file_content), "'mlp.fc.pre_quant_scale' already"));
}

TEST_CASE("W4A8: other sequences have no form") {
  for (int const which : {0, 1, 2, 3}) {
    export_bench b;
    auto config = preset("W4A8_AWQ_BETA_CFG");
    for (auto& e : config.entries) {
      if (!e.cfg || e.cfg->size() < 2) continue;
      auto& all = *e.cfg;
      if (which == 0) all.pop_back(), all.push_back(whole(8));                   // INT4, then INT8
      if (which == 1) all.push_back(whole({4, 3}));                              // three
      if (which == 2) all.back().type = quantizer_type::dynamic_type;            // a scale that no file has
      if (which == 3) all.front().num_bits = bit_spec{8};                        // INT8, then FP8
    }
    make(b, config, {"mlp.fc"});
    auto const text = refused(b, error_id::format_value);
    CHECK_MESSAGE(says(text, "mlp.fc", "no Hugging Face form", ", then "), text);
  }
  export_bench b;
  make(b, preset("W4A8_AWQ_BETA_CFG"), {"mlp.fc"});
  disable_quantizer(*b.m, "*input_quantizer");
  CHECK(says(refused(b, error_id::format_value), "mlp.fc", "with input not quantized"));
}
