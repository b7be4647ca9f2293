// The xtensor host's path through apply, gradients, search and export, with strided and padded convolutions.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "digits/quantization.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/io/safetensors.hpp"
#include "mixbit/model/control.hpp"
#include "support/digits_data.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

using namespace digits;
using namespace digits_test;
using mixbit::error_id;
using mixbit::test::error_text;
using mixbit::test::says;

namespace {

/// One layer as a model of its own.
template <class Layer>
struct alone {
  Layer layer;
  mixbit::site_layout layout{};

  template <class Visit>
  void walk(Visit&& visit) {
    if constexpr (std::is_same_v<Layer, conv2d>)
      visit(mixbit::conv2d("layer", layer.slots, layer.weight.value, layout));
    else
      visit(mixbit::linear("layer", layer.slots, layer.weight.value, layout));
  }
};

mixbit::search_options options_for(std::vector<mixbit::quantize_config> formats, double target) {
  mixbit::search_options o;
  o.formats = std::move(formats);
  o.target = target;
  return o;
}

std::vector<mixbit::quantize_config> three_formats() {
  return {mixbit::preset("INT8_DEFAULT_CFG"), mixbit::preset("FP8_DEFAULT_CFG"), int4_weight_only()};
}

/// Scores of a search must be Σ (∂L/∂y · Δy)² for the Δy that each recipe causes when it is active.
template <class Layer, class Tensor>
void check_scores(alone<Layer>& host, Tensor const& x, random_source& random) {
  auto const y = host.layer.forward(x);
  auto const grad_y = random_tensor<Tensor>(y.shape(), random);
  mixbit::model<backend> m{host};
  mixbit::search<backend> search{m, options_for(three_formats(), 16.0)};
  search.run({.calibration = 1,
              .scoring = 1,
              .calibrate = [&](int) { CHECK(same_bits(host.layer.forward(x), y)); },
              .score = [&](int) {
                CHECK(same_bits(host.layer.forward(x), y));
                host.layer.backward(grad_y);
              },
              .progress = {}});
  auto const& group = search.stats().front();
  REQUIRE(group.candidates.size() == 4);
  for (std::size_t c = 0; c < 4; ++c) {
    CAPTURE(group.candidates[c].format);
    mixbit::allocation only;
    only.choice = {static_cast<int>(c)};
    search.apply(only);
    auto const quantized = host.layer.forward(x);
    double expected = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      expected += std::pow(double{grad_y.data()[i]} * (quantized.data()[i] - y.data()[i]), 2);
    if (c < 3) CHECK(expected > 0);
    CHECK(group.candidates[c].score == doctest::Approx(expected).epsilon(1e-5));
  }
}

}  // namespace

TEST_SUITE("digits: quantization") {
  TEST_CASE("without an enabled quantizer the network computes the same bits") {
    network net{1};
    auto const batch = batches(data().training, 32, 1).front();
    auto const plain = net.logits(batch.pixels);
    quantized_model m{net};
    mixbit::quantize(m, mixbit::preset("INT8_DEFAULT_CFG"),
                     [&] { CHECK(same_bits(net.logits(batch.pixels), plain)); });
    auto const quantized = net.logits(batch.pixels);
    CHECK_FALSE(same_bits(quantized, plain));
    CHECK(xt::amax(xt::abs(quantized - plain))() < 0.2f * xt::amax(xt::abs(plain))());
    mixbit::disable_quantizer(m, "*");
    CHECK(same_bits(net.logits(batch.pixels), plain));
    mixbit::enable_quantizer(m, "*_quantizer");
  }

  TEST_CASE("the operands are the quantized ones, in the forward and in the backward") {
    random_source random{6};
    alone<conv2d> host{{3, 4, {3, 2, 1}, random}, mixbit::layouts::conv}, plain{{3, 4, {3, 2, 1}, random}};
    auto x = random_tensor<tensor4>({2, 3, 5, 6}, random);
    mixbit::model<backend> m{host};
    mixbit::quantize(m, mixbit::preset("INT8_DEFAULT_CFG"), [&] { host.layer.forward(x); });
    lend(host.layer.slots, x, host.layer.weight.value, [&](auto const& xq, auto const& wq) {
      plain.layer.weight.value = wq;  // through xtensor's own operations
      tensor4 const copy = xq;
      auto const y = host.layer.forward(x);
      CHECK(same_bits(y, plain.layer.forward(copy)));
      auto const grad_y = random_tensor<tensor4>(y.shape(), random);
      for (auto* layer : {&host.layer, &plain.layer}) layer->weight.start_training();
      CHECK(same_bits(host.layer.backward(grad_y), plain.layer.backward(grad_y)));
      CHECK(same_bits(host.layer.weight.gradient, plain.layer.weight.gradient));
      CHECK_FALSE(same_bits(copy, x));
      CHECK_FALSE(same_bits(plain.layer.weight.value, host.layer.weight.value));
    });
  }

  TEST_CASE("clipped quantizers mask the gradients of what they clip") {
    random_source random{9};
    alone<linear> host{{12, 5, random}};
    auto const x = random_tensor<matrix>({4, 12}, random);
    matrix const grad_y(matrix::shape_type{4, 5}, 1.0f);
    mixbit::quantizer_attribute_config clipped{.pass_through_bwd = false};
    clipped.constant_amax = 0.25;
    mixbit::model<backend> m{host};
    mixbit::quantize(m, {.name = "CLIPPED", .entries = {{.quantizer_name = "*_quantizer", .cfg = {{clipped}}},
                                                        {.quantizer_name = "*output_quantizer", .enable = false}}});
    host.layer.forward(x);
    host.layer.weight.start_training();
    auto const grad_x = host.layer.backward(grad_y);
    auto const check = [](matrix const& value, matrix const& gradient) {
      int masked = 0;
      for (std::size_t i = 0; i < value.size(); ++i) {
        bool const inside = std::abs(value.data()[i]) <= 0.25f;
        CHECK((gradient.data()[i] != 0) == inside);
        masked += !inside;
      }
      CHECK(masked > 0);
      CHECK(masked < static_cast<int>(value.size()));
    };
    check(x, grad_x);
    check(host.layer.weight.value, host.layer.weight.gradient);
  }

  TEST_CASE("a layout that the weight does not have is refused") {
    random_source random{7};
    mixbit::site_layout const swapped{mixbit::site_kind::conv, {}, {1, 0, 2, 3}, {}};
    alone<conv2d> host{{4, 4, {3, 1, 1}, random}, swapped};
    auto const x = random_tensor<tensor4>({2, 4, 5, 5}, random);
    mixbit::model<backend> m{host};
    auto const text = error_text(error_id::tensor_layout, [&] {
      mixbit::quantize(m, mixbit::preset("INT8_DEFAULT_CFG"), [&] { host.layer.forward(x); });
    });
    CHECK(says(text, "layer:", "layout"));
    CHECK_FALSE(host.layer.slots.live());
  }

  TEST_CASE("scores are what the definition says, for each kind of layer") {
    random_source random{8};
    alone<conv2d> padded{{3, 4, {3, 1, 1}, random}, mixbit::layouts::conv};
    check_scores(padded, random_tensor<tensor4>({2, 3, 6, 5}, random), random);
    alone<conv2d> strided{{3, 4, {3, 2, 0}, random}, mixbit::layouts::conv};
    check_scores(strided, random_tensor<tensor4>({2, 3, 6, 5}, random), random);
    alone<linear> dense{{20, 6, random}};
    check_scores(dense, random_tensor<matrix>({3, 20}, random), random);
  }

  TEST_CASE("the bits of a kernel are exact: blocks of 128 are 3 wide, channels cost a scale each") {
    network net{1};
    quantized_model m{net};
    mixbit::search<backend> const search{
        m, options_for({mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), int4_weight_only()}, 16.0)};
    auto const& conv2 = search.stats()[1];
    REQUIRE(conv2.modules == std::vector<std::string>{"conv2"});
    REQUIRE(conv2.elements == 16 * 8 * 9);
    CHECK(conv2.candidates[0].bits == 1152 * 4 + 1152 / 3 * 32);
    CHECK(conv2.candidates[1].bits == 1152 * 4 + 16 * 32);
    auto const& fc1 = search.stats()[2];
    CHECK(fc1.candidates[0].bits == 8192 * 4 + 8192 / 128 * 32);
    CHECK(fc1.candidates[1].bits == 8192 * 4 + 8192 / 16 * 32);
  }

  TEST_CASE("train, search, apply, write: the file holds what the network computes with") {
    network net{1};
    {
      trainer t{net, 1};
      for (int e = 0; e < 3; ++e) t.epoch(data().training);
    }
    auto const before = evaluate(net, data().test);
    quantized_model m{net};
    mixbit::search<backend> search{m, options_for(three_formats(), 7.0)};
    auto const steps = search_batches(data().training);
    auto const plan = run_search(search, net, steps);
    CHECK(plan.achieved.bits <= 7 * 9736);
    CHECK(plan.achieved.optimal);
    for (auto const& g : search.stats()) {
      CAPTURE(g.name);
      for (std::size_t c = 0; c + 1 < g.candidates.size(); ++c) CHECK(g.candidates[c].score > 0);
      CHECK(g.candidates.back().score == 0);
    }
    auto const after = evaluate(net, data().test);
    CHECK(after.accuracy > before.accuracy - 0.03);
    CHECK(after.loss != before.loss);

    mixbit::test::temporary_folder const folder;
    write_checkpoint(folder / "model.safetensors", m, net);
    auto const file = mixbit::safetensors_file::open(folder / "model.safetensors");
    int encoded = 0;
    for (auto const& module : m.modules()) {
      CAPTURE(module.name);
      auto const stored = file.at(module.name + ".weight");
      auto* const q = module.slots->shared_site()->quantizers().find(mixbit::quantizer_role::weight);
      std::vector<float> value(static_cast<std::size_t>(module.weight.size())), expected(value);
      mixbit::tensor_ref const into{module.weight, value.data()}, wanted{module.weight, expected.data()};
      if (q == nullptr) {
        CHECK(std::memcmp(stored.data, module.weight.data, value.size() * sizeof(float)) == 0);
        continue;
      }
      ++encoded;
      auto& member = q->members().front();
      auto const scale = file.at(module.name + ".weight_scale");
      m.device().decode({stored.as<std::uint8_t>(), scale.data, member.grouping(module.weight), member.numerics().how,
                         into});
      q->quantize(m.device(), m.scratch().scratch, module.weight, wanted);
      CHECK(value == expected);
      bool const has_input = module.slots->shared_site()->quantizers().find(mixbit::quantizer_role::input) != nullptr;
      CHECK(file.contains(module.name + ".input_scale") == has_input);
    }
    CHECK(encoded >= 1);
    CHECK(file.at("fc1.bias").same_shape(mixbit::dense_geometry(mixbit::dtype::f32, {32})));
  }

  TEST_CASE("codes have the shape of their weight, and int4 half as many rows") {
    network net{1};
    quantized_model m{net};
    mixbit::test::temporary_folder const folder;
    mixbit::quantize(m, int4_weight_only());
    write_checkpoint(folder / "int4", m, net);
    auto const int4 = mixbit::safetensors_file::open(folder / "int4");
    CHECK(to_string(int4.at("conv2.weight")) == "[8,8,3,3]");
    CHECK(int4.at("conv2.weight").type == mixbit::dtype::u8);
    CHECK(to_string(int4.at("conv2.weight_scale")) == "[16,1,1,1]");
    CHECK(to_string(int4.at("fc1.weight")) == "[16,256]");
    CHECK(to_string(int4.at("fc1.weight_scale")) == "[32,16]");
    CHECK_FALSE(int4.contains("fc1.input_scale"));
    mixbit::quantize(m, mixbit::preset("FP8_DEFAULT_CFG"), [&] { evaluate(net, batches(data().test, 8, 1).front()); });
    write_checkpoint(folder / "fp8", m, net);
    auto const fp8 = mixbit::safetensors_file::open(folder / "fp8");
    CHECK(to_string(fp8.at("conv2.weight")) == "[16,8,3,3]");
    CHECK(fp8.at("conv2.weight").type == mixbit::dtype::f8_e4m3);
    // the largest pixel is 1, and 448 the largest E4M3 value
    CHECK(fp8.read_as_float("conv1.input_scale") == std::vector{1.0f / 448});
    mixbit::fold_weight(m);
    CHECK(says(error_text(error_id::state_folded, [&] { write_checkpoint(folder / "folded", m, net); }), "conv1"));
    CHECK_FALSE(std::filesystem::exists(folder / "folded"));
  }

  TEST_CASE("training under fake quantization moves the weights and lowers the loss") {
    network net{1};
    quantized_model m{net};
    mixbit::quantize(m, int4_weight_only());
    auto const start = evaluate(net, data().test).loss;
    trainer t{net, 1};
    double const first = t.epoch(data().training), second = t.epoch(data().training);
    CHECK(second < 0.5 * first);
    CHECK(net.fc1.slots.live());
    mixbit::calibrate(m, "max");
    CHECK(evaluate(net, data().test).loss < 0.5 * start);
  }

  TEST_CASE("a layer may move after quantization") {
    network net{1};
    quantized_model m{net};
    mixbit::quantize(m, int4_weight_only());
    auto const x = batches(data().test, 4, 1).front().pixels;
    auto const y = net.conv1.forward(x);
    std::vector<conv2d> layers;
    layers.push_back(std::move(net.conv1));
    layers.reserve(8);
    CHECK(layers.front().slots.live());
    CHECK(same_bits(layers.front().forward(x), y));
  }
}
