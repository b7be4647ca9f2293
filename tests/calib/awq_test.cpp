// awq_lite, awq_clip and awq_full together: calib/awq_lite.hpp, calib/awq_clip.hpp.
#include <doctest/doctest.h>

#include "mixbit/calib/awq_clip.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config int4_with(algorithm_config algorithm, std::int64_t block = 8) {
  auto config = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  quantizer_attribute_config const blocks{
      .num_bits = 4, .block_sizes = block_config{.axes = {{-1, block}}, .type = quantizer_type::static_type}};
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{blocks}});
  config.algorithm = std::move(algorithm);
  return config;
}

std::vector<float> scale_of(linear_layer& l, model<cpu_backend>& m) {
  return quantizer_of(l, quantizer_role::input).pre_quant_scale(m.device());
}
std::vector<float> weight_amax(linear_layer& l) { return amax_of(l, quantizer_role::weight); }

/// Two layers, data with outliers, and a model of them.
struct bench {
  small_network net{};
  matrix x;
  model<cpu_backend> m{net};

  explicit bench(Eigen::Index rows) : x{outliers(rows, 32)} {}
  std::vector<std::string> quantize_with(quantize_config const& config) {
    return quantize(m, config, [&] { net.forward(x); }).notes;
  }
};

/// W with its columns times `factor`, through the layer's weight quantizer as max calibrates it.
matrix max_quantized(matrix w, std::vector<float> const& factor, std::int64_t block) {
  linear_layer layer{std::move(w), {}, {}};
  for (Eigen::Index c = 0; c < layer.weight.cols(); ++c) layer.weight.col(c) *= factor[static_cast<std::size_t>(c)];
  struct {
    linear_layer& only;
    void walk(module_visitor<cpu_backend> const& visit) { visit(linear("only", only.slots, only.weight)); }
  } host{layer};
  model<cpu_backend> m{host};
  quantize(m, int4_with("max", block));
  return by_hand(quantizer_of(layer, quantizer_role::weight), layer.weight);
}

}  // namespace

TEST_CASE("awq: alphas, the mean of relative weights, and the scale by their definitions") {
  CHECK(awq_alphas(0.1).size() == 11);
  CHECK(awq_alphas(0.1).back() == 1.0);
  CHECK(awq_alphas(0.3) == std::vector{0.0, 0.3, 0.6, 3 * 0.3});
  CHECK(awq_weight_mean({1, 2, 4, -3, 8, 2, 1, 0}, 4, 2) ==
        std::vector{(0.5 + 1) / 2, (1 + 0.25) / 2, (1 + 1.0) / 2, (0.75 + 0) / 2});
  CHECK(awq_weight_mean({1, -2, 4}, 3, 2) == std::vector{0.5, 1.0, 1.0});  // a ragged block
  auto const scale = awq_scale({16, 1}, {0.25, 1}, 0.5);  // 8 and 1, divided by sqrt(8)
  CHECK(scale[0] == doctest::Approx(std::sqrt(8.0)));
  CHECK(scale[1] == doctest::Approx(1 / std::sqrt(8.0)));
  auto const clamped = awq_scale({0, 1e9}, {1, 1}, 1.0);  // 1e-4 and 1e4
  CHECK(clamped[0] == doctest::Approx(1e-4));
  CHECK(clamped[1] == doctest::Approx(1e4));
}

TEST_CASE("awq_lite: the alpha that an exhaustive search by hand finds, on both layers' own data") {
  small_network net;
  std::vector<matrix> const data{outliers(5, 32), outliers(9, 32, 8)};
  model<cpu_backend> m{net};
  int forwards = 0;
  quantize(m, int4_with("awq_lite"), [&] {
    for (auto const& x : data) net.forward(x), ++forwards;
  });
  CHECK(forwards == 4);

  std::vector<double> x_mean(32);
  for (Eigen::Index c = 0; c < 32; ++c)
    for (auto const& x : data) x_mean[static_cast<std::size_t>(c)] += double{x.col(c).cwiseAbs().mean()} / 2;
  std::vector<float> const w{net.first.weight.data(), net.first.weight.data() + net.first.weight.size()};
  auto const w_mean = awq_weight_mean(w, 32, 8);
  double least = INFINITY;
  std::vector<float> best;
  for (double const alpha : awq_alphas(0.1)) {
    auto const s = awq_scale(x_mean, w_mean, alpha);
    matrix const wq = max_quantized(net.first.weight, s, 8);
    double loss = 0;
    for (auto const& x : data) {
      matrix xs = x;
      for (Eigen::Index c = 0; c < 32; ++c) xs.col(c) /= s[static_cast<std::size_t>(c)];
      loss += double{(xs * wq.transpose() - x * net.first.weight.transpose()).squaredNorm()} / double(x.rows() * 24);
    }
    if (loss < least) least = loss, best = s;
  }
  auto const found = scale_of(net.first, m);
  REQUIRE(found.size() == best.size());
  for (std::size_t i = 0; i < best.size(); ++i) CHECK(found[i] == doctest::Approx(1 / best[i]).epsilon(1e-5));
  CHECK(scale_of(net.second, m).size() == 24);
}

TEST_CASE("awq: each of lite, clip and full has less output error than max, and full the least") {
  matrix const x = outliers(64, 32);
  small_network unquantized;
  matrix const plain = unquantized.forward(x);
  std::map<std::string, float> error;
  for (std::string const method : {"max", "awq_lite", "awq_clip", "awq_full"}) {
    small_network net;
    model<cpu_backend> m{net};
    quantize(m, int4_with(method), [&] { net.forward(x); });
    CHECK(same_bits(net.first.weight, unquantized.first.weight));  // the host's is never written
    error[method] = (net.forward(x) - plain).norm();
  }
  CHECK(error["awq_lite"] < 0.8f * error["max"]);
  CHECK(error["awq_clip"] < error["max"]);
  CHECK(error["awq_full"] < error["awq_lite"]);
}

TEST_CASE("awq_lite: calibrated inputs get the amax of the scaled channels, and W4A8 keeps both members at max") {
  bench b{40};
  auto& [net, x, m] = b;
  b.quantize_with(preset("W4A8_AWQ_BETA_CFG"));
  auto& input = quantizer_of(net.first, quantizer_role::input);
  auto const s = scale_of(net.first, m);
  float top = 0;
  for (Eigen::Index c = 0; c < 32; ++c)
    top = std::max(top, x.col(c).cwiseAbs().maxCoeff() * s[static_cast<std::size_t>(c)]);
  CHECK(input.members().front().amax(m.device()).front() == doctest::Approx(top).epsilon(1e-6));
  auto& weight = quantizer_of(net.first, quantizer_role::weight);
  REQUIRE(weight.members().size() == 2);
  auto const blocks = weight.members()[0].amax(m.device());
  CHECK(weight.members()[1].amax(m.device()).front() == *std::max_element(blocks.begin(), blocks.end()));
}

TEST_CASE("awq_clip: each block's ratio is the first with the least partial error on the sampled rows") {
  bench b{10};
  auto& [net, x, m] = b;
  b.quantize_with(int4_with("max", 12));  // blocks of 12, 12 and 8
  auto const before = weight_amax(net.first);
  matrix const w = net.first.weight;
  b.quantize_with(int4_with(algorithm_step{"awq_clip", {{"max_tokens_per_batch", std::int64_t{4}}}}, 12));
  auto const after = weight_amax(net.first);
  REQUIRE(after.size() == before.size());
  auto& q = quantizer_of(net.first, quantizer_role::weight).members().front();
  auto const groups = q.groups();
  std::vector<double> least(before.size(), INFINITY);
  std::vector<float> best(before.size());
  for (double const ratio : clip_ratios(0.5, 0.05)) {
    auto tried = before;
    for (float& a : tried) a *= static_cast<float>(ratio);
    q.set_amax(m.device(), groups, tried);
    matrix const wq = by_hand(quantizer_of(net.first, quantizer_role::weight), w);
    for (Eigen::Index r = 0; r < 24; ++r)
      for (Eigen::Index block = 0; block < 3; ++block) {
        Eigen::Index const first = 12 * block, n = std::min<Eigen::Index>(12, 32 - first);
        double loss = 0;
        for (Eigen::Index t = 0; t < 10; t += 2)  // 10 rows, 4 wanted: every second
          loss += std::pow(double{(x.row(t).segment(first, n) *
                                   (wq - w).row(r).segment(first, n).transpose()).value()}, 2);
        auto const i = static_cast<std::size_t>(3 * r + block);
        if (loss < least[i]) least[i] = loss, best[i] = tried[i];
      }
  }
  CHECK(after == best);
  CHECK(after != before);
}

TEST_CASE("awq_clip: a block without data takes the first ratio, as any of equal losses") {
  bench b{10};
  b.x.leftCols(8).setZero();
  b.quantize_with(int4_with("max"));
  auto const before = weight_amax(b.net.first);
  b.quantize_with(int4_with("awq_clip"));
  auto const after = weight_amax(b.net.first);
  for (std::size_t row = 0; row < 24; ++row) CHECK(after[4 * row] == 0.5f * before[4 * row]);
}

TEST_CASE("awq_clip: NVFP4 weights have one amax, chosen by the output") {
  bench b{16};
  auto& [net, x, m] = b;
  b.quantize_with(preset("NVFP4_AWQ_CLIP_CFG"));
  float const top = net.first.weight.cwiseAbs().maxCoeff(), chosen = weight_amax(net.first).front();
  double least = INFINITY;
  float best = 0;
  auto& q = quantizer_of(net.first, quantizer_role::weight);
  auto const groups = q.members().front().groups();
  for (double const ratio : clip_ratios(0.5, 0.05)) {
    q.members().front().set_amax(m.device(), groups, {top * static_cast<float>(ratio)});
    double const loss = (x * by_hand(q, net.first.weight).transpose() - x * net.first.weight.transpose()).squaredNorm();
    if (loss < least) least = loss, best = top * static_cast<float>(ratio);
  }
  CHECK(chosen == best);
}

TEST_CASE("awq: what cannot be searched stays at max, and a note says why") {
  bench b{8};
  auto& [net, x, m] = b;
  auto const only_first = [&net = net, &x = x] { net.first.forward(x); };
  for (char const* method : {"awq_lite", "awq_clip", "awq_full"}) {
    CHECK(mentions(quantize(m, int4_with(method), only_first).notes, "second", "saw no data"));
    CHECK_FALSE(quantizer_of(net.second, quantizer_role::input).has_pre_quant_scale());
  }
  quantize(m, int4_with("max"), {});
  auto const max_amax = weight_amax(net.first), max_of_second = weight_amax(net.second);
  x(1, 1) = NAN;
  CHECK(mentions(b.quantize_with(int4_with("awq_lite")), "first", "NaN"));
  CHECK(weight_amax(net.first) == max_amax);
  int runs = 0;
  x = outliers(8, 32);
  auto const not_second = [&] { runs++ == 0 ? b.net.forward(b.x) : b.net.first.forward(b.x); };
  CHECK(mentions(quantize(m, int4_with("awq_lite"), not_second).notes, "second", "ran again"));
  CHECK(weight_amax(net.second) == max_of_second);
  x.setZero();  // channels without data: every alpha's scale is finite
  CHECK_NOTHROW(b.quantize_with(int4_with("awq_full")));
  CHECK(mentions(b.quantize_with(int4_with(algorithm_step{"awq_lite", {{"debug", true}}})), "first", "alpha "));
}

TEST_CASE("awq: a loop that reaches nothing, at once or when it runs again, is one error, and the model is as before") {
  bench b{8};
  for (char const* method : {"awq_lite", "awq_clip", "awq_full"})
    CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(b.m, int4_with(method), [] {}); }), method,
               "reached none of 2 layer(s)"));
  int runs = 0;
  auto const once = [&] { if (runs++ == 0) b.net.forward(b.x); };
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(b.m, int4_with("awq_lite"), once); }),
             "awq_lite", "ran again"));
  auto layerwise = int4_with(algorithm_step{"awq_lite", {{"layerwise", true}}});
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(b.m, layerwise, [] {}); }), "awq_lite",
             "reached none of 1 layer(s)"));
  CHECK(site_of(b.net.first).recipes.empty());
}

TEST_CASE("awq: NaN are counted once, of weights and of inputs, and calibrate runs the loop as often as quantize") {
  bench b{8};
  b.net.first.weight(2, 5) = NAN;
  auto config = int4_with("awq_clip");
  for (char const* method : {"awq_clip", "awq_full"}) {
    config.algorithm = method;
    auto const notes = b.quantize_with(config);
    CHECK(mentions(notes, "first.weight_quantizer", ": 1 NaN"));
  }
  b.net.first.weight(2, 5) = 0;
  b.x(1, 1) = NAN;
  b.quantize_with(preset("INT8_SMOOTHQUANT_CFG"));
  int runs = 0;
  auto const counting = [&] { b.net.forward(b.x), ++runs; };
  CHECK(mentions(calibrate(b.m, "smoothquant", counting).notes, "first.input_quantizer", ": 1 NaN"));
  CHECK(runs == 1);
  auto w4a8 = preset("W4A8_AWQ_BETA_CFG");
  w4a8.algorithm = std::vector<algorithm_step>{{"awq_lite"}, {"max"}};  // two passes over the same inputs
  CHECK(mentions(b.quantize_with(w4a8), "first.input_quantizer", ": 1 NaN"));
  config.algorithm = "max";
  b.quantize_with(config);
  b.x(1, 1) = 0;
  runs = 0;
  calibrate(b.m, "awq_lite", counting);
  CHECK(runs == 2);
}

TEST_CASE("awq_clip: blocks whose data has NaN stay at max, and a note says how many") {
  bench b{10};
  b.quantize_with(int4_with("max"));
  auto const top = weight_amax(b.net.first);
  b.x(3, 9) = NAN;  // of the second block of four
  CHECK(mentions(b.quantize_with(int4_with("awq_clip")), "first: awq_clip", "24 of 96 blocks"));
  auto const clipped = weight_amax(b.net.first);
  CHECK(clipped != top);
  for (std::size_t row = 0; row < 24; ++row) CHECK(clipped[4 * row + 1] == top[4 * row + 1]);
}

TEST_CASE("awq: rotated operands are left at max or refused with the field; a weight's bias is searched with") {
  bench b{16};
  auto const with = [](char const* method, std::string const& on, auto&& change) {
    auto config = int4_with(method);
    auto a = config.entries.back().cfg->front();
    change(a);
    config.entries.push_back({.quantizer_name = on, .cfg = std::vector{a}});
    return config;
  };
  auto const rotate = [](auto& a) { a.rotate = true; };
  for (char const* method : {"awq_lite", "awq_clip", "awq_full"}) {
    auto const refused = [&](quantize_config const& config) {
      return error_text(error_id::config_conflict, [&] { b.quantize_with(config); });
    };
    CHECK(says(refused(with(method, "*weight_quantizer", rotate)), method, "first", "weight_quantizer.rotate"));
    CHECK(mentions(b.quantize_with(with(method, "second.weight_quantizer", rotate)), "second",
                   "weight_quantizer.rotate"));
    CHECK_FALSE(quantizer_of(b.net.second, quantizer_role::weight).has_pre_quant_scale());
    auto const off = [&](auto& a) { rotate(a), a.enable = false; };
    CHECK(says(refused(with(method, "*input_quantizer", off)), method, "first", "input_quantizer.rotate"));
  }
  auto const shift = [](auto& a) {
    a.num_bits = 8, a.axis = std::vector{0}, a.block_sizes.reset();
    a.bias = bias_config{.axes = {-1}, .type = quantizer_type::static_type, .method = bias_method::max_min};
  };
  b.quantize_with(with("awq_lite", "*weight_quantizer", shift));
  auto& q = quantizer_of(b.net.first, quantizer_role::weight);
  REQUIRE(q.has_pre_quant_scale());
  auto const s = q.pre_quant_scale(b.m.device());
  matrix scaled = b.net.first.weight;
  for (Eigen::Index c = 0; c < 32; ++c) scaled.col(c) *= s[static_cast<std::size_t>(c)];
  auto const bias = q.members().front().bias()->values();
  for (Eigen::Index r = 0; r < 24; ++r)
    CHECK(bias[static_cast<std::size_t>(r)] == (scaled.row(r).maxCoeff() + scaled.row(r).minCoeff()) * 0.5f);
}

TEST_CASE("awq: a folded weight has the scale in it, so its recipe is calibrated anew and not replaced") {
  bench b{16};
  auto& [net, x, m] = b;
  b.quantize_with(int4_with("awq_lite"));
  CHECK(fold_weight(m) == 2);
  matrix const folded = net.forward(x);
  auto activations = preset("INT8_DEFAULT_CFG");
  activations.entries.push_back({.quantizer_name = "*weight_quantizer", .enable = false});
  CHECK(says(error_text(error_id::state_folded, [&] { b.quantize_with(activations); }), "first",
             "pre_quant_scale of first.input_quantizer"));
  CHECK(same_bits(net.forward(x), folded));
  calibrate(m, "max", [&b] { b.net.forward(b.x); });
  CHECK(same_bits(net.forward(x), folded));
  set_quantizer_attributes(m, "*input_quantizer", {.num_bits = 8, .type = quantizer_type::dynamic_type});
  CHECK((net.forward(x) - folded).norm() < 0.05f * folded.norm());
}

TEST_CASE("awq: a format it cannot take, no loop and a loop that throws: one error, and the model as before") {
  bench b{4};
  auto& net = b.net;
  auto& m = b.m;
  matrix const before = net.forward(b.x);
  auto const run = [&] { net.forward(b.x); };
  quantizer_attribute_config const int8{.num_bits = 8};
  for (char const* method : {"awq_lite", "awq_clip", "awq_full"}) {
    quantize_config activations{.name = "activations"};
    activations.entries.push_back({.quantizer_name = "*", .enable = false});
    activations.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{int8}});
    activations.algorithm = method;
    CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, activations, run); }), method, "quantized"));
    CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, int4_with(method)); }), method,
               "forward_loop"));
    CHECK_THROWS_AS(quantize(m, int4_with(method), [] { throw std::runtime_error{"no data"}; }), std::runtime_error);
  }
  auto per_channel = preset("INT8_WEIGHT_ONLY_CFG");
  per_channel.algorithm = "awq_clip";
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, per_channel, run); }), "awq_clip", "blocks"));
  CHECK(same_bits(net.forward(b.x), before));
  CHECK(site_of(net.first).recipes.empty());
}
