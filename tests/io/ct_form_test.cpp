// Which quantizers have a form in compressed-tensors checkpoints, what is refused and that nothing is written then, and
// what is said of loaders.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "support/ct_bench.hpp"
#include "support/error_text.hpp"
#include "support/fused_host.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// What the export says, and whether the output folder is what it was.
std::string refusal(ct_bench& b, error_id id = error_id::format_value) {
  std::filesystem::create_directories(b.out());
  write_text(b.out() / "config.json", "earlier");
  auto const text = error_text(id, [&] { b.run_ct(); });
  CHECK(listing(b.out()) == std::set<std::string>{"config.json"});
  CHECK(read_text(b.out() / "config.json") == "earlier");
  return text;
}

quantizer_attribute_config narrow(quantizer_attribute_config a) {
  a.is_unsigned = true;
  return a;
}

}  // namespace

TEST_CASE("compressed-tensors: quantizers without a form are refused by name") {
  bit_spec const e4m3{4, 3};
  ct_case const cases[] = {{"weight int6 axis 0", per_axis(6, 0)},
                           {"weight int8 axis 1", per_axis(8, 1)},
                           {"weight uint8 axis 0", narrow(per_axis(8, 0))},
                           {"weight int4 blocks -2:2", blocks(4, {{-2, 2}})},
                           {"weight e4m3 blocks -1:32", blocks(e4m3, {{-1, 32}})},
                           {"weight int8 blocks -1:32,-2:2", blocks(8, {{-1, 32}, {-2, 2}})},
                           {"int4 blocks -1:32, static with input int8 per tensor", blocks(4, {{-1, 32}}), whole(8)},
                           {"int4 axis 0, static with input int4 per tensor", per_axis(4, 0), whole(4)},
                           {"int8 axis 0, static with input e4m3 per tensor", per_axis(8, 0), whole(e4m3)},
                           {"with input int8 per tensor, dynamic", per_axis(8, 0), dynamic(whole(8))},
                           {"with input e4m3 blocks -1:32, dynamic", whole(e4m3), dynamic(blocks(e4m3, {{-1, 32}}))},
                           {"with input e4m3 per tensor, dynamic", blocks(e4m3, {{-1, 16}, {-2, 4}}),
                            dynamic(whole(e4m3))},
                           {"with input e4m3 per tensor", nvfp4(), whole(e4m3)},
                           {"with input int4", mxfp4(), dynamic(blocks(4, {{-1, 32}}))},
                           {"with input int8", mxfp8(), dynamic(blocks(8, {{-1, 32}}))},
                           {"with input e4m3", mxfp8(), dynamic(blocks(e4m3, {{-1, 32}}))}};
  for (auto const& c : cases) {
    ct_bench b{c};
    auto const text = refusal(b);
    CHECK_MESSAGE(says(text, "l.fc: compressed-tensors has no form", c.format), text);
  }
}

TEST_CASE("compressed-tensors: groups are whole, weights are matrices, other quantizers are off") {
  ct_bench ragged{{"", blocks(4, {{-1, 32}}), {}, 40}}, conv, out, inputs;
  CHECK(says(refusal(ragged), "l.fc: rows of 40 elements are no whole groups of 32"));
  ct_bench blocked{{"", blocks({4, 3}, {{-1, 32}, {-2, 4}}), {}, 40}};  // blocks may be ragged
  blocked.run_ct();
  CHECK(ct_decoded(blocked.file(), blocked.quantization(), "l.fc", 6, 40) == blocked.folded().at("l.fc"));
  conv.add("conv", make_weight({4, 4, 3, 3}), "nn.Conv2d", layouts::conv);
  conv.quantize([](auto& c) { turn_on(c, "conv.weight_quantizer", per_axis(8, 0)); });
  CHECK(says(refusal(conv), "conv: its weight is no matrix"));
  out.add_layer("fc", 4, 32);
  out.quantize([](auto& c) { turn_on(c, "*output_quantizer", whole(8)); }, [&] { out.show_all(); });
  CHECK(says(refusal(out), "fc.output_quantizer: compressed-tensors has no form", "disable it to export"));
  inputs.add_layer("fc", 4, 32);
  inputs.quantize([](auto& c) { turn_on(c, "*input_quantizer", whole(8)); }, [&] { inputs.show_all(); });
  CHECK(says(refusal(inputs), "fc: compressed-tensors has no form", "weight not quantized with input int8"));
}

TEST_CASE("compressed-tensors: a pre_quant_scale, a rotation and a second quantizer have no place") {
  ct_bench scaled{{"", per_axis(8, 0)}}, twice;
  for (auto const& module : scaled.m->modules()) {
    auto& input = quantizer_in(*module.slots, quantizer_role::input);
    input.set_pre_quant_scale(scaled.m->device(), std::vector<float>(96, 2.0f));
    module.slots->shared_site()->refresh();
  }
  CHECK(says(refusal(scaled), "l.fc.input_quantizer", "has no place for a pre_quant_scale", "fold it"));
  twice.add_layer("fc", 4, 32);
  twice.quantize([](auto& c) {
    turn_on(c, "*weight_quantizer", blocks(4, {{-1, 32}}));
    c.entries.back().cfg->push_back(whole({4, 3}));
  });
  CHECK(says(refusal(twice), "fc: compressed-tensors has no form", "then e4m3 per tensor"));
  auto turned = per_axis(8, 0);
  turned.rotate.enable = true;
  ct_bench rotated{{"", turned, {}, 32}};
  CHECK(says(refusal(rotated), "l.fc.weight_quantizer: compressed-tensors has no form", "rotation"));
}

TEST_CASE("compressed-tensors: models and sources that do not fit are refused") {
  ct_case const int8{"", per_axis(8, 0), {}, 32};
  ct_bench folded{int8}, missing{int8}, clash{{"", blocks(4, {{-1, 32}}), {}, 32}};
  fold_weight(*folded.m);
  CHECK(says(refusal(folded, error_id::state_folded), "l.fc", "fold_weight"));
  missing.tensors.clear();
  missing.write_source();
  CHECK(says(refusal(missing, error_id::file_content), "'l.fc.weight'", "the module 'l.fc'"));
  clash.tensors.emplace_back("l.fc.weight_packed", make_weight({2, 2}));
  clash.write_source();
  CHECK(says(refusal(clash, error_id::file_content), "has a tensor 'l.fc.weight_packed' already"));
  ct_bench small;
  plain_tensor w{2, 32};
  for (auto& v : w.values) v = 0x1p-127f;
  small.add("fc", w);
  small.quantize([](auto& c) { turn_on(c, "*weight_quantizer", nvfp4()); });
  CHECK(says(refusal(small, error_id::format_amax), "fc: the scale of its weight is", "reciprocal"));
}

TEST_CASE("compressed-tensors: loaders that fuse layers of several forms, or with several scales, are spoken of") {
  ct_bench b;
  for (char const* name : {"a.q_proj", "a.k_proj", "a.v_proj", "m.gate_proj", "m.up_proj"}) b.add_layer(name, 6, 64);
  b.host.add("table", make_weight({4, 64}), "nn.Embedding", layouts::lookup);
  b.tensors.emplace_back("table.weight", make_weight({4, 64}));
  b.quantize(
      [](auto& c) {
        turn_on(c, "*q_proj.weight_quantizer", blocks(4, {{-1, 32}}));
        turn_on(c, "*k_proj.weight_quantizer", blocks(4, {{-1, 16}}));
        turn_on(c, "m.*.weight_quantizer", whole({4, 3}));
        turn_on(c, "m.*.input_quantizer", whole({4, 3}));
        turn_on(c, "table.weight_quantizer", whole(8));
      },
      [&] {
        b.host.show("m.gate_proj", 3.0f);
        b.host.show("m.up_proj", 4.0f);
      });
  auto const notes = b.run_ct();
  ct_bench reciprocals;
  plain_tensor larger{6, 64};
  for (auto& v : larger.values) v = 30.0f;
  reciprocals.add_layer("m.gate_proj", 6, 64);
  reciprocals.add("m.up_proj", larger);
  reciprocals.quantize([](auto& c) { turn_on(c, "m.*.weight_quantizer", nvfp4()); });
  CHECK(mentions(reciprocals.run_ct(), "loaders that fuse them take the larger global scale, which is the smaller"));
  CHECK(mentions(notes, "a.q_proj is pack-quantized, a.k_proj the same with other numbers: vLLM fuses them"));
  CHECK(mentions(notes, "a.q_proj is pack-quantized, a.v_proj not quantized: vLLM fuses them"));
  CHECK(mentions(notes, "loaders that fuse them take the larger scale for both, share_state makes it one"));
  CHECK(mentions(notes, "table: not a linear layer"));
  CHECK(mentions(notes, "table: one scale for all of a packed weight"));
  CHECK_FALSE(mentions(notes, "m.gate_proj is"));
  auto const quantization = b.quantization();
  for (auto const& [key, group] : quantization.at("config_groups").items())
    CHECK(group.at("targets").dump().find("Linear") == std::string::npos);
  ct_bench plain;
  plain.add_layer("fc", 4, 32);
  plain.write_source();
  plain.m = std::make_unique<mixbit::model<cpu_backend>>(plain.host);
  CHECK(mentions(plain.run_ct(), "no module is quantized"));
  CHECK_FALSE(plain.json("config.json").contains("quantization_config"));
}

TEST_CASE("compressed-tensors: groups and blocks that vLLM's kernels do not take are spoken of") {
  bit_spec const e4m3{4, 3};
  auto const notes_of = [](quantizer_attribute_config const& weight, std::int64_t rows, std::int64_t columns) {
    ct_bench b;
    for (char const* name : {"l.q_proj", "l.k_proj", "l.v_proj", "l.o_proj"}) b.add_layer(name, rows, columns);
    b.quantize([&](auto& c) { turn_on(c, "*weight_quantizer", weight); });
    return b.run_ct();
  };
  CHECK(mentions(notes_of(blocks(4, {{-1, 16}}), 4, 64),
                 "l.o_proj: groups of 16; vLLM's Marlin kernel takes groups of 32, 64 and 128"));
  CHECK(mentions(notes_of(blocks(8, {{-1, 256}}), 4, 256), "groups of 256"));
  for (int const size : {32, 64, 128}) CHECK(notes_of(blocks(4, {{-1, size}}), 4, 128).empty());
  CHECK(notes_of(per_axis(4, 0), 4, 128).empty());
  CHECK(notes_of(nvfp4(), 4, 64).empty());  // groups of 16, and no packed integers

  auto const small = notes_of(blocks(e4m3, {{-1, 64}, {-2, 128}}), 128, 128);
  CHECK(mentions(small, "l.q_proj: blocks of 128x64; of vLLM's kernels only Triton's take others"));
  CHECK_FALSE(mentions(small, "no whole blocks"));
  auto const usual = blocks(e4m3, {{-1, 128}, {-2, 128}});
  CHECK(notes_of(usual, 128, 256).empty());
  CHECK(mentions(notes_of(usual, 128, 192), "l.o_proj: rows of 192 elements are no whole blocks of 128"));
  auto const fused = notes_of(usual, 130, 128);
  CHECK(mentions(fused, "l.q_proj: 130 outputs are no whole blocks of 128; vLLM fuses it"));
  CHECK(mentions(fused, "l.k_proj: 130 outputs"));
  CHECK_FALSE(mentions(fused, "l.v_proj: 130"));  // the last of those that are fused
  CHECK_FALSE(mentions(fused, "l.o_proj: 130"));
  ct_bench experts;
  for (char const* name : {"e.w1", "e.w2", "e.w3"}) experts.add_layer(name, 130, 128);
  experts.quantize([&](auto& c) { turn_on(c, "*weight_quantizer", usual); });
  auto const mixtral = experts.run_ct();
  CHECK(mentions(mixtral, "e.w1: 130 outputs are no whole blocks of 128; vLLM fuses it"));
  CHECK_FALSE(mentions(mixtral, "e.w2: 130"));
  CHECK_FALSE(mentions(mixtral, "e.w3: 130"));
}
