#include "mixbit/io/hf_kv_cache.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "support/cache_bench.hpp"
#include "support/error_text.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

using attentions = cache_bench<export_bench>;

}  // namespace

TEST_CASE("hf kv cache: a scale beside each projection, and one word for the model") {
  attentions a;
  a.quantize(with_cache("FP8_KV_CFG"));
  a.run();
  CHECK(a.scale("l.0.self_attn.k_proj.k_scale") == 7.0f / 448.0f);
  CHECK(a.scale("l.0.self_attn.v_proj.v_scale") == 3.0f / 448.0f);
  CHECK(a.scale("l.1.self_attn.k_proj.k_scale") == 5.0f / 448.0f);
  CHECK(a.scale("l.1.self_attn.v_proj.v_scale") == 1.0f);
  CHECK(a.file().at("l.1.self_attn.v_proj.v_scale").rank == 0);
  CHECK(a.json("hf_quant_config.json")["quantization"].dump() ==
        R"({"quant_algo":"FP8","kv_cache_quant_algo":"FP8","exclude_modules":[]})");
  auto const config = a.json("config.json")["quantization_config"];
  CHECK(config["kv_cache_scheme"].dump() == R"({"dynamic":false,"num_bits":8,"type":"float"})");
}

TEST_CASE("hf kv cache: NVFP4's scales are amax/448 too") {
  attentions a;
  a.quantize(with_cache("NVFP4_KV_CFG"));
  a.run();
  CHECK(a.scale("l.0.self_attn.k_proj.k_scale") == 7.0f / 448.0f);
  CHECK(a.json("hf_quant_config.json")["quantization"]["kv_cache_quant_algo"] == "NVFP4");
  CHECK(a.json("config.json")["quantization_config"]["kv_cache_scheme"] == "NVFP4");
}

TEST_CASE("hf kv cache: it may be all that is quantized, or not be there") {
  attentions a;
  a.quantize(cache_alone(whole({4, 3}), whole({4, 3})));
  CHECK(a.run().empty());
  CHECK(a.json("hf_quant_config.json")["quantization"].dump() ==
        R"({"quant_algo":null,"kv_cache_quant_algo":"FP8","exclude_modules":[]})");
  auto const config = a.json("config.json")["quantization_config"];
  CHECK_FALSE(config.contains("quant_algo"));
  CHECK(config["quant_method"] == "modelopt");
  disable_quantizer(*a.m, "*_bmm_quantizer");
  CHECK(mentions(a.run(), "no module is quantized"));
  CHECK_FALSE(a.json("config.json").contains("quantization_config"));
  CHECK(a.json("hf_quant_config.json")["quantization"]["kv_cache_quant_algo"].is_null());
}

TEST_CASE("hf kv cache: zeros alone are said, since loaders divide by the scale") {
  attentions a;
  a.quantize(with_cache("FP8_KV_CFG"), 0.0f);
  CHECK(mentions(a.run(), "l.0.self_attn.v_bmm_quantizer: was always shown zeros"));
}

TEST_CASE("hf kv cache: keys without values, other formats and an attention left out are refused by name") {
  auto eight = whole(8), dynamic = whole({4, 3});
  dynamic.type = quantizer_type::dynamic_type;
  auto const fp8 = whole({4, 3});
  auto off = fp8;
  off.enable = false;
  for (auto const& [keys, values, said] :
       {std::tuple{fp8, off, "values not quantized"}, {off, fp8, "keys not quantized"}, {eight, eight, "keys int8"},
        {fp8, eight, "keys e4m3 per tensor, static with values int8"},
        {dynamic, dynamic, "e4m3 per tensor, dynamic"}}) {
    attentions a;
    auto config = cache_alone(keys, values);
    config.name = "MINE";
    auto const early = error_text(error_id::format_value, [&] { require_hf_forms(*a.m, config); });
    CHECK_MESSAGE(says(early, "MINE: l.0.self_attn: no Hugging Face form", said), early);
    a.quantize(config);
    auto const text = error_text(error_id::format_value, [&] { a.run(); });
    CHECK_MESSAGE(says(text, "l.0.self_attn: no Hugging Face form", said), text);
    CHECK_FALSE(std::filesystem::exists(a.out()));
  }
  attentions a;
  auto config = with_cache("FP8_KV_CFG");
  config.entries.push_back({"l.1.*", std::nullopt, std::nullopt, false});
  auto const both = "l.0.self_attn and l.1.self_attn differ in their key/value caches: FP8 and not quantized";
  CHECK(says(error_text(error_id::format_value, [&] { require_hf_forms(*a.m, config); }), both));
  a.quantize(config);
  CHECK(says(error_text(error_id::format_value, [&] { a.run(); }), both));
  attentions queries;
  config = with_cache("FP8_KV_CFG");
  turn_on(config, "*q_bmm_quantizer", dynamic);
  queries.quantize(config);
  CHECK(says(error_text(error_id::format_value, [&] { queries.run(); }), "l.0.self_attn.q_bmm_quantizer", "disable"));
}

TEST_CASE("hf kv cache: a search may choose among formats where all attentions choose together, and else has one") {
  attentions a;
  search_options o{.formats = {preset("FP8_DEFAULT_CFG")}, .target = 16.0};
  o.method = score_method::kl_div;
  o.kv_cache = kv_cache_cost{.tokens = 8, .owners = {{"l.*.self_attn", 1, 16}}};
  auto const said = [&](std::vector<char const*> const& caches, bool none, bool together) {
    std::vector<quantize_config> formats;
    for (char const* name : caches) formats.push_back(preset(name));
    o.module_search_spaces = {{{"*.self_attn"}, std::move(formats), none}};
    o.grouping.clear();
    if (together)
      o.grouping = {{"caches", [](std::string_view name) -> std::optional<std::string> {
                       return name.ends_with("attn") ? std::optional<std::string>{"all"} : std::nullopt;
                     }}};
    search<cpu_backend> const s{*a.m, o};
    return error_text(error_id::format_value, [&] { require_hf_forms(*a.m, s); });
  };
  CHECK(said({"FP8_KV_CFG"}, false, false) == "(no error)");
  CHECK(said({"NVFP4_KV_CFG", "FP8_KV_CFG"}, true, true) == "(no error)");
  auto const apart = said({"FP8_KV_CFG"}, true, false);
  CHECK_MESSAGE(says(apart, "l.0.self_attn and l.1.self_attn may differ", "not quantized and FP8", "grouping rule"),
                apart);
  CHECK(says(said({"NVFP4_KV_CFG", "FP8_KV_CFG"}, false, false), "may differ", "FP8 and NVFP4"));
  CHECK(says(said({"FP8_AFFINE_KV_CFG"}, false, true), "FP8_AFFINE_KV_CFG: l.0.self_attn", "bias"));
  o.kv_cache->owners[0].modules = "l.0.self_attn";
  CHECK(says(said({"FP8_KV_CFG"}, false, false), "l.0.self_attn and l.1.self_attn may differ", "not quantized"));
}

TEST_CASE("hf kv cache: one that saw no data is refused, and so is a source that has a scale already") {
  attentions a;
  a.quantize(with_cache("FP8_KV_CFG"));
  set_quantizer_attributes(*a.m, "l.1.self_attn.v_bmm_quantizer", whole({4, 3}));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { a.run(); }), "l.1.self_attn.v_bmm_quantizer"));
  attentions c;
  c.tensors.emplace_back("l.0.self_attn.k_proj.k_scale", make_weight({1}));
  c.write_source();
  c.quantize(with_cache("FP8_KV_CFG"));
  CHECK(says(error_text(error_id::file_content, [&] { c.run(); }), "'l.0.self_attn.k_proj.k_scale' already"));
}
