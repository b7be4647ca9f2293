// The rules of attributes and algorithms: golden/validation.json, and what a caller from C++ can get wrong.
#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "golden_suites/validation.hpp"
#include "mixbit/config/quantize_config.hpp"
#include "support/error_text.hpp"

using namespace mixbit;

TEST_CASE("attributes, quant_cfg and algorithms get ModelOpt's verdict and normal form") {
  suite_result const result = run_validation(MIXBIT_GOLDEN_DIR);
  for (std::string const& message : result.messages) FAIL_CHECK(message);
  CHECK(result.passed == 76 + 23 + 32);
  CHECK(result.failed == 0);
}

TEST_CASE("block sizes of 0 and -4, a type \"sometimes\" and an axis \"0\" are refused, though ModelOpt takes them") {
  auto const refuses = [](char const* text, char const* field) {
    std::string const said =
        test::error_text(error_id::config_value, [&] { attributes_from_json(config_json::parse(text), "cfg"); });
    CHECK_MESSAGE(test::says(said, field), said);
  };
  refuses(R"({"block_sizes": {"-1": 0}})", "cfg.block_sizes[-1]");
  refuses(R"({"block_sizes": {"-1": -4}})", "cfg.block_sizes[-1]");
  refuses(R"({"block_sizes": {"-1": 16, "type": "sometimes"}})", "cfg.block_sizes.type");
  refuses(R"({"axis": "0"})", "cfg.axis");
  refuses(R"({"block_sizes": {"-1": 16, "scale_block_sizes": {"-1": 0}}})", "cfg.block_sizes.scale_block_sizes[-1]");
}

TEST_CASE("attributes written in C++ are held to the same rules") {
  auto const refuses = [](error_id id, quantizer_attribute_config const& c, char const* field) {
    std::string const said = test::error_text(id, [&] { c.validate("w"); });
    CHECK_MESSAGE(test::says(said, field), said);
  };
  refuses(error_id::config_value, {.num_bits = 0}, "w.num_bits: must be positive, got 0");
  refuses(error_id::config_value, {.num_bits = {3, 4}}, "w.num_bits: [3,4]");
  refuses(error_id::config_value, {.num_bits = ""}, "w.num_bits");
  refuses(error_id::config_conflict, {.num_bits = {5, 2}}, "w.num_bits");
  refuses(error_id::config_conflict, {.axis = 0, .block_sizes = block_config{{{-1, 16}}}}, "w.block_sizes");
  refuses(error_id::config_conflict, {.axis = {1, 1}}, "w.axis: axis 1 is given twice");
  refuses(error_id::config_conflict, {.block_sizes = block_config{{{-1, 16}, {-1, 8}}}}, "w.block_sizes: axis -1");
  refuses(error_id::config_conflict, {.block_sizes = block_config{{{-1, 16}, {-2, 8}}, quantizer_type::dynamic_type}},
          "w.block_sizes: dynamic blocks take exactly one axis, got 2");
  refuses(error_id::config_value, {.block_sizes = block_config{{{-1, 16}}, {}, bit_spec{-1, 3}}},
          "w.block_sizes.scale_bits");
  refuses(error_id::config_value, {.effective_bits = std::numeric_limits<double>::quiet_NaN()}, "w.effective_bits");
  refuses(error_id::config_value, {.effective_bits = 16.25}, "16.25");
  refuses(error_id::config_conflict, {.bias = bias_config{}}, "w.bias");
  refuses(error_id::config_value, {.calibrator = "entropy"}, "w.calibrator: 'entropy' is a method of");
  refuses(error_id::config_value, {.constant_amax = 0.0}, "w.constant_amax");
  refuses(error_id::config_conflict, {.use_constant_amax = true, .constant_amax = 1.0}, "w.constant_amax");
  refuses(error_id::config_value, {.learn_amax = true}, "w.learn_amax");
  quantizer_attribute_config wide{.num_bits = {3, 2}, .block_sizes = block_config{{{-1, 32}}}};
  wide.block_sizes->type = quantizer_type::dynamic_type;
  CHECK_NOTHROW(wide.validate("w"));
  CHECK_NOTHROW((quantizer_attribute_config{.num_bits = 0, .backend = "mine"}.validate("w")));
}

TEST_CASE("equality is of meaning: the order of block axes and how a field was written say nothing") {
  quantizer_attribute_config const a{.block_sizes = block_config{{{-1, 16}, {-2, 8}}}};
  quantizer_attribute_config b{.block_sizes = block_config{{{-2, 8}, {-1, 16}}}};
  CHECK(a == b);
  b.written.value = bit_of(attribute_field::num_bits);
  CHECK(a == b);
  b.block_sizes->axes[0].size = 9;
  CHECK_FALSE(a == b);
  CHECK(bit_spec{4, 3}.bits() == 8);
  CHECK_FALSE(bit_spec{4, 3} == bit_spec{8});
}

TEST_CASE("algorithm parameters have ModelOpt's defaults, and errors say the range") {
  algorithm_step const step{"awq_clip", {{"max_co_batch_size", std::int64_t{64}}}};
  CHECK(step.integer("max_co_batch_size") == 64);
  CHECK(step.integer("max_tokens_per_batch") == 64);
  CHECK(step.number("min_clip_ratio") == 0.5);
  CHECK(step.number("shrink_step") == 0.05);
  CHECK(algorithm_step{"local_hessian"}.flag("fp8_scale_sweep"));
  CHECK_FALSE(algorithm_step{"mse"}.flag("fp8_scale_sweep"));
  CHECK(algorithm_step{"awq_full"}.number("alpha_step") == 0.1);
  CHECK_THROWS_AS(algorithm_step{"awq_lite"}.number("min_clip_ratio"), error);
  auto const refuses = [](error_id id, algorithm_step const& s, char const* part) {
    std::string const said = test::error_text(id, [&] { s.validate("algorithm"); });
    CHECK_MESSAGE(test::says(said, part), said);
  };
  refuses(error_id::config_value, {"smoothquant", {{"alpha", 1.5}}}, "algorithm.alpha: 1.5 is not in [0, 1]");
  refuses(error_id::config_value, {"awq_clip", {{"min_clip_ratio", 1.0}}}, "is not in (0, 1)");
  refuses(error_id::config_value, {"mse", {{"step_size", std::numeric_limits<double>::infinity()}}}, "step_size");
  refuses(error_id::config_value, {"svdquant", {{"lowrank", 8.5}}}, "algorithm.lowrank: must be an integer");
  refuses(error_id::config_value, {"gptq", {{"layerwise", 1.0}}}, "algorithm.layerwise: must be true or false");
  refuses(error_id::config_unknown_field, {"gptq", {{"percdamp", 0.1}}}, "close: perc_damp");
  refuses(error_id::config_unknown_field, {"smothquant"}, "close: smoothquant");
  refuses(error_id::config_conflict, {"gptq", {{"perc_damp", 0.1}, {"perc_damp", 0.2}}}, "given twice");
  refuses(error_id::config_conflict, {"gptq", {{"layerwise_checkpoint_dir", std::string{"d"}}}}, "layerwise = true");
}

TEST_CASE("an algorithm that is not said is max, null is none, a list runs in order") {
  CHECK(algorithm_config{}.steps() == std::vector{algorithm_step{"max"}});
  CHECK(algorithm_config::none().steps().empty());
  algorithm_config const two{std::vector{algorithm_step{"smoothquant"}, algorithm_step{"nope"}}};
  CHECK(test::says(test::error_text(error_id::config_unknown_field, [&] { two.validate(); }), "algorithm[1]", "nope"));
}
