#include "mixbit/calib/svdquant_algorithm.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// One layer with a bias, which must not be added twice.
struct biased {
  matrix weight = random_matrix(12, 16, 1);
  Eigen::RowVectorXf bias = random_matrix(1, 12, 2);
  quantizer_slots<cpu_backend> slots;

  matrix forward(matrix const& x) const {
    return apply(slots, x, weight, [this](auto const& xq, auto const& wq) -> matrix {
      return (xq * wq.transpose()).rowwise() + bias;
    });
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("layer", slots, weight));
  }
  recipe_quantizers<cpu_backend>& recipe() const { return slots.shared_site()->quantizers(); }
};

std::vector<float> scales() {
  std::vector<float> s;
  for (int i = 0; i < 16; ++i) s.push_back(i % 3 == 0 ? 0.25f : 1.5f);
  return s;
}

/// Splits weights as svdquant does, after setting scales.
model_options<cpu_backend> splitting(bool scaled, any_linalg l = plain_linalg{}) {
  model_options<cpu_backend> options;
  options.linalg = l;
  options.algorithms.add("test.split", [scaled](calibration<cpu_backend>& c, algorithm_step const& step) {
    calibrate_max(c);
    for (auto& layer : c.layers)
      for (auto& q : layer.quantizers().quantizers) {
        auto s = scales();
        if (q.role() == quantizer_role::weight)
          for (float& f : s) f = 1.0f / f;
        if (scaled && q.role() != quantizer_role::output) q.set_pre_quant_scale(c.home.device, s);
      }
    split_weights(c, step.integer("rank"));
  });
  return options;
}

quantize_config config(bool inputs, int rank = 3, std::string const& more = "") {
  std::string const input = R"(, {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 4)" + more + "}}";
  return config_from_json(R"({"quant_cfg": [{"quantizer_name": "*", "enable": false},
    {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 3, "axis": 0}})" + (inputs ? input : "") +
    R"(], "algorithm": {"method": "test.split", "rank": )" + std::to_string(rank) + "}}", "test");
}

matrix map(const_tensor_ref t) { return Eigen::Map<matrix const>(t.as<float>(), t.shape[0], t.shape[1]); }

double largest(matrix const& m) { return m.cwiseAbs().maxCoeff(); }

}  // namespace

TEST_CASE("svdquant: y is the quantized rest's plus the branch's, of the input as it is scaled and not quantized") {
  matrix const x = random_matrix(9, 16, 3);
  Eigen::VectorXf const scale = Eigen::Map<Eigen::VectorXf const>(scales().data(), 16);
  for (bool const scaled : {false, true})
    for (bool const inputs : {false, true}) {
      CAPTURE(scaled);
      CAPTURE(inputs);
      biased host;
      matrix const plain = host.forward(x);
      model<cpu_backend> m{host, splitting(scaled)};
      quantize(m, config(inputs), [&] { CHECK(largest(host.forward(x) - plain) < 1e-4); });  // nothing is quantized yet
      auto& r = host.recipe();
      REQUIRE(r.branch);
      matrix const rest = map(r.weight->view()), a = map(r.branch->down.view()), b = map(r.branch->up.view());
      CHECK(a.rows() == 3);
      matrix const x_scaled = scaled ? matrix{x * scale.asDiagonal()} : x;
      matrix const w_scaled = scaled ? matrix{host.weight * scale.cwiseInverse().asDiagonal()} : host.weight;
      CHECK(largest(rest + b * a - w_scaled) < 1e-5);
      matrix const xq = inputs ? by_hand(*r.find(quantizer_role::input), x) : x_scaled;
      matrix const wq = by_hand(*r.find(quantizer_role::weight), rest);
      matrix const expected = (xq * wq.transpose() + x_scaled * (b * a).transpose()).rowwise() + host.bias;
      matrix const got = host.forward(x);
      CHECK(largest(got - expected) < 1e-4);
      host.slots.cache_weight(true);
      CHECK(same_bits(host.forward(x), got));
      CHECK(same_bits(host.forward(x), got));
    }
}

TEST_CASE("svdquant: a branch takes what is hard to quantize out of the weight, and max is of what is left") {
  biased host;
  host.weight += 30 * random_matrix(12, 1, 5) * random_matrix(1, 16, 6);  // of rank 1
  matrix const x = random_matrix(50, 16, 3), plain = host.forward(x);
  model<cpu_backend> m{host, splitting(false)};
  auto by_max = config(false);
  by_max.algorithm = "max";
  quantize(m, by_max);
  double const error = (host.forward(x) - plain).squaredNorm();
  quantize(m, config(false, 1));
  CHECK((host.forward(x) - plain).squaredNorm() < 0.01 * error);
  cpu_backend device;
  auto const amax = host.recipe().find(quantizer_role::weight)->members().front().amax(device);
  matrix const rest = map(host.recipe().weight->view());
  for (Eigen::Index i = 0; i < 12; ++i) CHECK(amax[static_cast<std::size_t>(i)] == rest.row(i).cwiseAbs().maxCoeff());
}

TEST_CASE("svdquant: a rank above the weight's is cut, with a note") {
  biased host;
  model<cpu_backend> m{host, splitting(false)};
  auto const resolved = quantize(m, config(false, 40));
  REQUIRE(resolved.notes.size() == 1);
  CHECK(resolved.notes[0].find("layer: svdquant: lowrank 40 of a weight of rank 12 at most") != std::string::npos);
  CHECK(host.recipe().branch->down.view().shape[0] == 12);
}

TEST_CASE("svdquant: what it cannot do is refused") {
  biased host;
  matrix const x = random_matrix(9, 16, 3), before = host.forward(x);
  auto const loop = [&] { (void)host.forward(x); };
  model<cpu_backend> without{host, splitting(false, {})}, m{host, splitting(false)};
  CHECK(says(error_text(error_id::state_missing, [&] { quantize(without, config(false)); }), "svdquant",
             "model_options::linalg"));
  CHECK(says(error_text(error_id::format_value, [&] { quantize(m, config(true, 3, R"(, "rotate": true)"), loop); }),
             "layer.input_quantizer", "not rotated"));
  CHECK(same_bits(host.forward(x), before));
  quantize(m, config(true), loop);
  matrix const quantized = host.forward(x);
  CHECK(says(error_text(error_id::state_folded, [&] { fold_weight(m); }), "layer", "branch"));
  CHECK(same_bits(host.forward(x), quantized));
  CHECK(says(error_text(error_id::state_missing, [&] { lend(host.slots, x, host.weight, [](auto&&, auto&&) {}); }),
             "layer", "branch"));
  calibrate(m, "max", loop);  // from the host's weight
  CHECK(!host.recipe().branch);
}

TEST_CASE("svdquant: calibrating again undoes the split and keeps input and weight under one scale") {
  matrix const x = random_matrix(8, 16, 3);
  auto const split = config(true);
  auto twice = split;
  twice.algorithm = std::vector{split.algorithm.steps().front(), algorithm_step{"gptq"}};  // of what the split left
  for (auto const& c : {split, twice}) {
    biased host;
    auto const loop = [&] { host.forward(x); };
    model<cpu_backend> m{host, splitting(true)};
    quantize(m, c, loop);
    bool ran = false;
    calibrate(m, "max", [&] {
      ran = true;
      matrix const plain = (x * host.weight.transpose()).rowwise() + host.bias;
      CHECK((host.forward(x) - plain).norm() < 1e-5f * plain.norm());  // (x s) (w / s): the scales still cancel
    });
    CHECK(ran);
  }
}

TEST_CASE("svdquant: a second split, and scales over a weight that was rewritten under others, are refused") {
  biased host;
  matrix const x = random_matrix(8, 16, 3);
  model<cpu_backend> m{host, splitting(true)};
  auto twice = config(false);
  algorithm_step const split{"test.split", {{"rank", 3.0}}};
  twice.algorithm = std::vector{split, split};
  auto const loop = [&] { host.forward(x); };
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, twice, loop); }), "layer", "split"));
  twice.algorithm = std::vector{split, algorithm_step{"awq_lite"}};
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, twice, loop); }), "awq_lite"));
  CHECK(host.slots.shared_site()->recipes.empty());
}

TEST_CASE("svdquant: no gradient comes back through a branch beside the op; where it is in the weight, it does") {
  matrix const x = random_matrix(8, 16, 3);
  for (bool const inputs : {true, false}) {
    CAPTURE(inputs);
    biased host;
    model<cpu_backend> m{host, splitting(false)};
    quantize(m, config(inputs), [&] { host.forward(x); });
    matrix grad = x;
    auto const backward = [&] { input_backward(host.slots, x, grad); };
    if (inputs) CHECK(says(error_text(error_id::state_missing, backward), "layer", "branch", "gradient"));
    else CHECK_NOTHROW(backward());
    CHECK(same_bits(grad, x));
    CHECK(says(error_text(error_id::state_folded, [&] { weight_backward(host.slots, host.weight, host.weight); }),
               "layer", "rewritten"));
  }
}

TEST_CASE("svdquant: NaN of inputs and a weight's bias are of the last pass alone") {
  biased host;
  matrix x = random_matrix(8, 16, 3);
  x(2, 2) = NAN;
  model<cpu_backend> m{host, splitting(true)};
  auto twice = config(true);
  twice.algorithm = std::vector{algorithm_step{"max"}, algorithm_step{"test.split", {{"rank", 3.0}}}};
  auto const notes = quantize(m, twice, [&] { host.forward(x); }).notes;
  CHECK(mentions(notes, "layer.input_quantizer", ": 1 NaN"));
  quantizer_attribute_config shifted{.num_bits = 8, .axis = std::vector{0}};
  shifted.bias = bias_config{.axes = {-1}, .type = quantizer_type::static_type, .method = bias_method::max_min};
  twice.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{shifted}});
  quantize(m, twice, [&] { host.forward(x); });
  matrix const rest = map(host.recipe().weight->view());
  auto const bias = host.recipe().find(quantizer_role::weight)->members().front().bias()->values();
  for (Eigen::Index r = 0; r < 12; ++r)
    CHECK(bias[static_cast<std::size_t>(r)] == (rest.row(r).maxCoeff() + rest.row(r).minCoeff()) * 0.5f);
}
