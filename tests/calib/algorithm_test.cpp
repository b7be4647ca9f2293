#include "mixbit/calib/algorithm.hpp"

#include <doctest/doctest.h>

#include <stdexcept>

#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config int8_with(char const* json_algorithm) {
  auto config = preset("INT8_WEIGHT_ONLY_CFG");
  config.algorithm = algorithm_from_json(config_json::parse(json_algorithm));
  return config;
}

/// Puts `factor` times the host's weight in the place of every weight, after max.
void scale_weights(calibration<cpu_backend>& c, double factor) {
  for (auto& layer : c.layers) {
    auto& held = layer.quantizers().weight.emplace(c.home.device, layer.weight);
    auto const* from = static_cast<float const*>(layer.weight.data);
    auto* to = static_cast<float*>(held.view().data);
    for (std::int64_t i = 0; i < layer.weight.size(); ++i) to[i] = static_cast<float>(factor) * from[i];
  }
  calibrate_weights(c);
}

model_options<cpu_backend> with_scaling() {
  model_options<cpu_backend> options;
  options.algorithms.add("acme.scale", [](calibration<cpu_backend>& c, algorithm_step const& step) {
    scale_weights(c, step.number("factor"));
    c.notes.push_back("scaled");
  });
  return options;
}

}  // namespace

TEST_CASE("algorithms: a user's own runs by its name, with parameters of its own, in the order of the list") {
  small_network net;
  std::vector<double> seen;
  model_options<cpu_backend> options;
  options.algorithms.add("acme.note", [&](calibration<cpu_backend>& c, algorithm_step const& step) {
    CHECK(c.layers.size() == 2);
    CHECK(c.layers[1].name() == "second");
    seen.push_back(step.number("factor"));
  });
  model<cpu_backend> m{net, options};
  quantize(m, int8_with(R"([{"method": "acme.note", "factor": 0.5}, "max", {"method": "acme.note", "factor": 2}])"));
  CHECK(seen == std::vector{0.5, 2.0});
}

TEST_CASE("algorithms: a name that is not registered, a missing parameter and a second of one name are refused") {
  small_network net;
  model<cpu_backend> m{net, with_scaling()};
  auto const refused = [&](char const* algorithm) {
    return error_text(error_id::config_value, [&] { quantize(m, int8_with(algorithm)); });
  };
  CHECK(says(refused(R"("acme.other")"), "'acme.other'", "acme.scale, ", "max"));
  CHECK(says(refused(R"("acme.scale")"), "acme.scale", "needs a parameter \"factor\""));
  CHECK(net.first.slots.shared_site()->recipes.empty());
  model_options<cpu_backend> options;
  CHECK(says(error_text(error_id::state_duplicate, [&] { options.algorithms.add("max", {}); }), "'max'"));
}

TEST_CASE("algorithms: one that needs data says so where there is no loop, and what it throws leaves the model") {
  small_network net;
  model_options<cpu_backend> options;
  options.algorithms.add("acme.data", [](calibration<cpu_backend>& c, algorithm_step const&) {
    scale_weights(c, 3);
    c.run("acme.data");
  });
  model<cpu_backend> m{net, options};
  matrix const x = random_matrix(4, 32, 7), before = net.forward(x);
  auto const config = int8_with(R"("acme.data")");
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, config); }), "acme.data", "forward_loop"));
  CHECK_THROWS_AS(quantize(m, config, [] { throw std::runtime_error{"the data is gone"}; }), std::runtime_error);
  CHECK(same_bits(net.forward(x), before));
  CHECK(net.first.slots.shared_site()->recipes.empty());
}

TEST_CASE("algorithms: what stands in a weight's place is what is quantized, cached, folded and observed") {
  matrix const x = random_matrix(4, 32, 7);
  small_network scaled_by_hand;
  scaled_by_hand.first.weight *= 2;
  scaled_by_hand.second.weight *= 2;
  model<cpu_backend> expected_model{scaled_by_hand};
  quantize(expected_model, preset("INT8_WEIGHT_ONLY_CFG"));
  matrix const expected = scaled_by_hand.forward(x);

  small_network net;
  matrix const weight = net.first.weight;
  model<cpu_backend> m{net, with_scaling()};
  auto const resolved = quantize(m, int8_with(R"({"method": "acme.scale", "factor": 2})"));
  CHECK(resolved.notes.back() == "scaled");
  CHECK(same_bits(net.forward(x), expected));
  CHECK(same_bits(net.first.weight, weight));  // the host's own is never written
  net.first.slots.cache_weight(true);
  CHECK(same_bits(net.forward(x), expected));
  CHECK(same_bits(net.forward(x), expected));

  matrix gradient;
  CHECK(says(error_text(error_id::state_folded, [&] { net.second.backward(expected, &gradient); }), "second",
             "rewritten"));
  CHECK(fold_weight(m) == 2);
  CHECK(!same_bits(net.first.weight, weight));
  CHECK(same_bits(net.forward(x), expected));
}

TEST_CASE("algorithms: calibrating again starts from the host's weight, and a pass shows the op the rewritten one") {
  small_network net;
  matrix const x = random_matrix(4, 32, 7);
  model<cpu_backend> m{net, with_scaling()};
  matrix const plain = net.forward(x);
  auto config = preset("INT8_DEFAULT_CFG");
  config.algorithm = algorithm_from_json(config_json::parse(R"([{"method": "acme.scale", "factor": 2}, "max"])"));
  quantize(m, config, [&] { CHECK(same_bits(net.forward(x), matrix{4 * plain})); });
  calibrate(m, "max", [&] { CHECK(same_bits(net.forward(x), plain)); });
  CHECK(!net.first.slots.shared_site()->quantizers().weight);
}

TEST_CASE("algorithms: parameters that would change results and are not done here are refused; others are taken") {
  small_network net;
  model<cpu_backend> m{net};
  auto const refused = [&](char const* algorithm) {
    return error_text(error_id::config_conflict, [&] { quantize(m, int8_with(algorithm)); });
  };
  CHECK(says(refused(R"({"method": "max", "moe_calib_experts_ratio": 0.5})"), "max.moe_calib_experts_ratio 0.5",
             "routes"));
  CHECK(says(refused(R"({"method": "max", "sync_expert_weight_amax": true})"), "max.sync_expert_weight_amax true"));
  CHECK(net.first.slots.shared_site()->recipes.empty());
  CHECK_NOTHROW(quantize(m, int8_with(R"({"method": "max", "sync_expert_weight_amax": false,
                                          "distributed_sync": true})")));
  algorithm_step const ratio{"max", {{"moe_calib_experts_ratio", 1.0}}};
  CHECK(says(error_text(error_id::config_conflict, [&] { calibrate(m, ratio); }), "moe_calib_experts_ratio 1"));
}

TEST_CASE("algorithms: calibrate after a search: the active recipe by the algorithm, the others by max, NaN once") {
  small_network net;
  matrix x = random_matrix(16, 32, 7);
  x(1, 1) = std::numeric_limits<float>::quiet_NaN();
  model<cpu_backend> m{net};
  auto config = preset("INT8_DEFAULT_CFG");
  quantizer_attribute_config const int3{.num_bits = 3, .axis = std::vector{0}};
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{int3}});
  quantize(m, config, [&] { net.forward(x); });
  for (auto const& module : m.modules())
    module.slots->shared_site()->recipes.push_back(search_recipe(m, preset("FP8_DEFAULT_CFG"), module));
  int runs = 0;
  auto const notes = calibrate(m, "mse", [&] { net.forward(x), ++runs; }).notes;
  CHECK(runs == 2);
  CHECK(mentions(notes, "first.input_quantizer", ": 1 NaN"));
  CHECK_FALSE(mentions(notes, "first.input_quantizer", ": 2 NaN"));
  for (auto* layer : {&net.first, &net.second}) {
    auto& s = site_of(*layer);
    for (auto& recipe : s.recipes)
      for (auto& q : recipe.quantizers) CHECK(q.ready());
    auto const by_mse = amax_of(*layer, quantizer_role::weight);
    bool smaller = false;
    for (std::size_t r = 0; r < by_mse.size(); ++r)
      smaller |= by_mse[r] < layer->weight.row(static_cast<Eigen::Index>(r)).cwiseAbs().maxCoeff();
    CHECK(smaller);
  }
}
