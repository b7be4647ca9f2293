// Tokens that a calibration showed each layer: rows of inputs, whatever the layout, and of results alone.
#include "mixbit/model/tokens.hpp"

#include <doctest/doctest.h>

#include "mixbit/model/quantize.hpp"
#include "support/chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A convolution in PyTorch's order, one with channels last, an embedding, and a linear layer around another.
struct kinds {
  plain_tensor conv_w = waves({2, 3, 1, 1}, 0.7f), last_w = waves({1, 1, 3, 2}, 0.4f), table = waves({9, 4}, 0.3f),
               outer_w = waves({8, 8}, 0.6f), inner_w = waves({8, 8}, 0.9f);
  quantizer_slots<cpu_backend> conv, last, lookup, outer, inner;

  /// A 1×1 convolution is the product of its pixels with the weight; what comes out is of no interest here.
  static plain_tensor pixels(plain_tensor const& x, plain_tensor const& w, int channels, int out) {
    geometry wanted = x.shape;
    wanted.shape[channels] = w.shape.shape[out];
    plain_tensor y{wanted};
    geometry const &gx = x.shape, &gy = y.shape;
    for (std::int64_t i = 0; i < gy.size(); ++i) {
      std::int64_t rest = i, from = 0, channel = 0;
      for (int a = 0; a < 4; ++a) {
        std::int64_t const at = rest / gy.stride[a];
        rest %= gy.stride[a];
        if (a == channels) channel = at;
        else from += at * gx.stride[a];
      }
      for (std::int64_t c = 0; c < gx.shape[channels]; ++c) {
        std::int64_t const k = out == 0 ? channel * gx.shape[channels] + c : c * w.shape.shape[out] + channel;
        y.values[i] += x.values[from + c * gx.stride[channels]] * w.values[k];
      }
    }
    return y;
  }
  void run_convolutions() {
    apply(conv, waves({2, 3, 4, 5}, 0.2f), conv_w, [](auto const& x, auto const& w) { return pixels(x, w, 1, 0); });
    apply(last, waves({2, 4, 5, 3}, 0.2f), last_w, [](auto const& x, auto const& w) { return pixels(x, w, 3, 3); });
  }
  void run_all() {
    run_convolutions();
    apply(lookup, table, [](plain_tensor const& w) { return w; });
    apply(outer, waves({7, 8}, 0.2f), outer_w, [&](auto const& x, auto const& w) {
      return apply(inner, multiply(x, w), inner_w, multiply);
    });
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(conv2d("conv", conv, conv_w));
    visit(conv2d("last", last, last_w, layouts::conv_nhwc_hwio));
    visit(embedding("lookup", lookup, table));
    visit(linear("outer", outer, outer_w));
    visit(linear("inner", inner, inner_w));
  }
};

quantize_config inputs_and_weights() {
  auto config = nothing_on();
  turn_on(config, "*input_quantizer", {.num_bits = 8});
  turn_on(config, "*weight_quantizer", {.num_bits = 8});
  config.entries.push_back({"lookup.input_quantizer", std::nullopt, std::nullopt, false});
  return config;
}

}  // namespace

TEST_CASE("tokens: pixels of a convolution in any layout, rows of a linear layer, none of a lookup") {
  kinds net;
  model<cpu_backend> m{net};
  quantize(m, inputs_and_weights(), [&] { net.run_all(); });
  // the probe of `outer` runs its op, and with it `inner`, more than once; that is none of the data
  CHECK(calibration_tokens(m).layers ==
        std::vector<layer_tokens>{{"conv", 40}, {"last", 40}, {"outer", 7}, {"inner", 7}});
}

TEST_CASE("tokens: layer by layer the first run counts, a report says what calibration_tokens does") {
  kinds net;
  model<cpu_backend> m{net};
  auto config = inputs_and_weights();
  quantize(m, config, [&] { net.run_all(); });
  int runs = 0;
  auto const report = calibrate(m, algorithm_step{"mse", {{"layerwise", true}}}, [&] {
    ++runs;
    net.run_all();
    net.run_convolutions();
  });
  CHECK(runs > 3);
  CHECK(report.tokens.layers ==
        std::vector<layer_tokens>{{"conv", 80}, {"last", 80}, {"outer", 7}, {"inner", 7}});
  CHECK(calibration_tokens(m).layers == report.tokens.layers);
}

TEST_CASE("tokens: a calibration that throws leaves the counts that were") {
  kinds net;
  model<cpu_backend> m{net};
  quantize(m, inputs_and_weights(), [&] { net.run_all(); });
  auto const before = calibration_tokens(m).layers;
  CHECK_THROWS(calibrate(m, {}, [&] { net.run_convolutions(); }));
  CHECK(calibration_tokens(m).layers == before);
}
