// The digits network as an ONNX graph with QuantizeLinear and DequantizeLinear: onnxruntime of PyPI computes what the
// host computes under fake quantization.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "digits/network.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/io/onnx_export.hpp"
#include "mixbit/model/quantize.hpp"
#include "support/digits_data.hpp"
#include "support/onnx_runtime.hpp"

using namespace digits;
using namespace digits_test;
using namespace mixbit::test;

namespace {

mixbit::onnx_graph export_network(mixbit::model<backend>& m, network& net, std::filesystem::path const& file) {
  mixbit::onnx_export g{m, "digits"};
  auto const window = [](std::int64_t stride) {
    return std::vector<mixbit::onnx_attribute>{{"pads", mixbit::onnx_shape{1, 1, 1, 1}},
                                               {"strides", mixbit::onnx_shape{stride, stride}}};
  };
  auto x = g.input("images", {"n", 1, 8, 8});
  x = g.op("Relu", {g.conv("conv1", x, net.conv1.bias.value, window(1))});
  x = g.op("Relu", {g.conv("conv2", x, net.conv2.bias.value, window(2))});
  x = g.op("Flatten", {x});
  x = g.op("Relu", {g.linear("fc1", x, net.fc1.bias.value)});
  g.output("logits", g.linear("fc2", x, net.fc2.bias.value), {"n", 10});
  g.write(file);
  return g.graph();
}

struct comparison {
  double mean = 0;
  float largest = 0;
  int images = 0;  ///< with a logit that is off by more than float noise
};

comparison compare(mixbit::const_tensor_ref const& read, matrix const& expected) {
  REQUIRE(read.size() == static_cast<std::int64_t>(expected.size()));
  float const scale = xt::amax(xt::abs(expected))();
  comparison c;
  for (std::size_t i = 0; i < expected.shape(0); ++i) {
    float worst = 0;
    for (std::size_t k = 0; k < expected.shape(1); ++k) {
      float const off = std::abs(read.as<float>()[i * expected.shape(1) + k] - expected(i, k));
      worst = std::max(worst, off);
      c.mean += off / static_cast<double>(expected.size());
    }
    c.largest = std::max(c.largest, worst);
    c.images += worst > 1e-5f * scale;
  }
  return c;
}

}  // namespace

TEST_CASE("digits: an ONNX graph computes what the quantized network does") {
  if (skipped_without_onnxruntime("digits in ONNX run by onnxruntime")) return;
  auto const& images = data().test;
  for (std::string const name : {"INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "none"}) {
    CAPTURE(name);
    network net{3};
    {
      trainer training{net, 1};
      training.epoch(data().training);
    }
    mixbit::model<backend> m{net};
    if (name != "none") {
      mixbit::quantize(m, mixbit::preset(name), [&] { net.logits(batches(data().training, 256, 1).front().pixels); });
    }
    matrix const expected = net.logits(images.pixels);
    temporary_folder const folder;
    auto const graph = export_network(m, net, folder / "digits.onnx");
    mixbit::named_tensor const input{"images", mixbit::read_view(images.pixels)};
    auto const file = run_onnx(folder / "digits.onnx", input);
    auto const off_array = file.read("logits"), on_array = file.read("logits/on");
    auto const off = compare(off_array.tensor(), expected), on = compare(on_array.tensor(), expected);
    auto const scale = xt::amax(xt::abs(expected))();
    CHECK(mixbit::opset_of(graph) == (name.starts_with("INT8") || name == "none" ? 13 : 21));
    CHECK(off.images <= 3);  // none here; a sum in another order can put an operand on the other side of a tie
    CHECK(off.mean <= 1e-6 * scale);
    CHECK(on.largest <= 0.02f * scale);  // seen: 0.0084 of int8, 0.0078 of int4, whose inputs it quantizes itself
    CHECK(on.mean <= 0.002 * scale);
  }
}
