#include "mixbit/model/compress.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>

#include "mixbit/calib/default_algorithms.hpp"  // of a backend of this test's own
#include "mixbit/calib/default_calibrators.hpp"
#include "mixbit/model/postprocess.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Layers of odd sizes: rows that end in the middle of a byte, blocks that are cut short.
struct ragged_network : small_network {
  ragged_network() {
    first.weight = random_matrix(7, 37, 5);
    second.weight = random_matrix(3, 7, 6);
    first.weight.row(2).setZero();  // scales of 0
  }
};

quantize_config with_weights(quantizer_attribute_config const& weights) {
  auto config = preset("INT8_DEFAULT_CFG");
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{weights}});
  return config;
}

quantize_config calibrated_by(char const* name, algorithm_config algorithm) {
  auto config = preset(name);
  config.algorithm = std::move(algorithm);
  return config;
}

block_config blocks(std::int64_t size, quantizer_type type = quantizer_type::static_type) {
  return {.axes = {{-1, size}}, .type = type};
}

/// Formats as a weight may have them, each with what the accounting says.
std::vector<quantize_config> weight_formats() {
  std::vector<quantize_config> all;
  for (char const* name : {"INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG", "FP8_PER_CHANNEL_PER_TOKEN_CFG",
                           "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "NVFP4_DEFAULT_CFG",
                           "MXFP8_DEFAULT_CFG", "MXFP6_DEFAULT_CFG", "MXFP4_DEFAULT_CFG", "MXINT8_DEFAULT_CFG"})
    all.push_back(preset(name));
  for (int const bits : {2, 3, 4, 5, 6, 7, 16}) all.push_back(with_weights({.num_bits = bits, .axis = 0}));
  all.push_back(with_weights({.num_bits = 8, .type = quantizer_type::dynamic_type}));
  all.push_back(with_weights({.num_bits = 4, .block_sizes = blocks(5), .constant_amax = 2.0}));
  auto static_nvfp4 = blocks(16);
  static_nvfp4.scale_bits = bit_spec{4, 3};
  all.push_back(with_weights({.num_bits = bit_spec{2, 1}, .block_sizes = static_nvfp4}));
  all.back().algorithm = algorithm_step{"mse", {{"stop_multiplier", 0.8}}};
  static_nvfp4.four_over_six = true;
  all.push_back(with_weights({.num_bits = bit_spec{2, 1}, .block_sizes = static_nvfp4}));
  auto nf4 = blocks(4);
  nf4.scale_bits = bit_spec{8};
  nf4.scale_block_sizes = {{-1, 8}};
  all.push_back(with_weights({.num_bits = 4, .block_sizes = nf4}));
  return all;
}

/// The bytes that the accounting gives a layer's weight.
std::int64_t accounted(linear_layer& layer) {
  auto const bits = cost_bits(cost_model::exact, site_of(layer).quantizers(), read_view(std::as_const(layer.weight)));
  return bits / 8;
}

/// Compressed, the network computes the same bits, also once its weights are gone, and takes what was accounted.
template <class Network>
void check_compressed(quantize_config const& config, model_options<cpu_backend> const& options = {}) {
  Network net;
  model<cpu_backend> m{net, options};
  matrix const x = outliers(6, net.first.weight.cols());
  quantize(m, config, [&] { net.forward(x); });
  matrix const expected = net.forward(x);
  std::int64_t const bytes[] = {accounted(net.first), accounted(net.second)};
  auto const report = compress(m);
  REQUIRE(report.layers.size() == 2);
  CHECK(report.layers[0].size.bytes() == bytes[0]);
  CHECK(report.layers[1].size.bytes() == bytes[1]);
  CHECK(report.bytes() == bytes[0] + bytes[1]);
  CHECK(same_bits(net.forward(x), expected));
  net.first.weight = {};
  net.second.weight = {};
  CHECK(same_bits(net.forward(x), expected));
  m.modules();
  CHECK(same_bits(net.forward(x), expected));
}

}  // namespace

TEST_CASE("compress: every format computes what fake quantization does, in the bytes that the accounting says") {
  int place = 0;
  for (auto const& config : weight_formats()) {
    CAPTURE(config.name);
    CAPTURE(place++);
    check_compressed<small_network>(config);
    check_compressed<ragged_network>(config);
  }
}

TEST_CASE("compress: scales, rotations, rewritten weights and branches are in it") {
  model_options<cpu_backend> options;
  options.linalg = plain_linalg{};
  check_compressed<small_network>(preset("INT8_SMOOTHQUANT_CFG"), options);
  check_compressed<small_network>(preset("INT4_AWQ_CFG"), options);
  algorithm_step const svdquant{"svdquant", {{"lowrank", std::int64_t{4}}}};
  for (char const* name : {"NVFP4_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG"})
    check_compressed<small_network>(calibrated_by(name, svdquant), options);
  check_compressed<small_network>(
      calibrated_by("INT8_DEFAULT_CFG", std::vector{algorithm_step{"awq_lite"}, algorithm_step{"gptq"}}), options);
  quantizer_attribute_config rotated{.num_bits = 8};
  rotated.rotate = true;
  auto turned = preset("INT8_DEFAULT_CFG");
  for (char const* operand : {"*input_quantizer", "*weight_quantizer"})
    turned.entries.push_back({.quantizer_name = operand, .cfg = std::vector{rotated}});
  check_compressed<small_network>(turned);
}

TEST_CASE("compress: of a sequence the first quantizer's codes are held, and the others cast what they decode to") {
  check_compressed<small_network>(calibrated_by("W4A8_AWQ_BETA_CFG", "max"));
}

namespace {

/// The scalar backend with its memory counted.
struct counted_backend : cpu_backend {
  static inline std::int64_t bytes = 0;
  static mixbit::memory_source memory() {
    return {[](std::size_t n) {
              auto* const p = static_cast<std::int64_t*>(::operator new(n + 64, std::align_val_t{64}));
              *p = static_cast<std::int64_t>(n);
              bytes += *p;
              return static_cast<void*>(p + 8);
            },
            [](void* p) {
              auto* const whole = static_cast<std::int64_t*>(p) - 8;
              bytes -= *whole;
              ::operator delete(whole, std::align_val_t{64});
            }};
  }
};

}  // namespace

TEST_CASE("compress: the memory that is left is what was accounted, measured; amaxes and rewritten weights are gone") {
  struct host {
    matrix weight = random_matrix(24, 37, 3);
    quantizer_slots<counted_backend> slots;
    void walk(module_visitor<counted_backend> const& visit) { visit(linear("fc", slots, weight)); }
  };
  auto double_quantized = blocks(4);
  double_quantized.scale_bits = bit_spec{8};
  double_quantized.scale_block_sizes = {{-1, 8}};
  auto const nf4 = with_weights({.num_bits = 4, .block_sizes = double_quantized});
  for (auto config : {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("NVFP4_DEFAULT_CFG"),
                      preset("MXFP4_DEFAULT_CFG"), nf4}) {
    config.entries.push_back({.quantizer_name = "*input_quantizer", .enable = false});
    CAPTURE(config.name);
    host net;
    model<counted_backend> m{net};
    quantize(m, config);
    net.slots.shared_site()->quantizers().weight.emplace(m.device(), read_view(std::as_const(net.weight)));
    auto const report = compress(m);
    auto const& packed = *net.slots.packed();
    auto const of_arena = static_cast<std::int64_t>(m.scratch().scratch.capacity());
    CHECK(counted_backend::bytes - of_arena == report.bytes());
    CHECK(packed.size() == storage_size_of(packed.how(), packed.shape(), packed.groups()));
    CHECK(report.layers[0].host_bytes == 24 * 37 * 4);
    CHECK(net.slots.shared_site()->quantizers().find(quantizer_role::weight)->ready());
  }
}

TEST_CASE("compress: scales that are quantized themselves and decode to less than 0 are 0") {
  auto double_quantized = blocks(4);
  double_quantized.scale_bits = bit_spec{8};
  double_quantized.scale_block_sizes = {{-1, 8}};
  quantizer_attribute_config const nf4{.num_bits = 4, .block_sizes = double_quantized};
  cpu_backend device;
  arena scratch;
  int below = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    matrix w = random_matrix(6, 20, seed), y = w, decoded = w;
    w.block(1, 4, 2, 8).setZero();  // groups of zeros, whose codes are those of 0
    tensor_quantizer<cpu_backend> q{"fc.weight_quantizer", nf4, {}};
    q.observe(device, scratch, read_view(w));
    q.finish(device);
    q.quantize(device, scratch, read_view(w), write_view(y));
    packed_weight<cpu_backend> const packed{device, scratch, q, read_view(w)};
    packed.decode(device, scratch, write_view(decoded));
    CHECK(same_bits(decoded, y));
    auto const a = packed.arrays(device);
    for (std::size_t g = 0; g < a.scales.size(); ++g) {
      auto const code = static_cast<float>(static_cast<std::int8_t>(a.scales[g]));
      below += code * a.block_scales[g / 8] + a.tensor_scale[0] < 0;
    }
  }
  CHECK(below > 0);
}

TEST_CASE("compress: a host's own kernel has codes, scales and their descriptor") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 32, 9);
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  matrix const expected = net.first.forward(x);
  CHECK(net.first.slots.packed() == nullptr);
  compress(m);
  auto const& packed = *net.first.slots.packed();
  REQUIRE(packed.how().element == integer_element(8));
  REQUIRE(packed.groups().groups[0] == 24);
  auto const* const codes = reinterpret_cast<std::int8_t const*>(packed.codes());
  auto const* const scales = reinterpret_cast<float const*>(packed.scales());
  matrix w(24, 32), xq = x;
  for (Eigen::Index r = 0; r < w.rows(); ++r)
    for (Eigen::Index c = 0; c < w.cols(); ++c) w(r, c) = static_cast<float>(codes[r * 32 + c]) * scales[r];
  apply(net.first.slots, xq, 0);
  CHECK(same_bits(linear_layer::product()(xq, w), expected));
}

TEST_CASE("compress: tied weights that are quantized alike share their codes") {
  struct tied {
    matrix weight = random_matrix(16, 16, 3);
    quantizer_slots<cpu_backend> a, b, c;
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(linear("a", a, weight));
      visit(linear("b", b, weight));
      visit(linear("c", c, weight));
    }
  } net;
  model<cpu_backend> m{net};
  auto config = preset("INT8_DEFAULT_CFG");
  config.entries.push_back({.quantizer_name = "*input_quantizer", .enable = false});
  config.entries.push_back({.quantizer_name = "c.weight_quantizer", .cfg = std::vector{quantizer_attribute_config{
                                                                        .num_bits = 4, .axis = 0}}});
  quantize(m, config);
  auto const report = compress(m);
  CHECK(net.a.packed() == net.b.packed());
  CHECK(net.a.packed() != net.c.packed());
  CHECK(report.layers[1].size.bytes() == 0);
  CHECK(report.bytes() == 16 * 16 + 16 * 4 + 16 * 16 / 2 + 16 * 4);
}

TEST_CASE("compress: the recipes that a search left beside the active one are gone") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 32, 9);
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  for (auto* const layer : {&net.first, &net.second}) {
    auto& s = site_of(*layer);
    s.recipes.insert(s.recipes.begin(), recipe_quantizers<cpu_backend>{"other", {}});
    s.active = 1;
  }
  matrix const expected = net.forward(x);
  compress(m);
  CHECK(site_of(net.first).recipes.size() == 1);
  CHECK(same_bits(net.forward(x), expected));
}

TEST_CASE("compress: backwards are lent the decoded weight, training and all that would change it are refused") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 32, 9), grad = random_matrix(5, 8, 10);
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  net.forward(x);
  matrix const expected = net.backward(grad);
  CHECK(compress(m, "first.weight_quantizer").layers.size() == 1);
  CHECK(compress(m).layers.size() == 1);  // the other one
  net.forward(x);
  CHECK(same_bits(net.backward(grad), expected));
  matrix grad_weight;
  auto const refused = [&](auto&& call) { return error_text(error_id::state_folded, call); };
  CHECK(says(refused([&] { net.first.backward(random_matrix(5, 24, 1), &grad_weight); }), "first", "compressed"));
  CHECK(says(refused([&] { fold_weight(m); }), "first", "fold_weight"));
  CHECK(says(refused([&] { disable_quantizer(m, "*"); }), "first", "compressed"));
  CHECK(says(refused([&] { set_quantizer_attributes(m, "*weight*", {.num_bits = 4}); }), "first", "compressed"));
  CHECK(postprocess_amax(m, "*", scaled_amax(1)) == 2);  // the inputs'
  CHECK(says(refused([&] { scale_training<cpu_backend>{m}; }), "first", "compressed"));
  CHECK(enable_quantizer(m, "*weight_quantizer") == 2);
  CHECK(disable_quantizer(m, "*input_quantizer") == 2);
}

TEST_CASE("compress: quantized anew from a weight that the host still shows, refused from one that it gave up") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 32, 9);
  auto const run = [&] { net.forward(x); };
  quantize(m, preset("INT8_DEFAULT_CFG"), run);
  matrix const int8 = net.forward(x);
  compress(m);
  calibrate(m, "max", run);
  CHECK(net.first.slots.packed() == nullptr);
  CHECK(same_bits(net.forward(x), int8));
  compress(m);
  net.first.weight = {};
  auto const refused = [&](auto&& call) { return error_text(error_id::state_folded, call); };
  CHECK(says(refused([&] { calibrate(m, "max", run); }), "first", "compressed", "shows it no more"));
  CHECK(says(refused([&] { quantize(m, preset("INT8_DEFAULT_CFG"), run); }), "first", "shows it no more"));
  CHECK(same_bits(net.forward(x), int8));
  net.second.weight = random_matrix(8, 23, 1);
  CHECK(says(error_text(error_id::tensor_shape, run), "second", "[8,24]", "[8,23]"));
}

TEST_CASE("compress: what has no codes is refused by its layer, and nothing is compressed then") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 32, 9);
  auto const refused = [&](quantizer_attribute_config const& a, error_id id = error_id::format_value) {
    auto config = preset("INT8_DEFAULT_CFG");
    config.entries.push_back({.quantizer_name = "second.weight_quantizer", .cfg = std::vector{a}});
    quantize(m, config, [&] { net.forward(x); });
    auto const text = error_text(id, [&] { compress(m); });
    CHECK(net.first.slots.packed() == nullptr);
    return text;
  };
  CHECK(says(refused({.num_bits = 12}), "second", "num_bits 12"));
  quantizer_attribute_config shifted{.num_bits = 8}, turned{.num_bits = 8};
  shifted.bias = bias_config{.axes = {-1}};
  turned.rotate.enable = true;
  turned.rotate.mode = rotate_mode::rotate_back;
  CHECK(says(refused(shifted), "second", "bias"));
  CHECK(says(refused(turned), "second", "rotated back"));
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  CHECK(says(error_text(error_id::config_no_match, [&] { compress(m, "*input_quantizer"); }), "*input_quantizer"));
  fold_weight(m);
  CHECK_FALSE(error_text(error_id::config_no_match, [&] { compress(m); }) == "(no error)");
}

TEST_CASE("compress: under another policy the weights are those of stored, and a note says so") {
  small_network net, stored;
  for (auto* const each : {&net, &stored})
    for (Eigen::Index r = 0; r < 24; ++r)  // half steps, which the policies' arithmetic rounds to either side
      for (Eigen::Index c = 1; c < 32; ++c)
        each->first.weight(r, c) = (static_cast<float>(c % 7) + 0.5f) * (std::abs(each->first.weight(r, 0)) / 7.0f);
  model<cpu_backend> m{net, {.numerics = policy::modelopt}}, other{stored};
  matrix const x = random_matrix(5, 32, 9);
  auto config = preset("INT8_WEIGHT_ONLY_CFG");
  quantizer_attribute_config const int4{.num_bits = 4, .axis = 0};
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{int4}});
  quantize(m, config);
  quantize(other, config);
  CHECK_FALSE(same_bits(net.first.forward(x), stored.first.forward(x)));
  CHECK(mentions(compress(m).notes, "modelopt", "stored"));
  CHECK(same_bits(net.first.forward(x), stored.first.forward(x)));
}
