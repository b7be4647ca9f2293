#include "mixbit/config/presets.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "golden_suites/presets.hpp"
#include "support/error_text.hpp"

using namespace mixbit;

TEST_CASE("all 39 presets equal ModelOpt's as JSON") {
  suite_result const result = run_presets(MIXBIT_GOLDEN_DIR);
  for (std::string const& message : result.messages) FAIL_CHECK(message);
  CHECK(result.passed == 39);
  CHECK(result.failed == 0);
}

TEST_CASE("a preset goes by its name with and without the ending") {
  CHECK(preset("FP8_DEFAULT").name == "FP8_DEFAULT_CFG");
  CHECK(same_content(preset("FP8_DEFAULT"), preset("FP8_DEFAULT_CFG")));
  CHECK(preset("NVFP4_FP8_MHA").name == "NVFP4_FP8_MHA_CONFIG");
  CHECK(preset_full_name("FP8").empty());
  CHECK(preset_full_name("").empty());
}

TEST_CASE("an unknown preset names what comes close") {
  std::string const text = test::error_text(error_id::config_unknown_field, [] { preset("INT8_DEFALT_CFG"); });
  CHECK_MESSAGE(test::says(text, "INT8_DEFALT_CFG", "close: INT8_DEFAULT_CFG"), text);
}

TEST_CASE("every preset is valid, and its entries know where they come from") {
  for (std::string_view name : preset_names()) {
    CAPTURE(name);
    quantize_config const config = preset(name);
    CHECK_NOTHROW(config.validate());
    for (quantizer_entry const& e : config.entries)
      CHECK(e.origin == (e.cfg ? entry_origin::preset : entry_origin::default_rule));
    CHECK(std::any_of(config.entries.begin(), config.entries.end(), [](auto const& e) { return e.cfg && e.enable; }));
  }
}

TEST_CASE("presets combine: entries follow one another, the algorithm is the first that is said") {
  quantize_config const both = combine(preset("FP8_KV"), preset("INT8_SMOOTHQUANT"));
  CHECK(both.entries.size() == preset("FP8_KV").entries.size() + preset("INT8_SMOOTHQUANT").entries.size());
  CHECK(both.algorithm == algorithm_config{"smoothquant"});
  CHECK(both.name == "FP8_KV_CFG+INT8_SMOOTHQUANT_CFG");
  CHECK(combine(preset("MXFP4_DEFAULT"), preset("FP8_KV")).algorithm == algorithm_config::none());
}
