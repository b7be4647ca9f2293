// What a search refuses or says of key/value caches: which are counted, and what may share a group or a space.
#include "mixbit/autoquant/cache_rules.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/json.hpp"
#include "support/attention_host.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

model_options<cpu_backend> lenient() {
  model_options<cpu_backend> options;
  options.strict = false;
  return options;
}

std::string refusal(error_id id, search_options const& o, bool strict = true) {
  attention_host net;
  model<cpu_backend> m{net, strict ? model_options<cpu_backend>{} : lenient()};
  return error_text(id, [&] { search<cpu_backend>{m, o}; });
}

/// A layer with a weight that also holds a cache, in one class.
struct fused_layer {
  linear_layer layer;
  template <class Visit>
  void walk(Visit&& visit) {
    visit(module("mixer", "fused", layer.slots, layer.weight, layouts::linear));
  }
};

quantize_config cache_alone() {
  auto config = preset("FP8_KV_CFG");
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .enable = false});
  return config;
}

}  // namespace

TEST_CASE("cache rules: a format of the cache alone is none for a module with a weight") {
  fused_layer net;
  net.layer.weight = random_matrix(32, 32, 5);
  model_options<cpu_backend> with;
  with.classes.declare("fused", {{"input_quantizer"}, {"weight_quantizer"}, {key_quantizer.data()},
                                 {value_quantizer.data()}});
  model<cpu_backend> m{net, with};
  search_options const o{.formats = {cache_alone()}, .target = 12.0};
  auto const refused = error_text(error_id::config_no_match, [&] { search<cpu_backend>{m, o}; });
  CHECK_MESSAGE(says(refused, "FP8_KV_CFG quantizes no weight of mixer"), refused);
  quantization_plan plan;
  plan.formats = {{"keys", cache_alone(), 8}};
  plan.modules = {{"mixer", "keys", {}}};
  search_steps const steps{.calibration = 1, .calibrate = [](int) {}};
  CHECK(says(error_text(error_id::config_no_match, [&] { apply_plan(m, plan, steps); }), "no weight of mixer"));
}

TEST_CASE("cache rules: attentions without an owner are said, and only counted caches are in the cost's name") {
  attention_host net;
  model<cpu_backend> m{net, lenient()};
  auto o = with_cache();
  o.kv_cache->owners[0].modules = "layers.1.attn";
  auto const some = search<cpu_backend>{m, o}.resolved(1, 1);
  CHECK(mentions(some.notes, "layers.0.attn", "one of 1 attentions whose key/value caches are not counted"));
  CHECK(to_text(some).find("key/value cache of 40 tokens") != std::string::npos);
  o.kv_cache->owners[0].modules = "nowhere";
  auto const none = search<cpu_backend>{m, o}.resolved(1, 1);
  CHECK(mentions(none.notes, "layers.0.attn", "one of 2 attentions whose key/value caches are not counted"));
  CHECK(to_text(none).find("key/value cache of") == std::string::npos);
  CHECK_FALSE(mentions(search<cpu_backend>{m, with_cache()}.resolved(1, 1).notes, "kv_cache", "not counted"));
}

TEST_CASE("cache rules: what all caches hold together is bounded, so that no sum of bits overflows") {
  auto o = with_cache();
  o.target = 16.0;
  o.kv_cache->tokens = std::int64_t{1} << 34;
  o.kv_cache->owners = {{"layers.0.*", 1 << 4, 1 << 12}, {"layers.1.*", 1 << 4, 1 << 12}};  // 2^51 elements each
  attention_host net;
  model<cpu_backend> m{net};
  auto const counted = search<cpu_backend>{m, o}.stats();
  CHECK(group_named(counted, "layers.1.attn").candidates.at(0).bits == std::int64_t{1} << 55);
  o.kv_cache->owners[1].value_dim = (1 << 12) + 1;
  CHECK(says(refusal(error_id::config_value, o), "up to layers.1.attn", "can be counted"));
  o.kv_cache->tokens = std::int64_t{1} << 36;
  o.kv_cache->owners = {{"layers.*", 1 << 9, 1 << 12}};  // 2^58 of one attention
  CHECK(says(refusal(error_id::config_value, o), "up to layers.0.attn", "288230376151711744 elements"));
}

TEST_CASE("cache rules: a group of weights and a cache is refused, whichever is walked first") {
  auto const by_layer = [](std::string_view name) -> std::optional<std::string> {
    return std::string{name.substr(0, std::string_view{"layers.0"}.size())};
  };
  auto const attention_first = [](std::string_view name) -> std::optional<std::string> {
    if (name.ends_with(".attn") || name.ends_with(".o_proj")) return std::string{name.substr(0, 8)};
    return std::nullopt;
  };
  for (auto const& rule : {grouping_rule{"layer", by_layer}, grouping_rule{"tail", attention_first}}) {
    auto o = with_cache();
    o.grouping = {rule};
    auto const text = refusal(error_id::config_conflict, o);
    CHECK_MESSAGE(says(text, "by '" + rule.label() + "'", "layers.0.attn.o_proj", "cache of layers.0.attn,"), text);
  }
}

TEST_CASE("cache rules: a space covers weights or caches, as a format of one leaves the other as it is by default") {
  auto o = with_cache();
  o.target = 16.0;
  o.module_search_spaces = {{{"layers.1.attn*"}, {preset("FP8_KV_CFG")}, true}};
  CHECK(says(refusal(error_id::config_conflict, o), "module_search_spaces[0] 'layers.1.attn*'",
             "weight of layers.1.attn.o_proj", "cache of layers.1.attn,"));
  o.disabled_layers = {"layers.1*_proj"};
  CHECK(refusal(error_id::config_conflict, o) == "(no error)");
}

TEST_CASE("cache rules: a format of caches alone is no format of layers, which would be INT8 under its name") {
  search_options o;
  o.target = 12.0;
  o.formats = {preset("FP8_KV_CFG")};
  auto const refused = refusal(error_id::config_no_match, o);
  CHECK_MESSAGE(says(refused, "format FP8_KV_CFG has no entry for the weight of layers.0."), refused);
  o.formats = {combine(preset("INT8_DEFAULT_CFG"), preset("FP8_KV_CFG"))};
  CHECK(refusal(error_id::config_no_match, o) == "(no error)");
}

TEST_CASE("cache rules: a format is read off a module that it quantizes, or left out with a note") {
  attention_host net;
  model<cpu_backend> any{net, lenient()};
  auto o = with_searched_cache();
  o.disabled_layers = {"layers.*.attn"};
  o.target = 16.0;
  search<cpu_backend> disabled{any, o};
  CHECK(disabled.formats().size() == 3);  // read off an attention, though none may have it
  CHECK(mentions(disabled.resolved(1, 1).notes, "FP8_KV_CFG", "candidate of no layer"));
  o.kv_cache.reset();
  auto off = cache_alone();
  o.disabled_layers.clear();
  o.module_search_spaces = {{{"layers.*.attn"}, {off}, true}};
  search<cpu_backend> skipped{any, o};
  CHECK(skipped.formats().size() == 1);
  CHECK(mentions(skipped.resolved(1, 1).notes, "FP8_KV_CFG", "quantizes no layer"));
  CHECK(says(refusal(error_id::config_no_match, o), "'layers.*.attn'"));
}

TEST_CASE("cache rules: a fixed config whose layers are all in spaces is not read off an attention") {
  attention_host net;
  net.attention_first = true;
  model<cpu_backend> m{net};
  search_options o{.target = 16.0};
  o.method = score_method::kl_div;
  o.kv_cache = with_cache().kv_cache;
  o.fixed_quantization_config = preset("INT8_DEFAULT_CFG");
  o.module_search_spaces = {{{"*_proj"}, {preset("FP8_DEFAULT_CFG")}, true}};
  CHECK(search<cpu_backend>{m, o}.formats().size() == 2);
}
