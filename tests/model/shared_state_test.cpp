#include "mixbit/model/shared_state.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "support/error_text.hpp"
#include "support/fused_host.hpp"
#include "support/plain_linalg.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

using role = quantizer_role;

plain_tensor const batch = uneven(6, 16);
layer_group const qkv{"attn.q_proj", "attn.k_proj", "attn.v_proj"};

struct bench {
  fused_host host;
  model<cpu_backend> m;
  cpu_backend device;

  explicit bench(model_options<cpu_backend> options = {}) : m{host, std::move(options)} {}
  void quantize(quantize_config const& config) {
    mixbit::quantize(m, config, [this] { host.forward(batch); });
  }
  /// All amaxes and scales of the group, to see that nothing changed.
  std::vector<std::vector<float>> state() {
    std::vector<std::vector<float>> all;
    for (auto* const s : {&host.q, &host.k, &host.v})
      for (auto const r : {role::input, role::weight}) {
        auto const& q = quantizer_in(*s, r);
        all.push_back(q.pre_quant_scale(device));
        for (auto const& m_ : q.members()) all.push_back(m_.amax(device));
      }
    return all;
  }
  /// The error of sharing, which has changed nothing.
  std::string refused(error_id id, std::vector<layer_group> const& groups) {
    auto const before = state();
    auto const text = error_text(id, [&] { share_state(m, groups); });
    CHECK(state() == before);
    return text;
  }
};

quantize_config awq() {
  auto config = preset("INT4_AWQ_CFG");
  config.algorithm = "awq_lite";
  return config;
}

}  // namespace

TEST_CASE("fused_layers: q/k/v and gate/up of one parent, if any of them is quantized; rules of the user's own") {
  checkpoint_host host;
  for (char const* const name : {"l.0.q_proj", "l.0.k_proj", "l.1.q_proj", "l.1.v_proj", "l.1.mlp.gate_proj",
                                 "l.1.mlp.up_proj", "l.1.mlp.down_proj", "e.0.w1", "e.0.w2", "e.0.w3", "e.1.w1"})
    host.add(name, waves({4, 4}, 0.7f));
  model<cpu_backend> m{host};
  CHECK(fused_layers(m).empty());
  auto config = nothing_on();
  quantizer_attribute_config a;
  for (char const* const name : {"l.0.*weight_quantizer", "l.1.mlp.up_proj.weight_quantizer", "e.*weight_quantizer"})
    turn_on(config, name, a);
  quantize(m, config);
  CHECK(fused_layers(m) == std::vector<layer_group>{{"l.0.q_proj", "l.0.k_proj"},
                                                   {"l.1.mlp.gate_proj", "l.1.mlp.up_proj"},
                                                   {"e.0.w1", "e.0.w3"}});
  CHECK(fused_layers(m, {"(e).#.w1"}) == std::vector<layer_group>{{"e.0.w1", "e.1.w1"}});
}

TEST_CASE("unshared_groups: names the group, the layers, the field and both values") {
  bench b;
  b.quantize(preset("FP8_DEFAULT_CFG"));
  for (auto* const s : {&b.host.q, &b.host.k, &b.host.v})
    quantizer_in(*s, role::weight).members().front().set_amax(b.device, partition{}, {2.0f});
  CHECK(unshared_groups(b.m).empty());
  quantizer_in(b.host.v, role::weight).members().front().set_amax(b.device, partition{}, {2.5f});
  quantizer_in(b.host.k, role::input).members().front().set_amax(b.device, partition{}, {64.0f});
  auto const found = unshared_groups(b.m);
  REQUIRE(found.size() == 1);
  CHECK(found[0].layers == qkv);
  REQUIRE(found[0].differences.size() == 2);
  CHECK(found[0].differences[0].text().find("attn.q_proj and attn.k_proj differ in input amax: ") == 0);
  CHECK(found[0].differences[0].second_value == "64");
  CHECK(found[0].differences[1].text() == "attn.q_proj and attn.v_proj differ in weight amax: 2 and 2.5");
  CHECK(unshared_groups(b.m, {qkv}, {.weight_amax = false})[0].differences.size() == 1);
  CHECK(unshared_groups(b.m, {qkv}, {.input_amax = false})[0].differences.size() == 1);
  CHECK(unshared_groups(b.m, {{"attn.q_proj", "attn.o_proj"}}).size() == 1);
}

TEST_CASE("unshared_groups: scales by their first channel that differs, formats, layers that are off") {
  bench b;
  b.quantize(awq());
  auto scale = quantizer_in(b.host.q, role::input).pre_quant_scale(b.device);
  for (auto* const s : {&b.host.k, &b.host.v}) quantizer_in(*s, role::input).set_pre_quant_scale(b.device, scale);
  CHECK(unshared_groups(b.m).empty());
  scale[3] = 7.5f;
  quantizer_in(b.host.k, role::input).set_pre_quant_scale(b.device, scale);
  auto const field = [&](std::size_t i) { return unshared_groups(b.m)[0].differences.at(i); };
  CHECK(field(0).field == "pre_quant_scale[3]");
  CHECK(field(0).second_value == "7.5");
  CHECK(unshared_groups(b.m, {qkv}, {.pre_quant_scale = false}).empty());
  quantizer_in(b.host.k, role::input).set_pre_quant_scale(b.device, {});
  CHECK(field(0).field == "pre_quant_scale[0]");
  CHECK(field(0).second_value == "none");
  quantizer_attribute_config other;
  set_quantizer_attributes(b.m, "*v_proj.weight_quantizer", other);
  CHECK(field(1).field == "weight format");
  CHECK(field(1).second_value == "int8 per tensor, static");
  disable_quantizer(b.m, "*v_proj.weight_quantizer");
  CHECK(field(1).second_value == "off");
}

TEST_CASE("unshared_groups: a weight of a single channel has that channel's amax, not one of the tensor") {
  checkpoint_host host;
  host.add("l.gate_proj", waves({1, 16}, 0.7f));
  host.add("l.up_proj", waves({1, 16}, 0.7f, 2.0f));
  model<cpu_backend> m{host};
  auto config = nothing_on();
  quantizer_attribute_config a;
  a.axis = 0;
  turn_on(config, "*weight_quantizer", a);
  quantize(m, config);
  CHECK(unshared_groups(m).empty());
  turn_on(config, "*weight_quantizer", quantizer_attribute_config{});
  quantize(m, config);
  CHECK(unshared_groups(m).size() == 1);
}

TEST_CASE("unshared_groups: a weight of a single block has that block's amax, whatever its siblings have") {
  checkpoint_host host;
  host.add("l.gate_proj", waves({4, 16}, 0.7f));
  host.add("l.up_proj", waves({8, 16}, 0.7f, 2.0f));  // two blocks
  host.add("m.w1", waves({4, 16}, 0.7f));
  host.add("m.w3", waves({4, 16}, 0.7f, 2.0f));
  model<cpu_backend> m{host};
  auto config = nothing_on();
  quantizer_attribute_config a;
  a.block_sizes = block_config{{{-2, 4}, {-1, 16}}};
  turn_on(config, "*weight_quantizer", a);
  quantize(m, config);
  auto const amaxes = [&] {
    std::vector<std::vector<float>> all;
    for (auto const& module : m.modules())
      all.push_back(quantizer_in(*module.slots, role::weight).members().front().amax(m.device()));
    return all;
  };
  auto const before = amaxes();
  REQUIRE(before[2] != before[3]);
  CHECK(unshared_groups(m).empty());
  share_state(m);
  CHECK(amaxes() == before);
}

TEST_CASE("share_state: groups that are none are refused, and the model is as it was") {
  bench b;
  b.quantize(preset("FP8_DEFAULT_CFG"));
  CHECK(says(b.refused(error_id::config_no_match, {qkv, {"attn.o_proj", "attn.p_proj"}}), "attn.p_proj", "group 1"));
  CHECK(says(b.refused(error_id::config_conflict, {qkv, {"attn.o_proj", "attn.k_proj"}}), "attn.k_proj", "group 0"));
  CHECK(says(b.refused(error_id::config_conflict, {{"attn.q_proj", "attn.q_proj"}}), "attn.q_proj", "again"));
  CHECK(says(b.refused(error_id::config_conflict, {{"attn.q_proj"}}), "'attn.q_proj'", "two"));
  CHECK(says(b.refused(error_id::config_conflict, {{}}), "group 0 is empty"));
  CHECK(says(error_text(error_id::config_no_match, [&] { unshared_groups(b.m, {{"attn.q_proj", "x"}}); }),
             "unshared_groups: group 0", "'x'"));
  // a bad group behind a good one
  quantizer_attribute_config other;
  set_quantizer_attributes(b.m, "*o_proj.weight_quantizer", other);
  CHECK(says(b.refused(error_id::config_conflict, {{"attn.q_proj", "attn.v_proj"}, {"attn.k_proj", "attn.o_proj"}}),
             "attn.k_proj and attn.o_proj", "weight format", "int8"));
}

TEST_CASE("share_state: formats, uncalibrated, unquantized and folded layers are refused by name") {
  bench b;
  b.quantize(preset("FP8_DEFAULT_CFG"));
  disable_quantizer(b.m, "*k_proj*");
  CHECK(says(b.refused(error_id::config_conflict, {qkv}), "attn.k_proj", "off"));
  set_quantizer_attributes(b.m, "*k_proj.*", quantizer_in(b.host.q, role::weight).attributes());
  CHECK(says(b.refused(error_id::state_not_calibrated, {qkv}), "attn.k_proj.input_quantizer", "no data"));
  disable_quantizer(b.m, "*");
  CHECK(says(b.refused(error_id::config_conflict, {qkv}), "attn.q_proj is not quantized"));
  CHECK_NOTHROW(share_state(b.m));  // no group then
  bench folded;
  auto weights = preset("FP8_DEFAULT_CFG");
  weights.entries.push_back({"*input_quantizer", std::nullopt, std::nullopt, true});
  folded.quantize(weights);
  fold_weight(folded.m);
  CHECK(says(folded.refused(error_id::state_folded, {qkv}), "attn.q_proj"));
}

TEST_CASE("share_state: scales of some layers, of other widths, of inputs alone, of rewritten weights are refused") {
  bench b;
  b.quantize(awq());
  auto const none = std::vector<float>{};
  auto const own = quantizer_in(b.host.v, role::input).pre_quant_scale(b.device);
  quantizer_in(b.host.v, role::input).set_pre_quant_scale(b.device, none);
  CHECK(says(b.refused(error_id::config_conflict, {qkv}), "attn.v_proj 0", "has 16"));
  CHECK(says(b.refused(error_id::config_conflict, {{"attn.q_proj", "attn.o_proj"}}), "attn.o_proj 8"));
  quantizer_in(b.host.v, role::input).set_pre_quant_scale(b.device, own);
  CHECK(says(b.refused(error_id::config_conflict, {{"attn.q_proj", "attn.v_proj"}, {"attn.k_proj", "attn.o_proj"}}),
             "attn.o_proj 8"));  // behind a group that could have been changed
  quantizer_in(b.host.v, role::weight).set_pre_quant_scale(b.device, none);
  CHECK(says(b.refused(error_id::config_conflict, {qkv}), "attn.v_proj", "none on its weight"));
  model_options<cpu_backend> options;
  options.linalg = plain_linalg{};
  bench rewritten{std::move(options)};
  auto config = awq();
  config.algorithm = std::vector<algorithm_step>{{"awq_lite"}, {"gptq"}};
  rewritten.quantize(config);
  CHECK(says(rewritten.refused(error_id::config_conflict, {qkv}), "attn.q_proj", "gptq", "before that step"));
  config.algorithm = std::vector<algorithm_step>{{"awq_lite"}, {"share_state"}, {"gptq"}, {"share_state"}};
  rewritten.quantize(config);
  CHECK(unshared_groups(rewritten.m).empty());
}

TEST_CASE("share_state: inputs of other amaxes in number, and with a bias of their own, are refused") {
  fused_host host;
  model<cpu_backend> m{host};
  auto config = nothing_on();
  quantizer_attribute_config a;
  a.axis = -1;
  turn_on(config, "*input_quantizer", a);
  quantize(m, config, [&] { host.forward(batch); });
  CHECK(says(error_text(error_id::config_conflict, [&] { share_state(m, {{"attn.q_proj", "attn.o_proj"}}); }),
             "attn.q_proj.input_quantizer has 16", "attn.o_proj.input_quantizer 8"));
  CHECK_NOTHROW(share_state(m));
  quantizer_attribute_config biased;
  biased.bias = bias_config{{-1}};
  turn_on(config, "*input_quantizer", biased);
  quantize(m, config, [&] { host.forward(batch); });
  CHECK(says(error_text(error_id::config_conflict, [&] { share_state(m); }), "attn.q_proj.input_quantizer", "bias"));
}

TEST_CASE("share_state: not from inside a pass") {
  bench b;
  auto const text = error_text(error_id::state_nested, [&] {
    mixbit::quantize(b.m, preset("FP8_DEFAULT_CFG"), [&] {
      b.host.forward(batch);
      share_state(b.m);
    });
  });
  CHECK(says(text, "attn.q_proj", "share_state"));
}
