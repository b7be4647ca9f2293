#include "mixbit/config/resolve.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "support/error_text.hpp"

using namespace mixbit;

namespace {

std::vector<module_quantizers> small_model() {
  module_class_registry const classes = default_module_classes();
  return {classes.module("embed", "Embedding"), classes.module("fc1", "nn.Linear"), classes.module("conv", "Conv2d"),
          classes.module("attn", "attention")};
}

quantize_config only(std::vector<quantizer_entry> entries) { return {.name = "mine", .entries = std::move(entries)}; }

quantizer_entry off(pattern names) { return {.quantizer_name = std::move(names), .enable = false}; }

quantizer_entry bits(pattern names, int n) {
  return {.quantizer_name = std::move(names), .cfg = {{{.num_bits = n}}}};
}

}  // namespace

TEST_CASE("entries apply in order; matches are counted and the last one is remembered") {
  auto const result = resolve(small_model(), only({off("*"), bits("*weight_quantizer", 4), bits("fc1*", 6)}));
  CHECK(result.quantizers.size() == 13);
  CHECK(result.matches == std::vector<std::size_t>{13, 3, 3});
  CHECK(result.find("conv.weight_quantizer")->attributes.at(0).num_bits == 4);
  CHECK(result.find("conv.weight_quantizer")->decided_by == 1);
  CHECK(result.find("fc1.weight_quantizer")->attributes.at(0).num_bits == 6);
  CHECK(result.find("fc1.output_quantizer")->enabled());
  CHECK(result.find("conv.input_quantizer")->decided_by == 0);
  CHECK_FALSE(result.find("conv.input_quantizer")->enabled());
  CHECK(result.find("nothing") == nullptr);
  CHECK(result.notes.empty());
}

TEST_CASE("what no entry matches stays as its class declares it") {
  auto const result = resolve(small_model(), only({bits("fc1.input_quantizer", 6)}));
  auto const* weight = result.find("conv.weight_quantizer");
  CHECK_FALSE(weight->decided_by);
  CHECK(weight->enabled());
  CHECK(weight->attributes.at(0).axis == axis_list{0});
  CHECK(result.find("embed.weight_quantizer")->attributes.at(0).axis.per_tensor());
  CHECK_FALSE(result.find("fc1.output_quantizer")->enabled());
  CHECK_FALSE(result.find("attn.k_bmm_quantizer")->enabled());
}

TEST_CASE("an entry without cfg keeps the attributes, one with cfg replaces them whole") {
  quantizer_entry const on{.quantizer_name = "fc1.weight_quantizer"};
  auto const kept = resolve(small_model(), only({bits("*", 5), off("*"), on}));
  CHECK(kept.find("fc1.weight_quantizer")->attributes.at(0).num_bits == 5);
  CHECK(kept.enabled_count() == 1);
  quantizer_entry const channel{.quantizer_name = "*weight_quantizer", .cfg = {{{.num_bits = 4, .axis = 1}}}};
  auto const replaced = resolve(small_model(), only({channel, bits("*weight_quantizer", 8)}));
  CHECK(replaced.find("fc1.weight_quantizer")->attributes.at(0).axis.per_tensor());
}

TEST_CASE("an entry may set attributes and leave the quantizer off") {
  quantizer_entry entry = bits("fc1.input_quantizer", 3);
  entry.enable = false;
  auto const result = resolve(small_model(), only({entry}));
  CHECK_FALSE(result.find("fc1.input_quantizer")->enabled());
  CHECK(result.find("fc1.input_quantizer")->attributes.at(0).num_bits == 3);
}

TEST_CASE("a sequential entry puts several attributes, a plain one takes them away, disabling keeps them") {
  quantizer_entry const two{.quantizer_name = "*weight_quantizer", .cfg = {{{.num_bits = 4}, {.num_bits = {4, 3}}}}};
  auto const result = resolve(small_model(), only({two, bits("conv*", 8), off("embed*")}));
  CHECK(result.find("fc1.weight_quantizer")->attributes.size() == 2);
  CHECK(result.find("fc1.weight_quantizer")->attributes.at(1).num_bits == bit_spec{4, 3});
  CHECK(result.find("conv.weight_quantizer")->attributes.size() == 1);
  CHECK(result.find("embed.weight_quantizer")->attributes.size() == 2);
  CHECK_FALSE(result.find("embed.weight_quantizer")->enabled());
  quantizer_entry half = two;
  half.cfg->at(0).enable = false;
  auto const one_of_two = resolve(small_model(), only({half}));
  CHECK_FALSE(one_of_two.find("fc1.weight_quantizer")->attributes.at(0).enable);
  CHECK(one_of_two.find("fc1.weight_quantizer")->enabled());
}

TEST_CASE("a parent class limits an entry, by any of its names") {
  for (char const* name : {"nn.Linear", "Linear", "torch.nn.Linear"}) {
    quantizer_entry entry = bits("*", 7);
    entry.parent_class = name;
    auto const result = resolve(small_model(), only({off("*"), entry}));
    CHECK(result.matches.at(1) == 3);
    CHECK(result.find("fc1.output_quantizer")->enabled());
    CHECK_FALSE(result.find("conv.weight_quantizer")->enabled());
  }
  quantizer_entry absent = bits("*", 7);
  absent.parent_class = "nn.Conv3d";
  std::string const text = test::error_text(error_id::config_no_match, [&] { resolve(small_model(), only({absent})); });
  CHECK_MESSAGE(test::says(text, "mine: entry 0", "\"*\"", "nn.Conv3d"), text);
}

TEST_CASE("a callable stands where a wildcard may") {
  pattern const keys_or_values{[](std::string_view n) { return n[5] == 'k' || n[5] == 'v'; }, "keys or values"};
  auto const result = resolve(small_model(), only({off("*"), bits(keys_or_values, 4)}));
  CHECK(result.matches.at(1) == 2);
  CHECK(result.find("attn.v_bmm_quantizer")->enabled());
}

TEST_CASE("a locked quantizer cannot be turned on") {
  auto const result = resolve(small_model(), only({bits("*", 8), {.quantizer_name = "embed*"}}));
  CHECK_FALSE(result.find("embed.input_quantizer")->enabled());
  CHECK(result.find("embed.weight_quantizer")->enabled());
}

TEST_CASE("a user's entry that matches nothing is an error, or a line where not strict") {
  quantize_config const config = only({bits("*weight_quantizer", 4), off("*fc7*")});
  std::string const text = test::error_text(error_id::config_no_match, [&] { resolve(small_model(), config); });
  CHECK_MESSAGE(test::says(text, "mine: entry 1", "*fc7*", "13 quantizers", "embed.input_quantizer"), text);
  auto const result = resolve(small_model(), config, false);
  REQUIRE(result.notes.size() == 1);
  CHECK(result.notes[0].find("*fc7*") != std::string::npos);
  CHECK(result.matches == std::vector<std::size_t>{3, 0});
}

TEST_CASE("entries of presets, default rules and imports may match nothing, and are listed") {
  auto const result = resolve(small_model(), preset("FP8_DEFAULT"));
  CHECK(result.notes.size() > 10);
  CHECK(result.notes.at(0).find("default_rule") != std::string::npos);
  quantize_config config = only({bits("*weight_quantizer", 4), off("*fc7*")});
  config.entries[1].origin = entry_origin::imported;
  CHECK(resolve(small_model(), config).notes.size() == 1);
}

TEST_CASE("a config that enables nothing is an error, strict or not") {
  for (bool strict : {true, false}) {
    std::string const text =
        test::error_text(error_id::config_no_match, [&] { resolve(small_model(), only({off("*")}), strict); });
    CHECK_MESSAGE(test::says(text, "mine: enables none of 13"), text);
    auto const experts = [&] { resolve(small_model(), preset("NVFP4_EXPERTS_ONLY"), strict); };
    CHECK(test::says(test::error_text(error_id::config_no_match, experts), "NVFP4_EXPERTS_ONLY_CFG"));
  }
  CHECK_THROWS_AS(resolve({}, preset("FP8_DEFAULT")), error);
}

TEST_CASE("the KV-cache presets reach the attention's keys and values") {
  auto const result = resolve(small_model(), combine(preset("INT8_DEFAULT"), preset("FP8_KV")));
  CHECK(result.find("attn.k_bmm_quantizer")->enabled());
  CHECK(result.find("attn.v_bmm_quantizer")->attributes.at(0).num_bits == bit_spec{4, 3});
  CHECK_FALSE(result.find("attn.q_bmm_quantizer")->enabled());
  auto const mha = resolve(small_model(), preset("NVFP4_FP8_MHA"));
  CHECK(mha.find("attn.softmax_quantizer")->enabled());
  auto const rotated = resolve(small_model(), combine(preset("NVFP4_DEFAULT"), preset("NVFP4_KV_ROTATE")));
  CHECK_FALSE(rotated.find("attn.q_bmm_quantizer")->enabled());
  CHECK(rotated.find("attn.q_bmm_quantizer")->attributes.at(0).rotate.enable);
}

TEST_CASE("a wrong attribute is found before anything is resolved") {
  quantize_config const wrong = only({bits("*", 0)});
  std::string const text = test::error_text(error_id::config_value, [&] { resolve(small_model(), wrong); });
  CHECK_MESSAGE(test::says(text, "mine: quant_cfg[0].cfg.num_bits", "0"), text);
}
