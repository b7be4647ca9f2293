#include "mixbit/calib/smoothquant.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config smoothquant(double alpha) {
  auto config = preset("INT8_SMOOTHQUANT_CFG");
  config.algorithm = algorithm_step{"smoothquant", {{"alpha", alpha}}};
  return config;
}

}  // namespace

TEST_CASE("smoothquant: the scale by its definition, its clamps, and 1 for a channel without data") {
  CHECK(smoothing_scale({4}, {9}, 0.5) == std::vector{1.5f});
  CHECK(smoothing_scale({4}, {9}, 1.0) == std::vector{0.25f});
  CHECK(smoothing_scale({4}, {9}, 0.0) == std::vector{9.0f});
  CHECK(smoothing_scale({0, 0x1p-31f, 0x1p-30f}, {1, 1, 1}, 1.0) == std::vector{1.0f, 1.0f, 1e4f});
  CHECK(smoothing_scale({1e6f, 1}, {1, 0}, 0.5) == std::vector{1e-3f, 1e-4f});
  CHECK(smoothing_scale({1e9f}, {1}, 1.0) == std::vector{1e-4f});
}

TEST_CASE("smoothquant: input times s, weight by s, both amaxes of what is scaled; the host's weight is not written") {
  small_network net;
  matrix const x1 = outliers(6, 32), x2 = 2 * outliers(3, 32), weight = net.first.weight;
  model<cpu_backend> m{net};
  quantize(m, smoothquant(0.5), [&] {
    net.forward(x1);
    net.forward(x2);
  });
  CHECK(same_bits(net.first.weight, weight));
  auto& input = quantizer_of(net.first, quantizer_role::input);
  auto& w = quantizer_of(net.first, quantizer_role::weight);
  auto const s = input.pre_quant_scale(m.device()), inverse = w.pre_quant_scale(m.device());
  REQUIRE(s.size() == 32);
  float top = 0;
  matrix scaled = weight;
  for (Eigen::Index c = 0; c < 32; ++c) {
    float const x_amax = std::max(x1.col(c).cwiseAbs().maxCoeff(), x2.col(c).cwiseAbs().maxCoeff());
    float const w_amax = weight.col(c).cwiseAbs().maxCoeff(), factor = s[static_cast<std::size_t>(c)];
    CHECK(factor == doctest::Approx(std::sqrt(w_amax / x_amax)).epsilon(1e-6));
    CHECK(inverse[static_cast<std::size_t>(c)] == 1.0f / factor);
    top = std::max(top, x_amax * factor);
    scaled.col(c) *= 1.0f / factor;
  }
  CHECK(input.members().front().amax(m.device()) == std::vector{top});
  auto const w_amax = w.members().front().amax(m.device());
  REQUIRE(w_amax.size() == 24);
  for (Eigen::Index r = 0; r < 24; ++r)
    CHECK(w_amax[static_cast<std::size_t>(r)] == scaled.row(r).cwiseAbs().maxCoeff());
}

TEST_CASE("smoothquant: less error than max where inputs have outliers; calibrating again starts anew") {
  small_network net;
  matrix const x = outliers(64, 32), plain = net.forward(x);
  model<cpu_backend> m{net};
  auto const run = [&] { net.forward(x); };
  quantize(m, preset("INT8_DEFAULT_CFG"), run);
  float const max_error = (net.forward(x) - plain).norm();
  quantize(m, smoothquant(0.5), run);
  matrix const y = net.forward(x);
  CHECK((y - plain).norm() < 0.8f * max_error);
  calibrate(m, algorithm_step{"smoothquant", {{"alpha", 0.5}}}, run);
  CHECK(same_bits(net.forward(x), y));
}

TEST_CASE("smoothquant: other formats are refused, or left at max where some layers have it; no loop, no data") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const x = random_matrix(4, 32, 7), before = net.forward(x);
  auto const run = [&] { net.forward(x); };
  auto fp8 = preset("FP8_DEFAULT_CFG");
  fp8.algorithm = "smoothquant";
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, fp8, run); }), "INT8", "first"));
  auto weights = preset("INT8_WEIGHT_ONLY_CFG");
  weights.algorithm = "smoothquant";
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, weights, run); }), "INT8", "first"));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, smoothquant(1)); }), "smoothquant",
             "forward_loop"));
  CHECK(says(error_text(error_id::config_value, [&] { quantize(m, smoothquant(1.5), run); }), "alpha", "1.5"));
  auto rotated = smoothquant(1);
  quantizer_attribute_config turned{.num_bits = 8};
  turned.rotate = true;
  rotated.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{turned}});
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, rotated, run); }), "smoothquant", "first",
             "input_quantizer.rotate"));
  CHECK(same_bits(net.forward(x), before));

  auto mixed = smoothquant(1);
  quantizer_attribute_config const fp8_attributes{.num_bits = bit_spec{4, 3}};
  mixed.entries.push_back({.quantizer_name = "second.*", .cfg = std::vector{fp8_attributes}});
  auto const notes = quantize(m, mixed, run).notes;
  CHECK(mentions(notes, "smoothquant", "second"));
  CHECK(quantizer_of(net.first, quantizer_role::input).has_pre_quant_scale());
  CHECK_FALSE(quantizer_of(net.second, quantizer_role::input).has_pre_quant_scale());
}

TEST_CASE("smoothquant: of layers that it does not take, scales of an earlier step stay; what it takes starts anew") {
  small_network net;
  matrix const x = outliers(24, 32);
  model<cpu_backend> m{net};
  auto config = smoothquant(0.5);
  quantizer_attribute_config const int4{.num_bits = 4, .axis = std::vector{0}};
  config.entries.push_back({.quantizer_name = "second.weight_quantizer", .cfg = std::vector{int4}});
  auto const run = [&] { net.forward(x); };
  config.algorithm = "awq_lite";
  quantize(m, config, run);
  auto const by_awq = quantizer_of(net.second, quantizer_role::input).pre_quant_scale(m.device());
  REQUIRE(by_awq.size() == 24);
  config.algorithm = std::vector{algorithm_step{"awq_lite"}, algorithm_step{"smoothquant", {{"alpha", 0.5}}}};
  quantize(m, config, run);
  CHECK(quantizer_of(net.second, quantizer_role::input).pre_quant_scale(m.device()) == by_awq);
  float const listed = amax_of(net.first, quantizer_role::input).front();
  config.algorithm = algorithm_step{"smoothquant", {{"alpha", 0.5}}};
  quantize(m, config, run);
  CHECK(amax_of(net.first, quantizer_role::input).front() == listed);

  // an expert that smoothquant reaches no more has lost its scale, and an amax under it would be another's
  int runs = 0;
  auto const then_first_alone = [&] { ++runs <= 2 ? net.forward(x) : net.first.forward(x); };
  config = smoothquant(0.5);
  config.algorithm = std::vector{algorithm_step{"awq_lite"}, algorithm_step{"smoothquant", {{"alpha", 0.5}}}};
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, config, then_first_alone); }),
             "second.input_quantizer"));
}

TEST_CASE("smoothquant: a loop that reaches no layer is an error, also where inputs need no calibration") {
  small_network net;
  model<cpu_backend> m{net};
  auto config = smoothquant(0.5);
  quantizer_attribute_config const dynamic{.num_bits = 8, .type = quantizer_type::dynamic_type};
  config.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{dynamic}});
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, config, [] {}); }), "smoothquant",
             "reached none of 2 layer(s)"));
  CHECK(site_of(net.first).recipes.empty());
}
