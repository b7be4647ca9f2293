// Host 4: a framework that records a tape. Its tensors own their memory by reference count, so an op gets tensors of
// its own kind, and the tape learns of a quantized copy through `link`.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "mixbit/autoquant/search.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/model/scale_training.hpp"
#include "mixbit/reference/scalar.hpp"

namespace tape {

struct storage {
  std::int64_t rows, columns;
  std::vector<float> value, grad;
};

/// A matrix by reference count, as in a dynamic framework.
struct tensor {
  std::shared_ptr<storage> data;
  tensor(std::int64_t rows, std::int64_t columns)
      : data{std::make_shared<storage>(storage{rows, columns, std::vector<float>(std::size_t(rows * columns)),
                                               std::vector<float>(std::size_t(rows * columns))})} {}
  float& operator()(std::int64_t r, std::int64_t c) const { return data->value[std::size_t(r * data->columns + c)]; }
  float& grad(std::int64_t r, std::int64_t c) const { return data->grad[std::size_t(r * data->columns + c)]; }
  std::int64_t rows() const { return data->rows; }
  std::int64_t columns() const { return data->columns; }
};

std::vector<std::function<void()>> recorded;
bool recording = true;

struct no_record {
  bool before = std::exchange(recording, false);
  no_record() = default;
  no_record(no_record const&) = delete;
  no_record& operator=(no_record const&) = delete;
  ~no_record() { recording = before; }
};

void record(std::function<void()> backward) {
  if (recording) recorded.push_back(std::move(backward));
}

/// y = x wᵀ
tensor matmul(tensor const& x, tensor const& w) {
  tensor const y{x.rows(), w.rows()};
  for (std::int64_t r = 0; r < x.rows(); ++r)
    for (std::int64_t o = 0; o < w.rows(); ++o)
      for (std::int64_t i = 0; i < x.columns(); ++i) y(r, o) += x(r, i) * w(o, i);
  record([x, w, y] {
    for (std::int64_t r = 0; r < x.rows(); ++r)
      for (std::int64_t o = 0; o < w.rows(); ++o)
        for (std::int64_t i = 0; i < x.columns(); ++i) {
          x.grad(r, i) += y.grad(r, o) * w(o, i);
          w.grad(o, i) += y.grad(r, o) * x(r, i);
        }
  });
  return y;
}

tensor relu(tensor const& x) {
  tensor const y{x.rows(), x.columns()};
  for (std::size_t i = 0; i < x.data->value.size(); ++i) y.data->value[i] = std::max(x.data->value[i], 0.0f);
  record([x, y] {
    for (std::size_t i = 0; i < x.data->value.size(); ++i)
      if (x.data->value[i] > 0) x.data->grad[i] += y.data->grad[i];
  });
  return y;
}

/// Mean squared error; runs the tape backwards.
float loss_and_backward(tensor const& y, tensor const& target) {
  float loss = 0;
  auto const n = static_cast<float>(y.data->value.size());
  for (std::size_t i = 0; i < y.data->value.size(); ++i) {
    float const d = y.data->value[i] - target.data->value[i];
    loss += d * d / n;
    y.data->grad[i] = 2 * d / n;
  }
  for (auto step = recorded.rbegin(); step != recorded.rend(); ++step) (*step)();
  recorded.clear();
  return loss;
}

}  // namespace tape

template <>
struct mixbit::tensor_traits<tape::tensor> {
  using tensor = tape::tensor;
  static const_tensor_ref view(tensor const& t) {
    return dense_view(const_cast<float const*>(t.data->value.data()), {t.rows(), t.columns()});
  }
  static tensor_ref view(tensor& t) { return dense_view(t.data->value.data(), {t.rows(), t.columns()}); }
  static tensor like(tensor const& t) { return {t.rows(), t.columns()}; }
  using no_grad = tape::no_record;
  template <class F>
  static void link(tensor const& x, tensor& xq, F backward) {
    tape::record([x, xq, backward = std::move(backward)] {
      std::vector<float> grad = xq.data->grad;
      backward(dense_view(grad.data(), {x.rows(), x.columns()}));
      for (std::size_t i = 0; i < grad.size(); ++i) x.data->grad[i] += grad[i];
    });
  }
};

namespace {

using namespace mixbit;
using cpu = reference::scalar;
using tape::tensor;

tensor waves(std::int64_t rows, std::int64_t columns, float step, float size = 1.0f) {
  tensor t{rows, columns};
  for (std::size_t i = 0; i < t.data->value.size(); ++i) t.data->value[i] = size * std::sin(step * float(i + 1));
  return t;
}

struct network {
  tensor w1 = waves(16, 8, 0.7f, 0.5f), w2 = waves(4, 16, 0.9f, 0.5f);
  quantizer_slots<cpu> s1, s2;

  tensor forward(tensor const& x) {
    auto const hidden = tape::relu(apply(s1, x, w1, tape::matmul));
    return apply(s2, hidden, w2, tape::matmul);
  }
  void descend(float rate) {
    for (auto const& w : {w1, w2})
      for (std::size_t i = 0; i < w.data->value.size(); ++i) {
        w.data->value[i] -= rate * w.data->grad[i];
        w.data->grad[i] = 0;
      }
    s1.weight_changed();
    s2.weight_changed();
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("1", s1, w1));
    visit(linear("2", s2, w2));
  }
};

void quantize_int8(model<cpu>& m, network& net, tensor const& x, bool clipped) {
  auto config = preset("INT8_DEFAULT_CFG");
  for (auto& e : config.entries)
    if (e.cfg) e.cfg->front().pass_through_bwd = !clipped;
  quantize(m, config, [&] {
    tape::no_record const guard;
    net.forward(x);
  });
}

tensor quantized(quantizer_slots<cpu>& slots, quantizer_role role, tensor const& t) {
  tensor q{t.rows(), t.columns()};
  cpu device;
  arena scratch;
  slots.shared_site()->quantizers().find(role)->quantize(device, scratch, read_view(t), write_view(q));
  return q;
}

}  // namespace

TEST_CASE("tape: straight-through - the gradient of the copy becomes the operand's; trials record nothing") {
  network net;
  model<cpu> m{net};
  tensor const x = waves(5, 8, 0.3f), target{5, 16};
  quantize_int8(m, net, x, false);
  SUBCASE("") {}
  SUBCASE("with a cached weight, which a tape cannot use") {
    net.s1.cache_weight(true);
    tape::no_record const guard;
    apply(net.s1, x, net.w1, tape::matmul);
  }
  tensor const y = apply(net.s1, x, net.w1, tape::matmul);
  CHECK(tape::recorded.size() == 3);  // two links and the product; the layout probe's trials left nothing
  tape::loss_and_backward(y, target);

  tensor const xq = quantized(net.s1, quantizer_role::input, x), wq = quantized(net.s1, quantizer_role::weight, net.w1);
  tensor const by_hand = tape::matmul(xq, wq);
  tape::loss_and_backward(by_hand, target);
  CHECK(y.data->value == by_hand.data->value);
  CHECK(x.data->grad == xq.data->grad);
  CHECK(net.w1.data->grad == wq.data->grad);
}

TEST_CASE("tape: clipped - no gradient where the operand is beyond its amax") {
  network net;
  model<cpu> m{net};
  quantize_int8(m, net, waves(5, 8, 0.3f, 0.5f), true);  // calibrated on half the range
  tensor const x = waves(5, 8, 0.3f), target{5, 16};
  cpu device;
  float const amax = net.s1.shared_site()->quantizers().find(quantizer_role::input)->members()[0].amax(device)[0];
  tape::loss_and_backward(apply(net.s1, x, net.w1, tape::matmul), target);
  tensor const xq = quantized(net.s1, quantizer_role::input, x), wq = quantized(net.s1, quantizer_role::weight, net.w1);
  tape::loss_and_backward(tape::matmul(xq, wq), target);
  int masked = 0;
  for (std::size_t i = 0; i < x.data->value.size(); ++i) {
    bool const beyond = std::abs(x.data->value[i]) > amax;
    masked += beyond;
    CHECK(x.data->grad[i] == (beyond ? 0.0f : xq.data->grad[i]));
  }
  CHECK(masked > 5);
  CHECK(masked < 35);
}

TEST_CASE("tape: a forward over svdquant's branch is computed, and a backward to its input is refused") {
  network net;
  model<cpu> m{net};
  tensor const x = waves(5, 8, 0.3f), target{5, 16};
  quantize_int8(m, net, x, false);
  auto const plain = apply(net.s1, x, net.w1, tape::matmul).data->value;
  tape::recorded.clear();
  auto& recipe = net.s1.shared_site()->quantizers();  // what svdquant leaves: W = weight + up · down
  cpu device;
  geometry const down = dense_geometry(dtype::f32, {1, 8}), up = dense_geometry(dtype::f32, {16, 1});
  recipe.weight.emplace(device, read_view(net.w1));
  std::copy_n(net.w1.data->value.data(), 16 * 8, static_cast<float*>(recipe.weight->view().data));
  recipe.branch.emplace(low_rank_branch<cpu>{{device, down}, {device, up}, {device, read_view(net.w1)}});
  tensor const y = apply(net.s1, x, net.w1, tape::matmul);
  CHECK(y.data->value == plain);  // a branch of zeros
  CHECK_THROWS_WITH(tape::loss_and_backward(y, target), doctest::Contains("svdquant's branch"));
  tape::recorded.clear();
}

TEST_CASE("tape: training under fake quantization lowers the loss, with cached weights too") {
  for (bool const cached : {false, true}) {
    network net, teacher;
    teacher.w1 = waves(16, 8, 0.6f, 0.5f);
    tensor const x = waves(20, 8, 0.37f);
    tensor const target = [&] {
      tape::no_record const guard;
      return teacher.forward(x);
    }();
    model<cpu> m{net};
    quantize_int8(m, net, x, true);
    net.s1.cache_weight(cached);
    float first = 0, last = 0;
    for (int step = 0; step < 60; ++step) {
      last = tape::loss_and_backward(net.forward(x), target);
      if (step == 0) first = last;
      net.descend(0.05f);
    }
    CAPTURE(cached);
    CHECK(last < 0.5f * first);
    CHECK(std::isfinite(last));
  }
}

TEST_CASE("tape: scoring records nothing, for a layer or for a region, whose restoring call is no trial") {
  network net;
  tensor const x = waves(5, 8, 0.3f);
  model<cpu> m{net};
  search_options options;
  options.formats = {preset("INT8_DEFAULT_CFG")};
  options.target = 16.0;
  options.grouping = {{"all", [](std::string_view) { return std::string{"all"}; }}};
  search<cpu> s{m, options};
  score_region<cpu> const region{{net.s1.shared_site(), net.s2.shared_site()}};
  std::vector<bool> trials;
  auto const forward = [&](tensor const& in) {
    trials.push_back(net.s1.in_trial() && quantizer_slots<cpu>{}.in_trial());
    return net.forward(in);
  };
  auto const calibrate = [&](int) {
    tape::no_record const guard;
    net.forward(x);
  };
  auto const score_once = [&](int) {
    tensor const y = net.forward(x);
    auto const recorded = tape::recorded.size();
    CHECK(recorded > 0);
    score(net.s1, x, net.w1, tape::matmul, waves(5, 16, 0.2f));
    CHECK(tape::recorded.size() == recorded);
    score(region, x, forward, y);
    CHECK(tape::recorded.size() == recorded);
    tape::recorded.clear();
  };
  s.run({1, 1, calibrate, score_once, {}});
  CHECK(trials == std::vector<bool>{true, true, false});  // the active recipe, INT8, and the restoring call
}

TEST_CASE("tape: a learned scale is shown the gradient of the copy, as weight_backward shows it") {
  network net;
  model<cpu> m{net};
  tensor const x = waves(5, 8, 0.3f), target{5, 16};
  quantize_int8(m, net, x, false);
  tensor const xq = quantized(net.s1, quantizer_role::input, x), wq = quantized(net.s1, quantizer_role::weight, net.w1);
  tape::loss_and_backward(tape::matmul(xq, wq), target);

  scale_training<cpu> scales{m, learned_scales::one, "1.weight_quantizer"};
  auto const& seen = scales.parameters().front()->after_gradient;
  tape::loss_and_backward(apply(net.s1, x, net.w1, tape::matmul), target);
  auto const by_tape = seen;
  REQUIRE(std::ranges::any_of(by_tape, [](double g) { return g != 0; }));
  tensor grad{16, 8};
  grad.data->value = wq.data->grad;
  scales.update();  // gradients start from 0
  weight_backward(net.s1, net.w1, grad);
  CHECK(seen == by_tape);
}
