#include "mixbit/calib/amax_search_algorithm.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::string const int4 = R"({"num_bits": 4, "block_sizes": {"-1": 8, "type": "static"}})",
                  nvfp4 = R"({"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "static", "scale_bits": [4, 3]}})";

quantize_config weights(std::string const& attributes, std::string const& algorithm) {
  return config_from_json(R"({"quant_cfg": [{"quantizer_name": "*", "enable": false},
    {"quantizer_name": "*weight_quantizer", "cfg": )" + attributes + R"(}], "algorithm": )" + algorithm + "}", "test");
}

sequential_quantizer<cpu_backend>& weight_quantizer(linear_layer& layer) {
  return *site_of(layer).quantizers().find(quantizer_role::weight);
}
std::vector<float> amax(linear_layer& layer) {
  cpu_backend device;
  return weight_quantizer(layer).members().front().amax(device);
}
double weight_error(linear_layer& layer) {
  return (by_hand(weight_quantizer(layer), layer.weight) - layer.weight).squaredNorm();
}

/// One Hessian-weighted error of the first layer's weight, over blocks of `block` channels.
double output_error(linear_layer& layer, matrix const& x, Eigen::Index block) {
  matrix const d = by_hand(weight_quantizer(layer), layer.weight) - layer.weight;
  double error = 0;
  for (Eigen::Index at = 0; at < d.cols(); at += block)
    error += (x.middleCols(at, block) * d.middleCols(at, block).transpose()).squaredNorm();
  return error;
}

}  // namespace

TEST_CASE("mse algorithm: no multiplier errs less on any group, and its range is the step's") {
  small_network net;
  model<cpu_backend> m{net};
  quantize(m, weights(int4, R"("max")"));
  auto const top = amax(net.first);
  double const by_max = weight_error(net.first);
  quantize(m, weights(int4, R"("mse")"));
  auto const searched = amax(net.first);
  CHECK(weight_error(net.first) < by_max);
  REQUIRE(searched.size() == top.size());
  workspace<cpu_backend> ws;
  auto const& q = weight_quantizer(net.first).members().front();
  auto const w = read_view(net.first.weight);
  amax_search<cpu_backend> search{ws, w, q.grouping(w), q.numerics().how, top, 0};
  squared_error<cpu_backend> error{ws};
  CHECK(searched == search.best(amax_multipliers(0.25, 4, 0.1), error));

  std::string const few = R"({"method": "mse", "start_multiplier": 0.9, "stop_multiplier": 1.0, "step_size": 0.05})";
  quantize(m, weights(int4, few));
  auto const narrow = amax(net.first);
  CHECK(narrow != searched);
  for (std::size_t i = 0; i < top.size(); ++i) CHECK(narrow[i] >= 0.89f * top[i]);
  CHECK(says(error_text(error_id::config_value, [&] {
    quantize(m, weights(int4, R"({"method": "mse", "start_multiplier": 2, "stop_multiplier": 1})"));
  }), "stop_multiplier 1", "start_multiplier 2"));
}

TEST_CASE("mse algorithm: a later max starts afresh") {
  small_network net;
  model<cpu_backend> m{net};
  quantize(m, weights(int4, R"("max")"));
  auto const top = amax(net.first);
  quantize(m, weights(int4, R"(["mse", "max"])"));
  CHECK(amax(net.first) == top);
}

TEST_CASE("mse algorithm: sequences, and under fp8_scale_sweep all but static NVFP4, keep max") {
  small_network net;
  model<cpu_backend> m{net};
  quantize(m, weights(int4, R"("max")"));
  auto const top = amax(net.first);
  quantize(m, weights("[" + int4 + R"(, {"num_bits": [4, 3]}])", R"("mse")"));
  CHECK(amax(net.first) == top);
  quantize(m, weights(int4, R"({"method": "mse", "fp8_scale_sweep": true})"));
  CHECK(amax(net.first) == top);
}

TEST_CASE("mse algorithm: static NVFP4 takes the best E4M3 scale of each block and keeps its tensor scale") {
  small_network net;
  net.first.weight.row(3) *= 30;
  model<cpu_backend> m{net};
  quantize(m, weights(nvfp4, R"("max")"));
  double const by_max = weight_error(net.first);
  cpu_backend device;
  auto& q = weight_quantizer(net.first).members().front();
  float const whole = q.tensor_amax(device, read_view(net.first.weight));
  for (char const* const algorithm : {R"({"method": "mse", "fp8_scale_sweep": true})", R"("mse")"}) {
    quantize(m, weights(nvfp4, algorithm));
    auto& searched = weight_quantizer(net.first).members().front();
    CHECK(weight_error(net.first) < by_max);
    CHECK(searched.tensor_amax(device, read_view(net.first.weight)) == whole);
  }
  quantize(m, weights(nvfp4, R"({"method": "mse", "fp8_scale_sweep": true})"));
  auto const chosen = amax(net.first), steps = nvfp4_scale_amaxes(whole).values;
  for (float const a : chosen) CHECK(std::find(steps.begin(), steps.end(), a) != steps.end());
}

TEST_CASE("local_hessian algorithm: errs less where inputs are large") {
  small_network net;
  matrix const x = random_matrix(100, 32, 9) * Eigen::VectorXf::LinSpaced(32, 0.1f, 4).asDiagonal();
  model<cpu_backend> m{net};
  std::string const searching = R"({"method": "local_hessian", "fp8_scale_sweep": false, "block_size": 8})";
  quantize(m, weights(int4, R"("mse")"));
  double const by_mse = output_error(net.first, x, 8), squares = weight_error(net.first);
  auto const resolved = quantize(m, weights(int4, searching), [&] { (void)net.forward(x); });
  CHECK(resolved.notes.empty());
  CHECK(output_error(net.first, x, 8) < by_mse);
  CHECK(weight_error(net.first) > squares);
}

TEST_CASE("local_hessian algorithm: sees inputs before their quantizer") {
  small_network net;
  matrix const x = random_matrix(100, 32, 9) * Eigen::VectorXf::LinSpaced(32, 0.1f, 4).asDiagonal();
  std::string const searching = R"({"method": "local_hessian", "fp8_scale_sweep": false, "block_size": 8})";
  auto const config = weights(int4, searching);
  auto coarse = config;
  coarse.entries.push_back(quant_cfg_from_json(config_json::parse(
      R"([{"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 2}}])")).front());
  model<cpu_backend> m{net};
  quantize(m, config, [&] { (void)net.forward(x); });
  auto const plain = amax(net.first), second = amax(net.second);
  quantize(m, coarse, [&] { (void)net.forward(x); });
  CHECK(amax(net.first) == plain);
  CHECK(amax(net.second) != second);  // its inputs come from a layer whose inputs are quantized
}

TEST_CASE("local_hessian algorithm: without a Hessian the squared error decides, and a note says why") {
  small_network net;
  matrix const x = random_matrix(20, 32, 9);
  model<cpu_backend> m{net};
  quantize(m, weights(int4, R"("mse")"));
  auto const by_mse = amax(net.second);
  std::string const by_16 = R"({"method": "local_hessian", "fp8_scale_sweep": false})";
  auto const odd = quantize(m, weights(int4, by_16), [&] { (void)net.forward(x); });
  REQUIRE(odd.notes.size() == 1);  // the second layer has 24 inputs
  CHECK(odd.notes[0].find("second: local_hessian searches by squared error: its width of 24") != std::string::npos);
  CHECK(amax(net.second) == by_mse);
  std::string const by_8 = R"({"method": "local_hessian", "fp8_scale_sweep": false, "block_size": 8})";
  auto const unseen = quantize(m, weights(int4, by_8), [&] { (void)net.first.forward(x); });
  REQUIRE(unseen.notes.size() == 1);
  CHECK(unseen.notes[0].find("second: local_hessian saw no tokens") != std::string::npos);
  CHECK(amax(net.second) == by_mse);
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, weights(int4, by_8)); }), "local_hessian",
             "forward_loop"));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, weights(int4, by_8), [] {}); }),
             "local_hessian", "reached none of 2 layer(s)"));
  CHECK(amax(net.second) == by_mse);
  CHECK_NOTHROW(quantize(m, weights(int4, R"("local_hessian")")));  // the sweep leaves INT4 at max: no data needed
}

TEST_CASE("mse algorithm: a group with a NaN keeps max's amax, and calibrate refuses what a config would") {
  small_network net;
  net.first.weight(2, 5) = std::numeric_limits<float>::quiet_NaN();
  model<cpu_backend> m{net};
  quantize(m, weights(int4, R"("max")"));
  auto const top = amax(net.first);
  calibrate(m, "mse");
  auto const searched = amax(net.first);
  CHECK(searched.at(2 * 4) == top.at(2 * 4));  // blocks of 8 of 32 columns
  CHECK(searched != top);
  algorithm_step const wrong{"mse", {{"step_size", -1.0}}};
  CHECK(says(error_text(error_id::config_value, [&] { calibrate(m, wrong); }), "calibrate", "step_size"));
  CHECK(amax(net.first) == searched);
}
