// Exports of formats whose block scales are quantized themselves: NVFP4 and MX.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/io/hf_form.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/shared_state.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"
#include "support/hf_decoded.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

/// The weight as a loader of the file computes it.
std::vector<float> decoded(safetensors_file const& file, std::string const& name, geometry const& shape, int block) {
  auto const codes = file.at(name + ".weight"), scales = file.at(name + ".weight_scale");
  bool const nvfp4 = file.contains(name + ".weight_scale_2"), packed = codes.type == dtype::u8;
  float const tensor_scale = nvfp4 ? file.read_as_float(name + ".weight_scale_2")[0] : 1.0f;
  std::int64_t const rows = shape.shape[0], columns = shape.shape[1], blocks = (columns + block - 1) / block;
  CHECK(scales.type == (nvfp4 ? dtype::f8_e4m3 : dtype::u8));
  CHECK(scales.same_shape(dense_geometry(scales.type, {rows, blocks})));
  CHECK(codes.same_shape(dense_geometry(codes.type, {rows, packed ? (columns + 1) / 2 : columns})));
  std::vector<float> weight;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      unsigned const scale = scales.as<std::uint8_t>()[r * blocks + c / block];
      float const s = nvfp4 ? minifloat_value(scale, 4, 3) * tensor_scale
                            : std::ldexp(1.0f, static_cast<int>(scale) - 127);
      unsigned const byte = codes.as<std::uint8_t>()[packed ? r * ((columns + 1) / 2) + c / 2 : r * columns + c];
      weight.push_back(s * (packed ? minifloat_value(c % 2 == 0 ? byte & 15u : byte >> 4, 2, 1)
                                   : minifloat_value(byte, 4, 3)));
    }
  return weight;
}

struct one_layer {
  export_bench b;
  std::vector<std::string> notes;
  one_layer(quantize_config const& config, std::int64_t rows, std::int64_t columns) {
    b.add("mlp.fc", make_weight({rows, columns}));
    b.write_source();
    b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
    mixbit::quantize(*b.m, config, [&] { b.host.show("mlp.fc", 3.0f); });
    notes = b.run();
  }
  /// What the model simulates.
  std::vector<float> simulated() {
    fold_weight(*b.m);
    auto const weight = b.m->modules().front().weight;
    return {weight.as<float>(), weight.as<float>() + weight.size()};
  }
};

TEST_CASE("NVFP4 and MX: a file's codes and scales are, bit for bit, what the model simulates") {
  struct {
    char const* preset;
    int block;
    char const* algorithm;
  } const cases[] = {{"NVFP4_DEFAULT_CFG", 16, "NVFP4"},
                     {"W4A16_NVFP4_CFG", 16, "W4A16_NVFP4"},
                     {"NVFP4_FOUR_OVER_SIX_CFG", 16, "NVFP4"},
                     {"NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG", 16, "NVFP4"},
                     {"MXFP8_DEFAULT_CFG", 32, "MXFP8"},
                     {"MXFP4_DEFAULT_CFG", 32, "mxfp4"},
                     {"MXFP4_MLP_WEIGHT_ONLY_CFG", 32, "mxfp4"}};
  for (auto const& [name, block, algorithm] : cases) {
    std::string const preset_name = name;
    CAPTURE(preset_name);
    one_layer n{preset(name), 5, 64};
    auto const q = n.b.json("hf_quant_config.json")["quantization"];
    CHECK(q["quant_algo"] == algorithm);
    CHECK(q["group_size"] == block);
    CHECK(decoded(n.b.file(), "mlp.fc", dense_geometry(dtype::f32, {5, 64}), block) == n.simulated());
  }
}

TEST_CASE("NVFP4 and MX: a ragged last block has a scale of its own, and loaders' limit is said") {
  for (auto const& [name, block] :
       {std::pair{"W4A16_NVFP4_CFG", 16}, {"MXFP8_DEFAULT_CFG", 32}, {"MXFP4_DEFAULT_CFG", 32}}) {
    std::string const preset_name = name;
    CAPTURE(preset_name);
    one_layer n{preset(name), 3, 37};
    CHECK(mentions(n.notes, "blocks of " + std::to_string(block) + " do not divide 37 inputs"));
    CHECK(decoded(n.b.file(), "mlp.fc", dense_geometry(dtype::f32, {3, 37}), block) == n.simulated());
  }
}

TEST_CASE("NVFP4: scales of tensors are their amaxes over the largest product; what loaders refuse is said") {
  one_layer const plain{preset("NVFP4_DEFAULT_CFG"), 2, 32}, six{preset("NVFP4_FOUR_OVER_SIX_CFG"), 2, 32};
  float amax = 0;
  for (float const w : make_weight({2, 32}).values) amax = std::max(amax, std::abs(w));
  CHECK(plain.b.file().read_as_float("mlp.fc.weight_scale_2")[0] == amax / 2688.0f);
  CHECK(plain.b.file().read_as_float("mlp.fc.input_scale")[0] == 3.0f / 2688.0f);
  CHECK(six.b.file().read_as_float("mlp.fc.weight_scale_2")[0] == amax / 1536.0f);
  CHECK(plain.notes.empty());
  CHECK(mentions(one_layer{preset("MXFP4_DEFAULT_CFG"), 2, 32}.notes, "vLLM refuses mxfp4"));
}

TEST_CASE("NVFP4 and MX: other block sizes and one-sided MXFP8 have no form") {
  for (auto const& [name, quantizer, block] :
       {std::tuple{"W4A16_NVFP4_CFG", "*weight_quantizer", 32},
        {"NVFP4_DEFAULT_CFG", "*input_quantizer", 32},
        {"MXFP8_DEFAULT_CFG", "*weight_quantizer", 16}}) {
    auto config = preset(name);
    for (auto& e : config.entries)
      if (e.cfg && e.quantizer_name.label() == quantizer)
        for (auto& axis : e.cfg->front().block_sizes->axes) axis.size = block;
    auto const text = error_text(error_id::format_value, [&] { one_layer{config, 2, 64}; });
    CHECK_MESSAGE(says(text, "mlp.fc", "no Hugging Face form"), text);
  }
  export_bench b;
  b.add("mlp.fc", make_weight({2, 64}));
  b.write_source();
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
  mixbit::quantize(*b.m, preset("MXFP8_DEFAULT_CFG"));
  disable_quantizer(*b.m, "*input_quantizer");
  CHECK(says(error_text(error_id::format_value, [&] { b.run(); }), "mlp.fc", "e4m3 mx_nv", "not quantized"));
}

TEST_CASE("NVFP4: fused layers whose weights have scales of their own are named, and share_state makes them one") {
  export_bench b;
  b.add("l.q_proj", make_weight({2, 32}, 1));
  auto larger = make_weight({2, 32}, 2);
  larger.values[3] = 17.0f;
  b.add("l.k_proj", larger);
  b.write_source();
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
  mixbit::quantize(*b.m, preset("W4A16_NVFP4_CFG"));
  CHECK(mentions(b.run(), "share_state makes it one"));
  share_state(*b.m);
  CHECK_FALSE(mentions(b.run(), "share_state"));
  CHECK(b.file().read_as_float("l.q_proj.weight_scale_2")[0] == 17.0f / 2688.0f);
}

TEST_CASE("NVFP4: a weight whose blocks and tensor scale are of its data is written as it is simulated") {
  auto config = preset("W4A16_NVFP4_CFG");
  for (auto& e : config.entries)
    if (e.cfg && e.quantizer_name.label() == "*weight_quantizer") {
      e.cfg->front().type = quantizer_type::dynamic_type;
      e.cfg->front().block_sizes->type.reset();
    }
  one_layer n{config, 5, 64};
  CHECK(n.b.file().read_as_float("mlp.fc.weight_scale_2")[0] > 0);
  CHECK(decoded(n.b.file(), "mlp.fc", dense_geometry(dtype::f32, {5, 64}), 16) == n.simulated());
}

TEST_CASE("NVFP4 and MX: convolutions quantized as matrices have no form, as two rows would share a byte") {
  for (char const* name : {"W4A16_NVFP4_CFG", "MXFP4_DEFAULT_CFG"}) {
    export_bench b;
    b.add("mlp.conv", make_weight({4, 8, 3, 3}), "nn.Conv2d", layouts::conv.flattened());
    b.write_source();
    b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
    mixbit::quantize(*b.m, preset(name));
    auto const text = error_text(error_id::format_value, [&] { b.run(); });
    CHECK_MESSAGE(says(text, "mlp.conv", "share a byte"), text);
  }
}

TEST_CASE("NVFP4: a source that has a tensor of a scale's name already is refused") {
  export_bench b;
  b.add("mlp.fc", make_weight({2, 32}));
  b.tensors.emplace_back("mlp.fc.weight_scale", make_weight({2, 2}));
  b.write_source();
  b.m = std::make_unique<mixbit::model<cpu_backend>>(b.host);
  mixbit::quantize(*b.m, preset("W4A16_NVFP4_CFG"));
  CHECK(says(error_text(error_id::file_content, [&] { b.run(); }), "'mlp.fc.weight_scale' already"));
}

}  // namespace
