// What a host's own kernel is told: each case computes a compressed layer's product from descriptors and arrays alone.
#include "mixbit/quantizer/packed_layer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mixbit/model/compress.hpp"
#include "support/described_kernel.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Rows that end in the middle of a byte and in half a pair, blocks that are cut short, a row of zeros.
matrix ragged_weight() {
  matrix w = random_matrix(7, 45, 5);
  w.row(2).setZero();
  return w;
}

struct one_layer {
  linear_layer fc;
  explicit one_layer(matrix w) : fc{std::move(w), {}, {}} {}
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("fc", fc.slots, fc.weight));
  }
};

quantize_config weight_only(quantizer_attribute_config const& a) {
  auto config = preset("INT8_DEFAULT_CFG");
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{a}});
  config.entries.push_back({.quantizer_name = "*input_quantizer", .enable = false});
  return config;
}

block_config blocks_of_last(std::int64_t size) { return {.axes = {{-1, size}}, .type = quantizer_type::static_type}; }

std::vector<quantize_config> formats_of_weights() {
  std::vector<quantize_config> all{weight_only({.num_bits = 8, .axis = 0})};
  for (int const bits : {2, 3, 5, 16}) all.push_back(weight_only({.num_bits = bits, .axis = 0}));
  all.push_back(weight_only({.num_bits = 4, .block_sizes = blocks_of_last(32)}));
  block_config tiles{.axes = {{-2, 4}, {-1, 16}}, .type = quantizer_type::static_type};
  all.push_back(weight_only({.num_bits = bit_spec{4, 3}, .block_sizes = tiles}));
  auto nf4 = blocks_of_last(4);
  nf4.scale_bits = bit_spec{8};
  nf4.scale_block_sizes = {{-1, 8}};
  all.push_back(weight_only({.num_bits = 4, .block_sizes = nf4}));
  for (char const* name : {"NVFP4_DEFAULT_CFG", "NVFP4_FOUR_OVER_SIX_CFG", "MXFP4_DEFAULT_CFG", "MXFP6_DEFAULT_CFG",
                           "MXFP8_DEFAULT_CFG", "MXINT8_DEFAULT_CFG"})
    all.push_back(preset(name));
  return all;
}

/// The weight that a kernel reads, from the descriptor and the arrays.
matrix read_as_described(packed_layer<cpu_backend> const& layer, packed_weight<cpu_backend> const& arrays) {
  auto const values = decode_described(
      layer.weight, {arrays.codes(), arrays.scales(), arrays.block_scales(), arrays.tensor_scale()});
  REQUIRE(layer.weight.rank == 2);
  matrix w(layer.weight.shape[0], layer.weight.shape[1]);
  REQUIRE(w.size() == static_cast<Eigen::Index>(values.size()));
  std::copy(values.begin(), values.end(), w.data());
  return w;
}

packed_layer<cpu_backend> compressed(model<cpu_backend>& m, linear_layer& layer) {
  compress(m);
  layer.weight = {};
  return describe_packed(m.device(), layer.slots);
}

/// x times one factor a channel, then each block of channels through a normalized Walsh-Hadamard transform.
matrix scaled_and_rotated(matrix x, std::vector<float> const& scale, std::int64_t block) {
  for (Eigen::Index r = 0; r < x.rows(); ++r)
    for (Eigen::Index c = 0; c < x.cols() && !scale.empty(); ++c) x(r, c) *= scale[static_cast<std::size_t>(c)];
  for (Eigen::Index r = 0; r < x.rows() && block > 1; ++r)
    for (Eigen::Index first = 0; first < x.cols(); first += block) {
      float* const v = x.data() + r * x.cols() + first;
      for (Eigen::Index step = 1; step < block; step *= 2)
        for (Eigen::Index i = 0; i < block; ++i)
          if ((i & step) == 0) v[i] = std::exchange(v[i + step], v[i] - v[i + step]) + v[i];
      for (Eigen::Index i = 0; i < block; ++i) v[i] *= static_cast<float>(1 / std::sqrt(static_cast<double>(block)));
    }
  return x;
}

quantize_config weight_sequence(quantizer_attribute_config const& first, quantizer_attribute_config const& second) {
  auto config = weight_only(first);
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{first, second}});
  return config;
}

/// What the members behind the codes make of them in the library.
matrix cast_by_library(model<cpu_backend>& m, linear_layer& layer, matrix w) {
  auto& members = layer.slots.shared_site()->quantizers().find(quantizer_role::weight)->members();
  for (std::size_t i = 1; i < members.size(); ++i)
    members[i].quantize(m.device(), m.scratch().scratch, read_view(std::as_const(w)), write_view(w));
  return w;
}

/// Half to even at `mantissa` bits, down to the step of 2^lowest's.
float to_minifloat(float x, int mantissa, int lowest, float highest) {
  float const v = std::abs(x), step = v == 0 ? 1 : std::ldexp(1.0f, std::max(std::ilogb(v), lowest) - mantissa);
  return std::copysign(std::min(std::nearbyint(v / step) * step, highest), x);
}

/// NF4 in blocks of 16 along rows, `amax` one each.
matrix to_nf4(matrix x, std::vector<float> const& values, std::vector<float> const& amax) {
  REQUIRE(amax.size() == static_cast<std::size_t>(x.size()) / 16);
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    float const scale = amax[static_cast<std::size_t>(i) / 16], v = x.data()[i] / scale;
    x.data()[i] = scale * *std::ranges::min_element(values, {}, [&](float of) { return std::abs(of - v); });
  }
  return x;
}

}  // namespace

TEST_CASE("packed layer: a kernel made of the descriptor alone reads every format as decode does, bit for bit") {
  for (auto const& config : formats_of_weights())
    for (bool const ragged : {false, true}) {
      one_layer net{ragged ? ragged_weight() : random_matrix(24, 64, 3)};
      model<cpu_backend> m{net};
      matrix x = random_matrix(5, net.fc.weight.cols(), 9), decoded = net.fc.weight;
      quantize(m, config, [&] { net.fc.forward(x); });
      matrix const expected = net.fc.forward(x);
      auto const layer = compressed(m, net.fc);
      CAPTURE(layer.weight.element.bits);
      CAPTURE(static_cast<int>(layer.weight.scaling));
      matrix const w = read_as_described(layer, *net.fc.slots.packed());
      net.fc.slots.packed()->decode(m.device(), m.scratch().scratch, write_view(decoded));
      CHECK(same_bits(w, decoded));
      apply(net.fc.slots, x, 0);
      CHECK(same_bits(linear_layer::product()(x, w), expected));
      CHECK(layer.weight.size == net.fc.slots.packed()->size());
      CHECK(layer.weight_casts.empty());
    }
}

TEST_CASE("packed layer: the input's factors and rotation are told, and what codes have of them") {
  one_layer awq{random_matrix(24, 64, 3)};
  model<cpu_backend> m{awq};
  matrix const x = outliers(6, 64);
  auto config = preset("INT4_AWQ_CFG");
  quantize(m, config, [&] { awq.fc.forward(x); });
  matrix const expected = awq.fc.forward(x);
  auto const layer = compressed(m, awq.fc);
  REQUIRE(layer.input_scale.size() == 64);
  REQUIRE(layer.weight_scale.size() == 64);
  CHECK(layer.input_scale[0] * layer.weight_scale[0] == doctest::Approx(1));
  CHECK(layer.input_casts.empty());
  matrix const scaled = scaled_and_rotated(x, layer.input_scale, 0);
  CHECK(same_bits(linear_layer::product()(scaled, read_as_described(layer, *awq.fc.slots.packed())), expected));

  one_layer turned{random_matrix(8, 48, 4)};
  model<cpu_backend> other{turned};
  quantizer_attribute_config rotated{.num_bits = 8, .axis = 0};
  rotated.rotate = true;
  config = weight_only(rotated);
  config.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{rotated}, .enable = false});
  quantize(other, config, [&] { turned.fc.forward(x.leftCols(48)); });
  matrix const y = turned.fc.forward(x.leftCols(48));
  auto const described = compressed(other, turned.fc);
  CHECK(described.weight_rotation == 16);
  REQUIRE(described.input_rotation.has_value());
  CHECK(described.input_rotation == rotation{});
  matrix const w = read_as_described(described, *turned.fc.slots.packed());
  CHECK(same_bits(linear_layer::product()(scaled_and_rotated(x.leftCols(48), {}, 16), w), y));
}

TEST_CASE("packed layer: casts behind the codes, of inputs, and a branch are told") {
  one_layer net{random_matrix(24, 64, 3)};
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 64, 9);
  quantize(m, preset("W4A8_AWQ_BETA_CFG"), [&] { net.fc.forward(x); });
  matrix const expected = net.fc.forward(x);
  auto const layer = compressed(m, net.fc);
  REQUIRE(layer.weight_casts.size() == 1);
  cast_description const& fp8 = layer.weight_casts[0];
  CHECK(fp8.element == e4m3_element);
  CHECK(fp8.grouping == grouping_scheme{});
  REQUIRE(fp8.amax.size() == 1);
  matrix w = read_as_described(layer, *net.fc.slots.packed());
  float const scale = fp8.amax[0] / fp8.bound;
  for (Eigen::Index i = 0; i < w.size(); ++i)
    w.data()[i] = to_minifloat(w.data()[i] / scale, 3, -6, fp8.highest) * scale;
  REQUIRE(layer.input_casts.size() == 1);
  CHECK(layer.input_casts[0].element == e4m3_element);
  CHECK(layer.input_casts[0].amax_from == amax_source::calibration);
  CHECK(layer.branch == nullptr);
  matrix xq = x;
  apply(net.fc.slots, xq, 0);
  CHECK(same_bits(linear_layer::product()(xq, w), expected));
}

TEST_CASE("packed layer: a cast behind the codes tells one amax a group also where it is constant") {
  one_layer net{random_matrix(24, 64, 3)};
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 64, 9);
  auto config = weight_sequence({.num_bits = 8, .axis = 0}, {.num_bits = 4, .axis = 0, .constant_amax = 0.75});
  config.entries.push_back(
      {.quantizer_name = "*input_quantizer", .cfg = std::vector{quantizer_attribute_config{.constant_amax = 2.0}}});
  quantize(m, config, [&] { net.fc.forward(x); });
  matrix const expected = net.fc.forward(x);
  auto const layer = compressed(m, net.fc);
  REQUIRE(layer.weight_casts.size() == 1);
  cast_description const& int4 = layer.weight_casts[0];
  CHECK(int4.amax_from == amax_source::constant);
  REQUIRE(int4.amax.size() == 24);
  matrix w = read_as_described(layer, *net.fc.slots.packed()), xq = x;
  for (Eigen::Index r = 0; r < w.rows(); ++r)
    for (Eigen::Index c = 0; c < w.cols(); ++c) {
      float const scale = int4.amax[static_cast<std::size_t>(r)] / int4.bound;
      w(r, c) = std::clamp(std::nearbyint(w(r, c) / scale), int4.lowest, int4.highest) * scale + 0.0f;
    }
  apply(net.fc.slots, xq, 0);
  CHECK(same_bits(linear_layer::product()(xq, w), expected));
  REQUIRE(layer.input_casts.size() == 1);
  CHECK(layer.input_casts[0].amax == std::vector{2.0f});  // of all groups
}

TEST_CASE("packed layer: a cast with double quantization tells the amaxes that it casts with") {
  one_layer net{random_matrix(24, 64, 3)};
  model<cpu_backend> m{net};
  matrix const x = random_matrix(5, 64, 9);
  auto blocks = blocks_of_last(16);
  blocks.scale_bits = bit_spec{8};
  blocks.scale_block_sizes = {{-1, 8}};
  quantizer_attribute_config const nf4{.num_bits = 4, .block_sizes = blocks};
  auto finer = nf4;
  finer.block_sizes->axes = {{-1, 4}};
  auto config = weight_sequence(finer, nf4);
  config.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{nf4}});
  quantize(m, config, [&] { net.fc.forward(x); });
  matrix const expected = net.fc.forward(x);
  auto const layer = compressed(m, net.fc);
  REQUIRE(layer.weight_casts.size() == 1);
  REQUIRE(layer.input_casts.size() == 1);
  CHECK_FALSE(layer.weight_casts[0].tensor_amax.has_value());
  auto const& values = layer.weight.values;  // of the codes, which are NF4 as well
  matrix const w = to_nf4(read_as_described(layer, *net.fc.slots.packed()), values, layer.weight_casts[0].amax);
  CHECK(same_bits(linear_layer::product()(to_nf4(x, values, layer.input_casts[0].amax), w), expected));
}

TEST_CASE("packed layer: a two-level cast behind the codes tells the tensor's amax, also one held above its blocks'") {
  for (bool const held : {false, true}) {
    one_layer net{random_matrix(24, 64, 3)};
    model<cpu_backend> m{net};
    auto blocks = blocks_of_last(16);
    blocks.scale_bits = bit_spec{4, 3};
    quantize(m, weight_sequence({.num_bits = 8, .axis = 0}, {.num_bits = bit_spec{2, 1}, .block_sizes = blocks}));
    auto& second = net.fc.slots.shared_site()->quantizers().find(quantizer_role::weight)->members().at(1);
    if (held) second.hold_tensor_amax(m.device(), 40.0f);
    auto const layer = compressed(m, net.fc);
    REQUIRE(layer.weight_casts.size() == 1);
    cast_description const& nvfp4 = layer.weight_casts[0];
    REQUIRE(nvfp4.amax.size() == 24 * 4);
    REQUIRE(nvfp4.tensor_amax.has_value());
    CHECK(*nvfp4.tensor_amax == (held ? 40.0f : *std::ranges::max_element(nvfp4.amax)));
    matrix w = read_as_described(layer, *net.fc.slots.packed());
    matrix const expected = cast_by_library(m, net.fc, w);
    float const of_tensor = *nvfp4.tensor_amax / nvfp4.tensor_bound;
    for (Eigen::Index i = 0; i < w.size(); ++i) {
      float const ratio = nvfp4.amax[static_cast<std::size_t>(i) / 16] / (nvfp4.bound * of_tensor);
      float const scale = to_minifloat(ratio, 3, -6, 448) * of_tensor;
      w.data()[i] = to_minifloat((w.data()[i] + 0.0f) / scale, 1, 0, nvfp4.highest) * scale;
    }
    CHECK(same_bits(w, expected));
  }
}

TEST_CASE("packed layer: svdquant's branch is told, beside a quantized input and in the weight's place without one") {
  algorithm_step const svdquant{"svdquant", {{"lowrank", std::int64_t{4}}}};
  for (bool const with_input : {true, false}) {
    one_layer net{random_matrix(24, 64, 3)};
    model_options<cpu_backend> options;
    options.linalg = plain_linalg{};
    model<cpu_backend> m{net, options};
    matrix const x = outliers(6, 64);
    auto config = preset("NVFP4_DEFAULT_CFG");
    config.algorithm = svdquant;
    if (!with_input) config.entries.push_back({.quantizer_name = "*input_quantizer", .enable = false});
    quantize(m, config, [&] { net.fc.forward(x); });
    matrix const expected = net.fc.forward(x);
    auto const layer = compressed(m, net.fc);
    REQUIRE(layer.branch != nullptr);
    matrix w = read_as_described(layer, *net.fc.slots.packed()), xq = x, y;
    Eigen::Map<matrix const> const negative{layer.branch->negative.view().as<float>(), 24, 64};
    matrix const less = scaled_and_rotated(x, layer.input_scale, 0) * negative.transpose();
    apply(net.fc.slots, xq, 0);
    if (with_input) y = linear_layer::product()(xq, w) - less;
    else y = linear_layer::product()(xq, matrix{w - negative});
    CHECK(layer.input_casts.empty() == !with_input);
    CHECK(same_bits(y, expected));
  }
}

TEST_CASE("packed layer: slots without codes are refused by their layer") {
  one_layer net{random_matrix(4, 8, 3)};
  cpu_backend device;
  auto const refused = [&] {
    return error_text(error_id::state_missing, [&] { (void)describe_packed(device, net.fc.slots); });
  };
  CHECK(says(refused(), "these slots", "compress"));
  model<cpu_backend> m{net};
  quantize(m, weight_only({.num_bits = 8}));
  CHECK(says(refused(), "fc", "compress"));
}
