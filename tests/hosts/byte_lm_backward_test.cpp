// Each layer's hand-written backward against central differences, element by element, on small odd shapes.
//
// The derivative along one value is taken from five points, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, with
// f = Σ c · y summed in double for a fixed random c. With h = 1/64 its own error is some h⁴ = 6e-8 by truncation and
// some 6e-8 / h = 4e-6 by float32's rounding of y. The worst measured was 5e-5 of the largest element of a gradient
// (attention), and 8e-4 in the whole model, where the gradients of queries and keys are small beside the loss that is
// rounded. Tolerances are four times that.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "byte_lm/model.hpp"

namespace byte_lm {
namespace {


constexpr double tolerance = 2e-4, model_tolerance = 3e-3;

class generator {
 public:
  explicit generator(unsigned seed) : engine_{seed} {}
  matrix values(index rows, index cols, float width = 1.0f) {
    matrix m(rows, cols);
    for (index i = 0; i < m.size(); ++i) m.data()[i] = width * uniform_(engine_);
    return m;
  }
  void fill(parameter& p) {
    p.value = values(p.value.rows(), p.value.cols());
    p.clear_gradient();
  }

 private:
  std::mt19937 engine_;
  std::uniform_real_distribution<float> uniform_{-1.0f, 1.0f};
};

/// Σ c · y, whose gradient by y is c.
double weighted_sum(matrix const& c, matrix const& y) {
  return (c.cast<double>().array() * y.cast<double>().array()).sum();
}

/// The largest difference between `gradient` and the slopes of f by each element of `values`, in units of the largest.
template <class F>
double worst_difference(matrix& values, matrix const& gradient, F const& f) {
  REQUIRE(values.rows() == gradient.rows());
  REQUIRE(values.cols() == gradient.cols());
  REQUIRE(gradient.norm() > 0);
  double worst = 0;
  for (index i = 0; i < values.size(); ++i) {
    float const kept = values.data()[i];
    auto const at = [&](float offset) {
      values.data()[i] = kept + offset;
      double const result = f();
      values.data()[i] = kept;
      return result;
    };
    constexpr float h = 1.0f / 64;
    double const slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12.0 * h);
    worst = std::max(worst, std::abs(slope - static_cast<double>(gradient.data()[i])));
  }
  return worst / static_cast<double>(gradient.cwiseAbs().maxCoeff());
}

config small_config(bool tied) {
  config c;
  c.vocab_size = 11;
  c.hidden_size = 9;  // not heads * head_dim, and no multiple of a SIMD register
  c.intermediate_size = 7;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 6;
  c.num_key_value_heads = 2;  // three query heads share one
  c.head_dim = 6;
  c.max_position_embeddings = 8;
  c.rms_norm_eps = 1e-5f;
  c.rope_theta = 100.0f;
  c.tie_word_embeddings = tied;
  return c;
}

TEST_CASE("backward of linear") {
  generator random{1};
  auto layer = make_linear(5, 7, {});
  random.fill(*layer.weight);
  matrix x = random.values(3, 7);
  matrix const c = random.values(3, 5);
  matrix const grad_x = layer.backward(x, c);
  auto const f = [&] { return weighted_sum(c, layer.forward(x)); };
  CHECK(worst_difference(x, grad_x, f) < tolerance);
  CHECK(worst_difference(layer.weight->value, layer.weight->gradient, f) < tolerance);
}

TEST_CASE("backward of linear adds to the gradient of a layer that is used twice") {
  generator random{2};
  auto layer = make_linear(4, 4, {});
  random.fill(*layer.weight);
  matrix x = random.values(3, 4);
  matrix const c = random.values(3, 4);
  matrix const between = layer.forward(x);
  matrix const grad_x = layer.backward(x, layer.backward(between, c));
  auto const f = [&] { return weighted_sum(c, layer.forward(layer.forward(x))); };
  CHECK(worst_difference(x, grad_x, f) < tolerance);
  CHECK(worst_difference(layer.weight->value, layer.weight->gradient, f) < tolerance);
}

TEST_CASE("backward of rms_norm") {
  generator random{3};
  auto layer = make_rms_norm(9, 0.5f, {});  // an eps large enough to matter
  random.fill(*layer.weight);
  matrix x = random.values(4, 9);
  matrix const c = random.values(4, 9);
  matrix const grad_x = layer.backward(x, c);
  auto const f = [&] { return weighted_sum(c, layer.forward(x)); };
  CHECK(worst_difference(x, grad_x, f) < tolerance);
  CHECK(worst_difference(layer.weight->value, layer.weight->gradient, f) < tolerance);
}

TEST_CASE("rms_norm divides by the root of the mean square plus eps") {
  auto layer = make_rms_norm(2, 0.5f, {});
  layer.weight->value << 2.0f, -1.0f;
  matrix x(2, 2);
  x << 3.0f, 4.0f, 0.0f, 0.0f;
  matrix const y = layer.forward(x);
  CHECK(std::abs(y(0, 0) - 6.0f / std::sqrt(13.0f)) < 1e-6f);
  CHECK(std::abs(y(0, 1) + 4.0f / std::sqrt(13.0f)) < 1e-6f);
  CHECK(y.row(1).isZero(0));
}

TEST_CASE("backward of embedding") {
  generator random{4};
  embedding const layer{std::make_shared<parameter>(6, 3)};
  random.fill(*layer.weight);
  byte_windows const windows{2, 4, {1, 5, 1, 0, 3, 3, 1, 2}};  // 4 is never read, 1 three times, 0 and 2 only predicted
  matrix const c = random.values(6, 3);
  layer.backward(windows.inputs(), c);
  auto const f = [&] { return weighted_sum(c, layer.forward(windows.inputs())); };
  CHECK(worst_difference(layer.weight->value, layer.weight->gradient, f) < tolerance);
  CHECK(layer.weight->gradient.row(4).isZero(0));
  CHECK(layer.weight->gradient.row(0).isZero(0));
}

TEST_CASE("backward of attention") {
  generator random{5};
  auto const shapes = small_config(false);
  attention layer{shapes, {}};
  rotary_embedding rotary{shapes.head_dim, shapes.rope_theta};
  rotary.prepare(5);
  for (auto* l : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj}) random.fill(*l->weight);
  matrix x = random.values(3 * 5, shapes.hidden_size);
  matrix const c = random.values(3 * 5, shapes.hidden_size);
  auto const f = [&] { return weighted_sum(c, layer.forward(x, {3, 5}, rotary)); };
  f();
  matrix const grad_x = layer.backward(x, c, rotary);
  CHECK(worst_difference(x, grad_x, f) < tolerance);
  CHECK(worst_difference(layer.q_proj.weight->value, layer.q_proj.weight->gradient, f) < tolerance);
  CHECK(worst_difference(layer.k_proj.weight->value, layer.k_proj.weight->gradient, f) < tolerance);
  CHECK(worst_difference(layer.v_proj.weight->value, layer.v_proj.weight->gradient, f) < tolerance);
  CHECK(worst_difference(layer.o_proj.weight->value, layer.o_proj.weight->gradient, f) < tolerance);
}

TEST_CASE("attention sees no later token and no other window") {
  generator random{6};
  auto const shapes = small_config(false);
  attention layer{shapes, {}};
  rotary_embedding rotary{shapes.head_dim, shapes.rope_theta};
  rotary.prepare(4);
  for (auto* l : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj}) random.fill(*l->weight);
  matrix x = random.values(2 * 4, shapes.hidden_size);
  matrix const before = layer.forward(x, {2, 4}, rotary);
  x.row(2) *= -1.0f;  // token 2 of window 0
  matrix const after = layer.forward(x, {2, 4}, rotary);
  for (index r : {0, 1, 4, 5, 6, 7}) CHECK(before.row(r) == after.row(r));
  for (index r : {2, 3}) CHECK((before.row(r) - after.row(r)).norm() > 1e-3f);
}

TEST_CASE("backward of gated_mlp") {
  generator random{7};
  auto const shapes = small_config(false);
  gated_mlp layer{shapes, {}};
  for (auto* l : {&layer.gate_proj, &layer.up_proj, &layer.down_proj}) random.fill(*l->weight);
  matrix x = random.values(5, shapes.hidden_size);
  matrix const c = random.values(5, shapes.hidden_size);
  auto const f = [&] { return weighted_sum(c, layer.forward(x)); };
  f();
  matrix const grad_x = layer.backward(x, c);
  CHECK(worst_difference(x, grad_x, f) < tolerance);
  CHECK(worst_difference(layer.gate_proj.weight->value, layer.gate_proj.weight->gradient, f) < tolerance);
  CHECK(worst_difference(layer.up_proj.weight->value, layer.up_proj.weight->gradient, f) < tolerance);
  CHECK(worst_difference(layer.down_proj.weight->value, layer.down_proj.weight->gradient, f) < tolerance);
}

TEST_CASE("backward of cross entropy") {
  generator random{8};
  byte_windows const windows{2, 4, {9, 5, 1, 0, 9, 3, 10, 2}};
  matrix logits = random.values(6, 11, 3.0f);
  matrix const gradient = cross_entropy_gradient({}, logits, windows.targets());
  auto const f = [&] { return cross_entropy({}, logits, windows.targets()); };
  CHECK(worst_difference(logits, gradient, f) < tolerance);
  CHECK(gradient.rowwise().sum().cwiseAbs().maxCoeff() < 1e-6f);
}

TEST_CASE("cross entropy of equal logits is the logarithm of the vocabulary, however large they are") {
  byte_windows const windows{1, 4, {0, 1, 2, 3}};
  matrix const logits = matrix::Constant(3, 256, 1e4f);
  CHECK(std::abs(cross_entropy({}, logits, windows.targets()) - std::log(256.0)) < 1e-6);
}

/// Every parameter of the whole model: two layers, grouped queries, windows of four tokens.
void check_model(bool tied) {
  generator random{tied ? 9u : 10u};
  language_model model{small_config(tied), {}};
  model.for_each_parameter([&](std::string const&, parameter& p) { random.fill(p); });
  byte_windows const windows{2, 5, {1, 5, 1, 0, 10, 3, 3, 7, 2, 8}};
  matrix const logits = model.logits(windows.inputs());
  model.backward(cross_entropy_gradient({}, logits, windows.targets()));
  auto const f = [&] { return cross_entropy({}, model.logits(windows.inputs()), windows.targets()); };
  int parameters = 0;
  model.for_each_parameter([&](std::string const& name, parameter& p) {
    CAPTURE(name);
    double const difference = worst_difference(p.value, p.gradient, f);
    CHECK(difference < model_tolerance);
    ++parameters;
  });
  CHECK(parameters == 1 + 2 * 9 + 1 + (tied ? 0 : 1));
}

TEST_CASE("backward of the whole model, head of its own") { check_model(false); }
TEST_CASE("backward of the whole model, tied head") { check_model(true); }

}  // namespace
}  // namespace byte_lm
