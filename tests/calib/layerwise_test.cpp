#include "mixbit/calib/layerwise.hpp"

#include <doctest/doctest.h>

#include <stdexcept>

#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

algorithm_step layerwise(std::string method) { return {std::move(method), {{"layerwise", true}}}; }

quantize_config int8_with(algorithm_step step) {
  auto config = preset("INT8_DEFAULT_CFG");
  config.algorithm = std::move(step);
  return config;
}

/// The same network, walked from its end.
struct backward_network : small_network {
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("second", second.slots, second.weight));
    visit(linear("first", first.slots, first.weight));
  }
};

float input_amax(linear_layer& l) {
  cpu_backend device;
  return site_of(l).quantizers().find(quantizer_role::input)->members().front().amax(device).front();
}

}  // namespace

TEST_CASE("layerwise: each layer sees what the quantized layers before it make of the data") {
  small_network net;
  matrix const x = random_matrix(40, 32, 7);
  model<cpu_backend> m{net};
  int runs = 0;
  quantize(m, int8_with(layerwise("max")), [&] { net.forward(x), ++runs; });
  CHECK(runs == 3);  // one for the order, one a layer
  matrix const between = net.first.forward(x);  // quantized
  CHECK(input_amax(net.second) == between.cwiseAbs().maxCoeff());
  CHECK(input_amax(net.first) == x.cwiseAbs().maxCoeff());

  small_network together;
  model<cpu_backend> other{together};
  quantize(other, int8_with({"max"}), [&] { together.forward(x); });
  CHECK(input_amax(together.second) != input_amax(net.second));
}

TEST_CASE("layerwise: layers come in the order of the forward, not of the walk") {
  backward_network net;
  matrix const x = random_matrix(40, 32, 7);
  std::vector<std::string> order;
  model_options<cpu_backend> options;
  options.algorithms.add("acme.note", [&](calibration<cpu_backend>& c, algorithm_step const&) {
    REQUIRE(c.layers.size() == 1);
    order.push_back(c.layers.front().name());
    calibrate_max(c);
  });
  model<cpu_backend> m{net, options};
  quantize(m, int8_with(layerwise("acme.note")), [&] { net.forward(x); });
  CHECK(order == std::vector<std::string>{"first", "second"});
}

TEST_CASE("layerwise: a layer that is refused stays at max; all of them refused, or a throw, change nothing") {
  small_network net;
  matrix const x = random_matrix(40, 32, 7), before = net.forward(x);
  model<cpu_backend> m{net};
  auto const run = [&] { net.forward(x); };
  auto config = int8_with(layerwise("smoothquant"));
  quantizer_attribute_config const fp8{.num_bits = bit_spec{4, 3}};
  config.entries.push_back({.quantizer_name = "second.*", .cfg = std::vector{fp8}});
  auto const notes = quantize(m, config, run).notes;
  CHECK(site_of(net.first).quantizers().quantizers.front().has_pre_quant_scale());
  CHECK(std::any_of(notes.begin(), notes.end(), [](auto const& n) { return n.starts_with("layerwise: second is"); }));
  matrix const quantized = net.forward(x);

  config.entries.push_back({.quantizer_name = "first.*", .cfg = std::vector{fp8}});
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, config, run); }), "smoothquant", "first"));
  int runs = 0;
  CHECK_THROWS_AS(quantize(m, int8_with(layerwise("max")),
                           [&] { net.forward(x); if (++runs == 3) throw std::runtime_error{"the data is gone"}; }),
                  std::runtime_error);
  CHECK(same_bits(net.forward(x), quantized));
  CHECK(site_of(net.first).hook == nullptr);
  CHECK_FALSE(same_bits(quantized, before));
}

TEST_CASE("layerwise: without a loop weights alone, in the order of the walk") {
  small_network net;
  model<cpu_backend> m{net};
  auto config = preset("INT8_WEIGHT_ONLY_CFG");
  config.algorithm = layerwise("max");
  CHECK_NOTHROW(quantize(m, config));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, int8_with(layerwise("max"))); }),
             "input_quantizer", "forward_loop"));
}

TEST_CASE("layerwise: calibrate runs max layer by layer too where it is told to") {
  small_network net;
  matrix const x = random_matrix(40, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, int8_with({"max"}), [&] { net.forward(x); });
  int runs = 0;
  calibrate(m, layerwise("max"), [&] { net.forward(x), ++runs; });
  CHECK(runs == 3);
  CHECK(input_amax(net.second) == net.first.forward(x).cwiseAbs().maxCoeff());
}
