#include "mixbit/io/layer_checkpoints.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <utility>

#include "mixbit/calib/awq_lite.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// awq_lite, and a weight of its own: all that a checkpoint has to hold.
void scale_and_rewrite(calibration<cpu_backend>& c, algorithm_step const&) {
  calibrate_awq_lite(c, algorithm_step{"awq_lite"});
  for (auto& layer : c.layers) {
    auto& held = layer.quantizers().weight.emplace(c.home.device, layer.weight);
    auto* const to = static_cast<float*>(held.view().data);
    for (std::int64_t i = 0; i < layer.weight.size(); ++i) to[i] = layer.weight.as<float>()[i] * 1.25f;
    recalibrate_weight(c, layer, *layer.quantizers().find(quantizer_role::weight));
  }
}

model_options<cpu_backend> with_checkpoints() {
  model_options<cpu_backend> options;
  options.checkpoints = safetensors_checkpoints<cpu_backend>();
  options.algorithms.add("acme.rewrite", scale_and_rewrite);
  return options;
}

quantize_config layerwise(std::string const& folder, double alpha = 0.5) {
  auto config = preset("INT8_DEFAULT_CFG");
  config.algorithm = algorithm_step{
      "acme.rewrite", {{"layerwise", true}, {"layerwise_checkpoint_dir", folder}, {"alpha", alpha}}};
  return config;
}

}  // namespace

TEST_CASE("layer checkpoints: a run that was cut short goes on behind its last layer, to the same end") {
  matrix const x = random_matrix(40, 32, 7);
  temporary_folder const folder, other;
  small_network whole;
  model<cpu_backend> reference{whole, with_checkpoints()};
  quantize(reference, layerwise(other.path().string()), [&] { whole.forward(x); });

  small_network net;
  model<cpu_backend> m{net, with_checkpoints()};
  auto const config = layerwise((folder.path() / "run").string());
  int runs = 0;
  auto const cut_short = [&] {
    net.forward(x);
    if (++runs == 4) throw std::runtime_error{"cut short"};  // one for the order, two a layer
  };
  CHECK_THROWS_AS(quantize(m, config, cut_short), std::runtime_error);
  CHECK(std::filesystem::exists(folder.path() / "run" / "layer-00000.safetensors"));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "run" / "layer-00001.safetensors"));
  runs = 0;
  quantize(m, config, [&] { net.forward(x), ++runs; });
  CHECK(runs == 3);
  CHECK(same_bits(net.forward(x), whole.forward(x)));
  runs = 0;
  quantize(m, config, [&] { net.forward(x), ++runs; });  // all of it is there
  CHECK(runs == 1);
  CHECK(same_bits(net.forward(x), whole.forward(x)));
}

TEST_CASE("layer checkpoints: of another step, layer or format they are refused, as is a model without them") {
  matrix const x = random_matrix(40, 32, 7);
  temporary_folder const folder;
  small_network net;
  model<cpu_backend> m{net, with_checkpoints()};
  auto const run = [&] { net.forward(x); };
  quantize(m, layerwise(folder.path().string()), run);
  matrix const before = net.forward(x);
  auto const refused = [&](quantize_config const& config) {
    return error_text(error_id::file_content, [&] { quantize(m, config, run); });
  };
  CHECK(says(refused(layerwise(folder.path().string(), 0.25)), "layer-00000.safetensors", "first", "algorithm"));
  auto narrow = layerwise(folder.path().string());
  quantizer_attribute_config const int6{.num_bits = 6};
  narrow.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{int6}});
  CHECK(says(refused(narrow), "first", "quantizers"));
  std::filesystem::rename(folder.path() / "layer-00001.safetensors", folder.path() / "layer-00000.safetensors");
  CHECK(says(refused(layerwise(folder.path().string())), "first", "layer"));
  CHECK(same_bits(net.forward(x), before));

  model<cpu_backend> without{net};
  auto config = preset("INT8_DEFAULT_CFG");
  config.algorithm = algorithm_step{"max", {{"layerwise", true}, {"layerwise_checkpoint_dir", std::string{"x"}}}};
  CHECK(says(error_text(error_id::config_value, [&] { quantize(without, config, run); }), "max",
             "layerwise_checkpoint_dir", "model_options::checkpoints"));
}

namespace {

model_options<cpu_backend> for_gptq() {
  auto options = with_checkpoints();
  options.linalg = plain_linalg{};
  return options;
}

/// The same twice: calibrated, and taken up from the files of that.
template <class Check>
void same_when_taken_up(quantize_config const& config, model_options<cpu_backend> const& options, Check&& check) {
  matrix const x = outliers(40, 32);
  small_network whole, again;
  model<cpu_backend> first{whole, options}, second{again, options};
  quantize(first, config, [&] { whole.forward(x); });
  quantize(second, config, [&] { again.forward(x); });
  CHECK(same_bits(again.forward(x), whole.forward(x)));
  check(whole.first, again.first);
}

}  // namespace

TEST_CASE("layer checkpoints: NVFP4 keeps the tensor's amax that a search of its blocks left where it was") {
  temporary_folder const folder;
  auto config = preset("NVFP4_DEFAULT_CFG");
  block_config const eights{.axes = {{-1, 8}}, .type = quantizer_type::static_type, .scale_bits = bit_spec{4, 3}};
  quantizer_attribute_config const blocks{.num_bits = bit_spec{2, 1}, .block_sizes = eights};
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{blocks}});
  config.algorithm = algorithm_step{
      "mse", {{"stop_multiplier", 0.8}, {"layerwise", true}, {"layerwise_checkpoint_dir", folder.path().string()}}};
  same_when_taken_up(config, with_checkpoints(), [](linear_layer& whole, linear_layer& again) {
    cpu_backend device;
    auto& expected = quantizer_of(whole, quantizer_role::weight).members().front();
    auto& got = quantizer_of(again, quantizer_role::weight).members().front();
    REQUIRE(expected.holds_tensor_amax());
    CHECK(got.holds_tensor_amax());
    CHECK(got.tensor_amax(device, {}) == expected.tensor_amax(device, {}));
  });
}

TEST_CASE("layer checkpoints: what the algorithm did not take is not kept as if it had") {
  matrix const x = random_matrix(40, 32, 7);
  temporary_folder const folder;
  auto options = for_gptq();
  auto config = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{quantizer_attribute_config{
                                                                       .num_bits = 4, .axis = 0}}});
  config.algorithm =
      algorithm_step{"gptq", {{"layerwise", true}, {"layerwise_checkpoint_dir", folder.path().string()}}};
  small_network net;
  model<cpu_backend> m{net, options};
  CHECK_FALSE(error_text(error_id::state_not_calibrated, [&] { quantize(m, config, [] {}); }).empty());
  quantize(m, config, [&] { net.forward(x); });
  for (auto* const layer : {&net.first, &net.second}) CHECK(site_of(*layer).quantizers().weight.has_value());
}

TEST_CASE("layer checkpoints: a weight keeps the scale that GPTQ found it under, and is not scaled twice") {
  temporary_folder const folder;
  auto config = preset("INT8_DEFAULT_CFG");
  algorithm_step const gptq{"gptq", {{"layerwise", true}, {"layerwise_checkpoint_dir", folder.path().string()}}};
  config.algorithm = std::vector{algorithm_step{"awq_lite"}, gptq};
  same_when_taken_up(config, for_gptq(), [](linear_layer& whole, linear_layer& again) {
    CHECK_FALSE(site_of(whole).quantizers().absorbed_scale.empty());
    CHECK(site_of(again).quantizers().absorbed_scale == site_of(whole).quantizers().absorbed_scale);
    CHECK_FALSE(quantizer_of(again, quantizer_role::weight).has_pre_quant_scale());
  });
}

TEST_CASE("layer checkpoints: of other weights, other scales or another policy they are refused") {
  temporary_folder const folder;
  matrix const x = outliers(40, 32);
  small_network net;
  model<cpu_backend> m{net, for_gptq()};
  auto config = preset("INT8_DEFAULT_CFG");
  algorithm_step const gptq{"gptq", {{"layerwise", true}, {"layerwise_checkpoint_dir", folder.path().string()}}};
  config.algorithm = gptq;
  auto const run = [&] { net.forward(x); };
  quantize(m, config, run);
  auto options = for_gptq();
  options.numerics = policy::modelopt;
  model<cpu_backend> other{net, options};
  CHECK(says(error_text(error_id::file_content, [&] { quantize(other, config, run); }), "first", "numerics"));
  auto scaled = config;
  scaled.algorithm = std::vector{algorithm_step{"awq_lite"}, gptq};
  CHECK(says(error_text(error_id::file_content, [&] { quantize(m, scaled, run); }), "first", "weight"));
  float const was = std::exchange(net.first.weight(3, 4), 0.5f);
  CHECK(says(error_text(error_id::file_content, [&] { quantize(m, config, run); }), "first", "weight"));
  net.first.weight(3, 4) = was;
  net.second.weight.row(1).swap(net.second.weight.row(2));
  CHECK(says(error_text(error_id::file_content, [&] { quantize(m, config, run); }), "second", "weight"));
}

TEST_CASE("layer checkpoints: a low-rank branch is kept beside the weight that it is taken off") {
  temporary_folder const folder;
  auto config = preset("INT8_DEFAULT_CFG");
  config.algorithm = algorithm_step{"svdquant",
                                    {{"lowrank", std::int64_t{4}},
                                     {"layerwise", true},
                                     {"layerwise_checkpoint_dir", folder.path().string()}}};
  same_when_taken_up(config, for_gptq(), [](linear_layer& whole, linear_layer& again) {
    CHECK(site_of(whole).quantizers().branch.has_value());
    CHECK(site_of(again).quantizers().branch.has_value());
  });
}
