#include "mixbit/io/state.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <utility>

#include "mixbit/model/compress.hpp"
#include "mixbit/model/control.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

model_options<cpu_backend> with_linalg() {
  model_options<cpu_backend> options;
  options.linalg = plain_linalg{};
  return options;
}

quantize_config calibrated_by(char const* name, algorithm_config algorithm) {
  auto config = preset(name);
  config.algorithm = std::move(algorithm);
  return config;
}

/// Saves a network that was quantized so, restores it into a fresh one, and expects the same bits, and the same files
/// of a second save.
void check_round_trip(quantize_config const& config, model_options<cpu_backend> const& options = with_linalg()) {
  CAPTURE(config.name);
  temporary_folder const folder;
  matrix const x = outliers(40, 32);
  small_network net, fresh;
  model<cpu_backend> m{net, options}, other{fresh, options};
  quantize(m, config, [&] { net.forward(x); });
  save_state(folder / "a", m);
  CHECK(listing(folder / "a") == std::set<std::string>{"state.json", "state.safetensors"});
  CHECK_FALSE(same_bits(fresh.forward(x), net.forward(x)));
  CHECK(restore_state(folder / "a", other).notes.empty());
  CHECK(same_bits(fresh.forward(x), net.forward(x)));
  save_state(folder / "b", other);
  for (auto const& file : listing(folder / "a"))
    CHECK(read_text(folder / "b" / file) == read_text(folder / "a" / file));
}

}  // namespace

TEST_CASE("state: every kind of format is restored to the same bits, and saved again to the same files") {
  for (char const* name : {"INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG", "FP8_PER_CHANNEL_PER_TOKEN_CFG",
                           "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "NVFP4_DEFAULT_CFG", "MXFP8_DEFAULT_CFG",
                           "MXFP4_DEFAULT_CFG"})
    check_round_trip(preset(name));
}

TEST_CASE("state: scales, rewritten weights, branches and sequences are restored") {
  check_round_trip(preset("INT8_SMOOTHQUANT_CFG"));
  check_round_trip(preset("INT4_AWQ_CFG"));
  check_round_trip(preset("W4A8_AWQ_BETA_CFG"));
  check_round_trip(calibrated_by("INT8_DEFAULT_CFG", std::vector{algorithm_step{"awq_lite"}, algorithm_step{"gptq"}}));
  algorithm_step const svdquant{"svdquant", {{"lowrank", std::int64_t{4}}}};
  for (char const* name : {"NVFP4_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG"})
    check_round_trip(calibrated_by(name, svdquant));
}

TEST_CASE("state: biases, rotations, double quantization and a tensor's own amax are restored") {
  auto config = preset("INT8_DEFAULT_CFG");
  quantizer_attribute_config shifted{.num_bits = 8};
  shifted.bias = bias_config{.axes = {-2}};
  config.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{shifted}});
  check_round_trip(config);

  quantizer_attribute_config rotated{.num_bits = 8};
  rotated.rotate = true;
  auto turned = preset("INT8_DEFAULT_CFG");
  for (char const* operand : {"*input_quantizer", "*weight_quantizer"})
    turned.entries.push_back({.quantizer_name = operand, .cfg = std::vector{rotated}});
  turned.entries.push_back({.quantizer_name = "*second*", .enable = false});
  check_round_trip(turned);

  block_config const scaled{.axes = {{-1, 8}}, .scale_bits = bit_spec{8}, .scale_block_sizes = {{-1, 4}}};
  auto nf4 = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  quantizer_attribute_config const table{.num_bits = 4, .block_sizes = scaled};
  nf4.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{table}});
  check_round_trip(nf4);

  block_config const eights{.axes = {{-1, 8}}, .type = quantizer_type::static_type, .scale_bits = bit_spec{4, 3}};
  auto nvfp4 = calibrated_by("NVFP4_DEFAULT_CFG", algorithm_step{"mse", {{"stop_multiplier", 0.8}}});
  quantizer_attribute_config const blocks{.num_bits = bit_spec{2, 1}, .block_sizes = eights};
  nvfp4.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{blocks}});
  check_round_trip(nvfp4);
}

TEST_CASE("state: quantizers that are off keep what they have, and names of the user's own pass through") {
  temporary_folder const folder;
  matrix const x = outliers(40, 32);
  model_options<cpu_backend> options;
  options.algorithms.add("acme.max", [](calibration<cpu_backend>& c, algorithm_step const&) { calibrate_max(c); });
  auto const config = calibrated_by("INT8_DEFAULT_CFG", algorithm_step{"acme.max", {{"strength", 0.25}}});
  small_network net, fresh;
  model<cpu_backend> m{net, options}, other{fresh};  // which knows no acme.max
  quantize(m, config, [&] { net.forward(x); });
  disable_quantizer(m, "first.input_quantizer");
  save_state(folder.path(), m);
  restore_state(folder.path(), other);
  CHECK(same_bits(fresh.forward(x), net.forward(x)));
  for (auto* const each : {&m, &other}) enable_quantizer(*each, "first.input_quantizer");
  CHECK(same_bits(fresh.forward(x), net.forward(x)));
  auto const& recipe = site_of(fresh.first).quantizers();
  CHECK(recipe.algorithm == algorithm_config{algorithm_step{"acme.max", {{"strength", 0.25}}}});
  CHECK(recipe.tokens == 40);
}

TEST_CASE("state: a plan comes back with it") {
  temporary_folder const folder;
  small_network net, fresh;
  model<cpu_backend> m{net}, other{fresh};
  matrix const x = outliers(40, 32);
  quantization_plan plan;
  plan.formats = {{"INT8", preset("INT8_DEFAULT_CFG"), 8}};
  plan.recipe = {{"first.quant_recipe", "INT8"}, {"second.quant_recipe", none_label}};
  plan.modules = {{"first", "INT8", "searched"}, {"second", none_label, "searched"}};
  apply_plan(m, plan, {.calibration = 1, .calibrate = [&](int) { net.forward(x); }});
  save_state(folder.path(), m, {.plan = &plan});
  auto const was = restore_state(folder.path(), other);
  REQUIRE(was.plan);
  CHECK(was.plan->recipe == plan.recipe);
  CHECK(site_of(fresh.first).quantizers().recipe == "INT8");
  CHECK(same_bits(fresh.forward(x), net.forward(x)));
}

TEST_CASE("state: folded weights have to be the host's, or come with the state") {
  temporary_folder const folder;
  matrix const x = outliers(40, 32);
  small_network net;
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  save_state(folder / "before", m);
  fold_weight(m);
  save_state(folder / "without", m);
  save_state(folder / "with", m, {.weights = true});
  small_network fresh;
  model<cpu_backend> other{fresh};
  matrix const before = fresh.forward(x);
  CHECK(says(error_text(error_id::file_content, [&] { restore_state(folder / "without", other); }), "'first'",
             "fold_weight"));
  CHECK(same_bits(fresh.forward(x), before));
  restore_state(folder / "with", other);
  CHECK(same_bits(fresh.first.weight, net.first.weight));
  CHECK(same_bits(fresh.forward(x), net.forward(x)));
  CHECK_THROWS_AS(enable_quantizer(other, "*weight_quantizer"), error);
  auto const notes = restore_state(folder / "before", other).notes;
  CHECK(mentions(notes, "first", "other values"));
  CHECK(notes.size() == 2);
}

TEST_CASE("state: compressed weights are restored without the host's own, and are shared again where they are tied") {
  matrix const x = outliers(40, 32);
  block_config const scaled{.axes = {{-1, 8}}, .scale_bits = bit_spec{8}, .scale_block_sizes = {{-1, 4}}};
  auto nf4 = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  quantizer_attribute_config const table{.num_bits = 4, .block_sizes = scaled};
  nf4.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{table}});
  algorithm_step const svdquant{"svdquant", {{"lowrank", std::int64_t{4}}}};
  for (auto const& config : {preset("INT8_SMOOTHQUANT_CFG"), preset("W4A8_AWQ_BETA_CFG"), preset("MXFP4_DEFAULT_CFG"),
                             calibrated_by("NVFP4_DEFAULT_CFG", svdquant), nf4}) {
    CAPTURE(config.name);
    temporary_folder const folder;
    small_network net, fresh{77};
    model<cpu_backend> m{net, with_linalg()}, other{fresh, with_linalg()};
    quantize(m, config, [&] { net.forward(x); });
    compress(m);
    matrix const expected = net.forward(x);
    net.first.weight = {};
    save_state(folder / "a", m, {.weights = true});
    CHECK(restore_state(folder / "a", other).notes.empty());
    CHECK(same_bits(fresh.forward(x), expected));
    fresh.second.weight = {};
    CHECK(same_bits(fresh.forward(x), expected));
    save_state(folder / "b", other);
    for (auto const& file : listing(folder / "a"))
      CHECK(read_text(folder / "b" / file) == read_text(folder / "a" / file));
    CHECK(restore_state(folder / "a", m).notes.empty());  // over a weight that was given up
    CHECK(same_bits(net.forward(x), expected));
    small_network plain;
    model<cpu_backend> uncompressed{plain, with_linalg()};
    save_state(folder / "c", uncompressed);
    CHECK(says(error_text(error_id::file_content, [&] { restore_state(folder / "c", m); }), "'first'", "given up"));
    CHECK(same_bits(net.forward(x), expected));
  }
}
