#include "mixbit/config/json.hpp"

#include <doctest/doctest.h>

#include <string>

#include "golden_suites/config_case.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;

namespace {

std::string refused(error_id id, std::string const& text) {
  return test::error_text(id, [&] { config_from_json(text, "mine"); });
}

std::string entry_refused(error_id id, std::string const& entry) {
  return refused(id, R"({"quant_cfg": [{"quantizer_name": "*", "enable": false}, )" + entry + "]}");
}

}  // namespace

TEST_CASE("every preset survives text and back, under the presets' rule for names") {
  for (std::string_view name : preset_names()) {
    CAPTURE(name);
    quantize_config const original = preset(name);
    CHECK(same_content(config_from_json(config_to_text(original), "x"), original));
    quantize_config renamed = original;
    renamed.name = "mine";
    quantize_config const read = config_from_json(config_to_text(renamed), "x");
    CHECK(read.name == "mine");
    CHECK(same_content(read, original));
    CHECK(golden::same_json(config_to_json(read), config_to_json(original)));
    for (quantizer_entry const& e : read.entries) CHECK(e.origin == entry_origin::imported);
  }
}

TEST_CASE("a config with every field set survives") {
  quantizer_attribute_config all{.enable = false, .num_bits = "own", .effective_bits = 4.25, .fake_quant = false,
                                 .is_unsigned = true, .narrow_range = true, .type = quantizer_type::dynamic_type,
                                 .trt_high_precision_dtype = "Half", .calibrator = "histogram",
                                 .pass_through_bwd = false, .backend = "mine", .constant_amax = 3.5};
  all.block_sizes = block_config{{{-1, 16}, {-2, std::nullopt}}, quantizer_type::static_type, bit_spec{8}, {{-1, 256}}};
  all.block_sizes->four_over_six = true;
  all.bias = bias_config{{-2, -4}, quantizer_type::dynamic_type, bias_method::max_min};
  all.rotate.enable = true;
  all.rotate.mode = rotate_mode::rotate_back;
  all.rotate.rotate_fp32 = true;
  all.rotate.block_size = 64;
  all.backend_extra_args = R"({"b":[1,2],"a":null})";
  for (json_form form : {json_form::sparse, json_form::normal})
    CHECK(attributes_from_json(attributes_to_json(all, form)) == all);
  for (axis_list const& axis : {axis_list{}, axis_list{-1}, axis_list{0, 2}, axis_list{std::vector{1}}}) {
    quantizer_attribute_config const c{.axis = axis, .use_constant_amax = true};
    config_json const j = attributes_to_json(c);
    CHECK(attributes_from_json(j) == c);
    CHECK(j.contains("axis") == !axis.per_tensor());
    if (axis.tuple.value) CHECK(j["axis"].is_array());
  }
}

TEST_CASE("the three forms of quant_cfg mean the same") {
  config_json const list = config_json::parse(R"([{"quantizer_name": "*", "enable": false},
      {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4}},
      {"quantizer_name": "*", "parent_class": "nn.Conv2d", "cfg": {"num_bits": 8}, "enable": false}])");
  config_json const keyed = config_json::parse(R"([{"*": {"enable": false}}, {"*weight_quantizer": {"num_bits": 4}},
      {"nn.Conv2d": {"*": {"num_bits": 8, "enable": false}}}])");
  config_json const legacy = config_json::parse(R"({"default": {"enable": false}, "*weight_quantizer": {"num_bits": 4},
      "nn.Conv2d": {"*": {"num_bits": 8, "enable": false}}})");
  CHECK(quant_cfg_from_json(list) == quant_cfg_from_json(keyed));
  CHECK(quant_cfg_from_json(list) == quant_cfg_from_json(legacy));
  CHECK(quant_cfg_to_json(quant_cfg_from_json(legacy)) == list);
}

TEST_CASE("the legacy form keeps the order of its keys") {
  auto const entries = quant_cfg_from_json(config_json::parse(R"({"*z": {"num_bits": 4}, "default": {"num_bits": 6},
      "*a": {"num_bits": 8}, "nn.Linear": {"*y": {"enable": true}, "*b": [{"num_bits": 4}, {"num_bits": [4, 3]}]}})"));
  REQUIRE(entries.size() == 5);
  CHECK(entries[0].quantizer_name.label() == "*z");
  CHECK(entries[1].quantizer_name.label() == "*");
  CHECK(entries[2].quantizer_name.label() == "*a");
  CHECK(entries[3].quantizer_name.label() == "*y");
  CHECK(entries[3].enable);
  CHECK_FALSE(entries[3].cfg);
  CHECK(entries[4].parent_class == "nn.Linear");
  CHECK(entries[4].is_sequential());
  CHECK(entries[4].cfg->at(1).num_bits == bit_spec{4, 3});
}

TEST_CASE("errors name the field's path and the value") {
  auto const value = error_id::config_value;
  CHECK(test::says(entry_refused(value, R"({"quantizer_name": "*", "cfg": {"num_bits": 4.5}})"),
                   "mine: quant_cfg[1].cfg.num_bits", "4.5"));
  CHECK(test::says(entry_refused(value, R"({"quantizer_name": "*", "cfg": [{"num_bits": 4}, {"num_bits": 0}]})"),
                   "quant_cfg[1].cfg[1].num_bits", "0"));
  CHECK(test::says(entry_refused(value, R"({"*w": {"block_sizes": {"-1": "x"}}})"),
                   "quant_cfg[1][\"*w\"].block_sizes[-1]", "\"x\""));
  CHECK(test::says(entry_refused(value, R"({"quantizer_name": 3, "enable": true})"), "[1].quantizer_name", "3"));
  CHECK(test::says(entry_refused(value, R"({"quantizer_name": "", "enable": true})"), "quantizer_name is empty"));
  CHECK(test::says(entry_refused(value, R"({"nn.Linear": 3})"), "quant_cfg[1][\"nn.Linear\"]", "3"));
  CHECK(test::says(entry_refused(value, R"({"*": {"num_bits": 99999999999999999999}})"), "num_bits"));
  CHECK(test::says(entry_refused(value, R"({"*": {"bias": {"-1": 16}}})"), "bias[-1]", "16"));
  auto const unknown = error_id::config_unknown_field;
  CHECK(test::says(entry_refused(unknown, R"({"quantizer_name": "*", "cfg": {"num_bit": 4}})"),
                   "quant_cfg[1].cfg.num_bit", "close: num_bits"));
  CHECK(test::says(entry_refused(unknown, R"({"quantizer_name": "*", "enabled": true})"), "quant_cfg[1].enabled"));
  CHECK(test::says(entry_refused(unknown, R"({"*": {"rotate": {"enabel": true}}})"), "rotate.enabel"));
  CHECK(test::says(refused(unknown, R"({"quant_cfg": [], "algorithms": "max"})"), "mine", "algorithms"));
  CHECK(test::says(refused(unknown, R"({"quant_cfg": [], "algorithm": "nope"})"), "mine: algorithm", "nope"));
  CHECK(test::says(refused(unknown, R"({"quant_cfg": [], "algorithm": ["max", {"method": "gptq", "damp": 1}]})"),
                   "algorithm[1]", "damp"));
  auto const conflict = error_id::config_conflict;
  CHECK(test::says(entry_refused(conflict, R"({"quantizer_name": "*"})"), "quant_cfg[1]: needs cfg, enable or both"));
  CHECK(test::says(entry_refused(conflict, R"({"*a": {"num_bits": 8}, "*b": {"num_bits": 4}})"), "quant_cfg[1]"));
  CHECK(test::says(entry_refused(conflict, R"({"quantizer_name": "*", "cfg": {"enable": true}})"), "quant_cfg[1].cfg"));
  CHECK(test::says(refused(conflict, R"({"quant_cfg": [], "algorithm": {"alpha": 1}})"), "names no method"));
}

TEST_CASE("text that is no config is one clear error") {
  auto const id = error_id::config_json;
  CHECK(test::says(refused(id, R"({"quant_cfg": [)"), "mine: not JSON at byte"));
  CHECK(test::says(refused(id, ""), "mine: not JSON"));
  CHECK(test::says(refused(id, "\xff"), "mine: not JSON"));
  CHECK(test::says(refused(id, "[]"), "quant_cfg"));
  CHECK(test::says(refused(id, R"({"quant_cfg": {"*": {"num_bits": 8}, "*": {"num_bits": 4}}})"),
                   "mine: the key '*' appears twice in 'quant_cfg'"));
  CHECK(test::says(refused(id, std::string{R"({"quant_cfg": []})"} + '\0' + "more"),
                   "mine: not JSON: a NUL at byte 17"));
}

TEST_CASE("an algorithm keeps its form") {
  for (char const* text : {"null", "\"max\"", R"({"method":"max"})", R"({"method":"smoothquant","alpha":0.5})",
                           R"(["max",{"method":"gptq","block_size":64,"fused":false}])", R"(["max"])"})
    CHECK(algorithm_to_json(algorithm_from_json(config_json::parse(text))).dump() == text);
  config_json const defaulted = config_json::parse(R"({"method": "smoothquant", "alpha": null})");
  CHECK(algorithm_from_json(defaulted).steps().at(0).number("alpha") == 1.0);
}

TEST_CASE("a callable cannot be written") {
  std::vector<quantizer_entry> const entries{{.quantizer_name = pattern{[](std::string_view) { return true; }, "big"}}};
  std::string const text = test::error_text(error_id::config_json, [&] { quant_cfg_to_json(entries); });
  CHECK_MESSAGE(test::says(text, "quant_cfg[0]", "big"), text);
}

TEST_CASE("files: the name is said or the file's, never a preset's") {
  test::temporary_folder folder;
  std::string const body = R"("quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 6}}]})";
  test::write_text(folder / "six.json", "{" + body);
  CHECK(config_from_file(folder / "six.json").name == "six");
  CHECK(load_config((folder / "six.json").string()).entries.at(0).origin == entry_origin::user);
  test::write_text(folder / "other.json", R"({"name": "bits6", )" + body);
  CHECK(config_from_file(folder / "other.json").name == "bits6");
  test::write_text(folder / "INT8_DEFAULT.json", "{" + body);
  std::string const taken =
      test::error_text(error_id::config_conflict, [&] { config_from_file(folder / "INT8_DEFAULT.json"); });
  CHECK_MESSAGE(test::says(taken, (folder / "INT8_DEFAULT.json").string(), "INT8_DEFAULT_CFG", "rename"), taken);
  test::write_text(folder / "huge.json", R"({"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": 1e999}}]})");
  std::string const huge = test::error_text(error_id::config_json, [&] { config_from_file(folder / "huge.json"); });
  CHECK_MESSAGE(test::says(huge, (folder / "huge.json").string(), "1e999"), huge);
  test::write_text(folder / "FP8_DEFAULT_CFG.json", config_to_text(preset("FP8_DEFAULT")));
  quantize_config const known = config_from_file(folder / "FP8_DEFAULT_CFG.json");
  CHECK(known.entries.at(1).origin == entry_origin::preset);
  CHECK(load_config("NVFP4_DEFAULT").name == "NVFP4_DEFAULT_CFG");
  std::string const absent = (folder / "no.json").string();
  CHECK(test::says(test::error_text(error_id::file_open, [&] { load_config(absent); }), "no.json"));
  CHECK(test::says(test::error_text(error_id::file_open, [&] { config_from_file(folder.path()); }), "cannot be read"));
  CHECK(test::says(test::error_text(error_id::config_unknown_field, [] { load_config("FP8_DEFALT"); }),
                   "neither a preset nor a file", "FP8_DEFAULT_CFG"));
}
