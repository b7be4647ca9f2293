// Checkpoints that byte_lm writes of scaled layers and of quantized caches, read by their description alone: what they
// compute is what was simulated.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "byte_lm/preceding.hpp"
#include "golden_suites/lm_model.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/fold_scales.hpp"
#include "support/error_text.hpp"
#include "support/hf_decoded.hpp"
#include "support/temporary_folder.hpp"

namespace {

using byte_lm::matrix;
using model_of = mixbit::model<byte_lm::backend>;

std::filesystem::path const source = std::filesystem::path{MIXBIT_DATA_DIR} / "byte-lm";

struct bench {
  golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
  model_of m = lm.quantized(mixbit::policy::stored);
  mixbit::test::temporary_folder folder;

  matrix logits() { return lm.host.logits(lm.calibration[0].slice(0, 2).inputs()); }

  mixbit::safetensors_file write(std::vector<mixbit::preceding_op> const& folded = {}) {
    mixbit::hf_export_options options;
    options.preceding = folded;
    mixbit::export_hf_checkpoint(m, source, folder / "out", options);
    return mixbit::safetensors_file::open(folder / "out" / "model.safetensors");
  }
};

/// In blocks of 32: 352 inputs have no whole block of 128.
mixbit::quantize_config in_small_blocks(char const* preset) {
  auto config = mixbit::preset(preset);
  for (auto& e : config.entries)
    if (e.cfg)
      for (auto& a : *e.cfg)
        if (a.block_sizes && !a.block_sizes->axes.empty()) a.block_sizes->axes.front().size = 32;
  return config;
}

/// The weights of a host become a checkpoint's, and the inputs of its layers take their pre_quant_scales: no quantizer
/// is on in it.
void load(bench& b, mixbit::safetensors_file const& file) {
  for (auto const& module : b.m.modules()) {
    auto& site = *module.slots->shared_site();
    site.recipes.clear();
    site.recipes.push_back(mixbit::unquantized_recipe(b.m, module));
    if (file.contains(module.name + ".pre_quant_scale"))
      for (auto& q : site.quantizers().quantizers)
        if (q.role() == mixbit::quantizer_role::input)
          q.set_pre_quant_scale(b.m.device(), file.read_as_float(module.name + ".pre_quant_scale"));
    site.refresh();
  }
  b.lm.host.for_each_parameter([&](std::string const& name, byte_lm::parameter& p) {
    std::string const module = name.substr(0, name.rfind('.'));
    auto const values = file.contains(module + ".weight_scale") ? mixbit::test::hf_decoded(file, module)
                                                                : file.read_as_float(name);
    REQUIRE(values.size() == static_cast<std::size_t>(p.value.size()));
    std::copy(values.begin(), values.end(), p.value.data());
  });
}

/// Does a file hold, for each quantized layer, the weights that the model computes with? Ends the model's use.
int layers_that_differ(bench& b, mixbit::safetensors_file const& file) {
  mixbit::fold_weight(b.m);
  int differ = 0, seen = 0;
  for (auto const& module : b.m.modules()) {
    if (!file.contains(module.name + ".weight_scale")) continue;
    auto const* const w = module.weight.as<float>();
    differ += mixbit::test::hf_decoded(file, module.name) != std::vector<float>(w, w + module.weight.size());
    ++seen;
  }
  CHECK(seen == 28);
  return differ;
}

}  // namespace

TEST_CASE("byte_lm: an AWQ checkpoint, decoded into another model, computes what was simulated, bit for bit") {
  bench b;
  mixbit::quantize(b.m, in_small_blocks("INT4_AWQ_CFG"), [&] { b.logits(); });
  auto const refused = mixbit::test::error_text(mixbit::error_id::format_value, [&] { b.write(); });
  CHECK_MESSAGE(mixbit::test::says(refused, "q_proj", "k_proj", "differ in pre_quant_scale", "share_state"), refused);
  CHECK(byte_lm::awq_folds(b.lm.host, b.m).empty());  // nothing is shared that could be folded
  mixbit::share_state(b.m);
  auto const kept = b.write();  // each layer has its own, before any is folded
  CHECK(kept.read_as_float("model.layers.2.self_attn.q_proj.pre_quant_scale") ==
        kept.read_as_float("model.layers.2.self_attn.v_proj.pre_quant_scale"));
  for (bool const folds : {false, true}) {
    std::vector<mixbit::preceding_op> ops;
    if (folds) {
      ops = byte_lm::awq_folds(b.lm.host, b.m);
      CHECK(mixbit::fold_pre_quant_scales(b.m, ops).folded == 8);
    }
    auto const file = b.write(ops);
    CHECK(file.contains("model.layers.1.mlp.up_proj.pre_quant_scale") == !folds);
    CHECK(file.contains("model.layers.1.mlp.down_proj.pre_quant_scale"));
    bench other;
    load(other, file);
    matrix const simulated = b.logits(), read = other.logits();
    CHECK(std::equal(simulated.data(), simulated.data() + simulated.size(), read.data()));
  }
}

TEST_CASE("byte_lm: SmoothQuant's and W4A8's files hold the weights that are simulated, and the scales of inputs") {
  for (char const* name : {"INT8_SMOOTHQUANT_CFG", "W4A8_AWQ_BETA_CFG"}) {
    CAPTURE(name);
    bench b;
    mixbit::quantize(b.m, in_small_blocks(name), [&] { b.logits(); });
    mixbit::share_state(b.m);
    auto const file = b.write();
    float const range = name[0] == 'I' ? 127.0f : 448.0f;
    for (auto const& module : b.m.modules()) {
      if (module.weight.data == nullptr || module.name == "lm_head") continue;
      auto& input = *module.slots->shared_site()->quantizers().find(mixbit::quantizer_role::input);
      CHECK(file.read_as_float(module.name + ".pre_quant_scale") == input.pre_quant_scale(b.m.device()));
      CHECK(file.read_as_float(module.name + ".input_scale")[0] ==
            input.members().front().amax(b.m.device())[0] / range);
    }
    CHECK(layers_that_differ(b, file) == 0);
  }
}

TEST_CASE("byte_lm: keys behind their rotation and values give the golden checkpoint's scales of the cache") {
  bench b;
  mixbit::quantize(b.m, combine(mixbit::preset("FP8_DEFAULT_CFG"), mixbit::preset("FP8_KV_CFG")), [&] {
    for (auto const& step : b.lm.calibration) (void)b.lm.host.logits(step.inputs());
  });
  auto const file = b.write();
  auto const golden = mixbit::safetensors_file::open(std::filesystem::path{MIXBIT_GOLDEN_DIR} / "export" / "fp8_kv" /
                                                     "model.safetensors");
  CHECK(file.names() == golden.names());
  for (int layer = 0; layer < 4; ++layer)
    for (char const* leaf : {"k_proj.k_scale", "v_proj.v_scale"}) {
      std::string const name = "model.layers." + std::to_string(layer) + ".self_attn." + leaf;
      CAPTURE(name);
      CHECK(file.read_as_float(name)[0] ==
            doctest::Approx(golden.read_as_float(name)[0]).epsilon(layer == 0 ? 1e-5 : 1e-2));
    }
  CHECK(layers_that_differ(b, file) == 0);
}

TEST_CASE("byte_lm: heads are quantized as heads, and a backward passes straight through") {
  bench b;
  matrix const plain = b.logits();
  mixbit::quantize(b.m, mixbit::preset("NVFP4_KV_ROTATE_CFG"), [&] { b.logits(); });
  disable_quantizer(b.m, "*");  // which leaves queries and keys rotated, each head by itself
  CHECK((b.logits() - plain).norm() < 1e-5f * plain.norm());
  matrix const grad = matrix::Ones(plain.rows(), plain.cols());
  auto const refused = [&] {
    return mixbit::test::error_text(mixbit::error_id::config_conflict, [&] { b.lm.host.backward(grad); });
  };
  CHECK(mixbit::test::says(refused(), "model.layers.3.self_attn.q_bmm_quantizer", "disable it to train"));

  auto config = combine(mixbit::preset("INT8_WEIGHT_ONLY_CFG"), mixbit::preset("FP8_KV_CFG"));
  mixbit::quantize(b.m, config, [&] { b.logits(); });
  auto const attention = b.logits();
  CHECK((attention - plain).norm() > 1e-4f * plain.norm());
  CHECK(refused() == "(no error)");
  mixbit::quantizer_attribute_config probabilities;
  probabilities.num_bits = {4, 3};
  probabilities.type = mixbit::quantizer_type::dynamic_type;
  set_quantizer_attributes(b.m, "*softmax_quantizer", probabilities);
  CHECK_FALSE(b.logits() == attention);
  CHECK(mixbit::test::says(refused(), "softmax_quantizer"));
}
