// What can be said of an export before there is data: which formats have a form in a Hugging Face checkpoint.
#include "mixbit/io/hf_form.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// INT8 with one scale a weight: a good format, and none that the files of ModelOpt have a name for.
quantize_config int8_per_tensor() {
  auto config = nothing_on();
  config.name = "MINE";
  turn_on(config, "*weight_quantizer", whole(8));
  return config;
}

std::vector<quantize_config> exportable() {
  return {preset("FP8_DEFAULT_CFG"), preset("INT8_DEFAULT_CFG"), preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"),
          preset("FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("FP8_PER_CHANNEL_PER_TOKEN_CFG"),
          preset("NVFP4_DEFAULT_CFG"), preset("MXFP8_DEFAULT_CFG"), preset("MXFP4_DEFAULT_CFG"),
          preset("W4A8_AWQ_BETA_CFG")};
}

/// Two layers, none of which is ever run.
struct two_layers {
  checkpoint_host host;
  mixbit::model<cpu_backend> m{host};
  two_layers() {
    for (char const* name : {"mlp.up_proj", "lm_head"}) host.add(name, make_weight({4, 32}));
  }
  bool untouched() {
    for (auto const& module : m.modules())
      if (!module.slots->shared_site()->recipes.empty()) return false;
    return true;
  }
};

std::string const reason = ": no Hugging Face form exists for weight int8 per tensor, static with input not quantized";

}  // namespace

TEST_CASE("hf forms: each format of a search is asked for, in each layer that may be given it") {
  two_layers n;
  auto const said = [&](std::vector<quantize_config> formats, std::vector<pattern> disabled) {
    search_options o;
    o.formats = std::move(formats);
    o.target = 16.0;
    o.disabled_layers = std::move(disabled);
    search<cpu_backend> const s{n.m, o};
    return error_text(error_id::format_value, [&] { require_hf_forms(n.m, s); });
  };
  auto formats = exportable();
  CHECK(said(formats, {}) == "(no error)");
  auto const mxfp6 = said({preset("MXFP6_DEFAULT_CFG")}, {});  // MX, but of no element that files have a form for
  CHECK_MESSAGE(says(mxfp6, "no Hugging Face form", "e3m2 mx_nv"), mxfp6);
  formats.push_back(int8_per_tensor());
  CHECK(says(said(formats, {}), "MINE: mlp.up_proj" + reason));
  CHECK(says(said(formats, {"mlp*"}), "MINE: lm_head" + reason));
  CHECK(n.untouched());
}

TEST_CASE("hf forms: a config is asked for as quantize() would place it") {
  two_layers n;
  for (auto const& config : exportable())
    CHECK(error_text(error_id::format_value, [&] { require_hf_forms(n.m, config); }) == "(no error)");
  auto config = int8_per_tensor();
  auto const said = [&](error_id id) { return error_text(id, [&] { require_hf_forms(n.m, config); }); };
  CHECK(says(said(error_id::format_value), "MINE: mlp.up_proj" + reason));
  config.entries.push_back({"mlp*", std::nullopt, std::nullopt, false});
  CHECK(says(said(error_id::format_value), "MINE: lm_head" + reason));
  config = nothing_on();
  turn_on(config, "lm_head.output_quantizer", whole(8));
  CHECK(says(said(error_id::format_value), "lm_head.output_quantizer: no Hugging Face form exists"));
  config = nothing_on();
  turn_on(config, "*nowhere*", whole(8));
  CHECK(says(said(error_id::config_no_match), "*nowhere*"));
  config = preset("INT8_SMOOTHQUANT_CFG");
  config.algorithm = "acme.none";
  CHECK(says(said(error_id::config_value), "INT8_SMOOTHQUANT_CFG", "acme.none"));
  CHECK(n.untouched());
}

TEST_CASE("hf forms: of a plan's formats those matter that a layer is given") {
  two_layers n;
  quantization_plan plan;
  plan.formats = {{"good", preset("FP8_DEFAULT_CFG"), 8}, {"mine", int8_per_tensor(), 8}};
  plan.modules = {{"mlp.up_proj", "good", {}}, {"lm_head", none_label, {}}};
  auto const said = [&](error_id id) { return error_text(id, [&] { require_hf_forms(n.m, plan); }); };
  CHECK(said(error_id::format_value) == "(no error)");
  plan.modules[1].recipe = "mine";
  CHECK(says(said(error_id::format_value), "mine: lm_head" + reason));
  plan.modules[1].recipe = "other";
  CHECK(says(said(error_id::search_plan), "lm_head", "'other'"));
  CHECK(n.untouched());
}

TEST_CASE("hf forms: rotations and biases have no place in the files, nor scales beside FP8, and are refused by name") {
  two_layers net;
  quantize(net.m, preset("FP8_PER_CHANNEL_PER_TOKEN_CFG"));
  auto const module = net.m.modules().front();
  auto& recipe = module.slots->shared_site()->quantizers();
  auto& input = *recipe.find(quantizer_role::input);
  (void)hf_form_of(module, recipe);
  auto const refused = [&] { return error_text(error_id::format_value, [&] { hf_form_of(module, recipe); }); };
  input.set_pre_quant_scale(net.m.device(), std::vector<float>(32, 2.0f));
  CHECK(says(refused(), "mlp.up_proj.input_quantizer: ", "pre_quant_scale beside FP8_PER_CHANNEL_PER_TOKEN"));
  input.set_pre_quant_scale(net.m.device(), {});
  quantizer_attribute_config biased = input.attributes().front(), turned = biased;
  biased.block_sizes.reset();
  biased.bias = bias_config{{-1}};
  turned.rotate = true;
  set_quantizer_attributes(net.m, "mlp.up_proj.input_quantizer", biased);
  CHECK(says(refused(), "mlp.up_proj.input_quantizer: ", "bias"));
  set_quantizer_attributes(net.m, "mlp.up_proj.input_quantizer", turned);
  CHECK(says(refused(), "mlp.up_proj.input_quantizer: ", "rotate"));
}
