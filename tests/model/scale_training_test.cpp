// Learned scales: their gradients against the formula written out, what a training leaves, and what it refuses.
#include "mixbit/model/scale_training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/postprocess.hpp"
#include "mixbit/model/quantize.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

constexpr auto weight = quantizer_role::weight;

quantize_config weights(quantizer_attribute_config const& a) {
  auto config = nothing_on();
  turn_on(config, "*weight_quantizer", a);
  return config;
}
quantizer_attribute_config bits(int n, bool narrow = false) {
  quantizer_attribute_config a{.num_bits = n, .axis = 0};
  a.narrow_range = narrow;
  return a;
}
quantizer_attribute_config in_blocks(int size) {
  quantizer_attribute_config a{.num_bits = 4};
  a.block_sizes = block_config{{{-1, size}}};
  return a;
}
quantizer_attribute_config static_nvfp4() {
  quantizer_attribute_config a{.num_bits = bit_spec{2, 1}};
  a.block_sizes = block_config{{{-1, 16}}, quantizer_type::static_type, bit_spec{4, 3}};
  return a;
}

/// A weight's cast as the layer's op gets it.
plain_tensor cast(quantizer_slots<cpu_backend>& slots, plain_tensor const& w) {
  plain_tensor seen{w.shape};
  lend(slots, waves({1, w.shape.shape[1]}, 0.3f), w, [&](auto const&, plain_tensor const& wq) { seen = wq; });
  return seen;
}

/// ∂L/∂amax as calculus has it, for one group a row, given the two amaxes and an integer format's range.
struct row_gradient {
  double before = 0, after = 0;
};
row_gradient by_hand(float const* w, float const* grad, int n, double before, double after, double low, double high) {
  row_gradient g;
  for (int i = 0; i < n; ++i) {
    double const v = w[i] * high / before, q = std::nearbyint(std::clamp(v, low, high));
    g.after += grad[i] * q / high;  // y = q · after/high
    if (v > low && v < high) g.before -= grad[i] * (v / before) * (after / high);  // q follows v = w · high/before
  }
  return g;
}

}  // namespace

TEST_CASE("scale training: the gradient is the straight-through one, of one scale and of two, within and outside") {
  for (bool const narrow : {false, true})
    for (auto const what : {learned_scales::one, learned_scales::both, learned_scales::after_only}) {
      CAPTURE(narrow);
      CAPTURE(static_cast<int>(what));
      chain net;
      model<cpu_backend> m{net};
      quantize(m, weights(bits(3, narrow)));
      postprocess_amax(m, "*weight_quantizer", scaled_amax(0.5f));
      scale_training<cpu_backend> scales{m, what, "mlp.up.*"};
      REQUIRE(scales.parameters().size() == 1);
      auto& p = *scales.parameters().front();
      CHECK(p.name == "mlp.up.weight_quantizer");
      if (what == learned_scales::both) {
        for (float& a : p.after) a *= 1.25f;
        scales.update();
      }
      plain_tensor grad = waves({6, 8}, 1.7f, 2.0f);
      plain_tensor const given = grad;
      for (int call = 0; call < 2; ++call) weight_backward(net.s1, net.w1, grad);
      CHECK(grad.values == given.values);  // straight through for the weight
      int inside = 0, outside = 0;
      for (int row = 0; row < 6; ++row) {
        bool const dual = what != learned_scales::one;
        double const before = dual ? p.before[row] : p.after[row];
        float const* const w = net.w1.values.data() + 8 * row;
        auto const expected = by_hand(w, given.values.data() + 8 * row, 8, before, p.after[row], narrow ? -3 : -4, 3);
        double const after = 2 * (dual ? expected.after : expected.after + expected.before);
        CHECK(p.after_gradient[row] == doctest::Approx(after).epsilon(1e-5));
        if (what == learned_scales::both)
          CHECK(p.before_gradient[row] == doctest::Approx(2 * expected.before).epsilon(1e-5));
        for (int i = 0; i < 8; ++i) (std::abs(w[i]) < before ? inside : outside)++;
      }
      CHECK(inside > 10);
      CHECK(outside > 10);
      CHECK(p.before_gradient.size() == (what == learned_scales::both ? 6u : 0u));
    }
}

TEST_CASE("scale training: two scales cast as codes of the first that stand for the second, and finish keeps that") {
  chain net;
  net.w1 = waves({6, 32}, 0.7f);
  for (auto const& format : {bits(3), in_blocks(16), static_nvfp4()}) {
    model<cpu_backend> m{net};
    quantize(m, weights(format));
    auto const plain = cast(net.s1, net.w1);
    scale_training<cpu_backend> scales{m, learned_scales::both};
    CHECK(cast(net.s1, net.w1).values == plain.values);  // as long as both are the same
    auto& p = *scales.parameters().front();
    auto const amax_before = p.before;
    for (float& a : p.after) a *= 0.5f;  // exact in every type of scale
    scales.update();
    auto const halved = cast(net.s1, net.w1);
    for (std::size_t i = 0; i < plain.values.size(); ++i) CHECK(halved.values[i] == 0.5f * plain.values[i]);
    for (float& a : p.before) a *= 0.75f;
    scales.update();
    auto const other = cast(net.s1, net.w1);
    CHECK(other.values != halved.values);
    scales.finish();
    CHECK(amax(net.s1, weight) == p.after);
    CHECK(cast(net.s1, net.w1).values == other.values);  // the same codes, of what stands for the weight now
    CHECK(net.s1.shared_site()->rewritten(0) != nullptr);
    plain_tensor grad = waves({6, 32}, 0.3f);
    CHECK(says(error_text(error_id::state_folded, [&] { weight_backward(net.s1, net.w1, grad); }), "mlp.up"));
  }
}

TEST_CASE("scale training: a step moves step sizes as LSQ does, and stops above zero") {
  chain net;
  model<cpu_backend> m{net};
  quantize(m, weights(bits(4)));
  net.s1.cache_weight(true);
  auto const stale = cast(net.s1, net.w1);
  scale_training<cpu_backend> scales{m, learned_scales::one, "mlp.up.weight*"};
  auto& p = *scales.parameters().front();
  auto const start = p.after;
  plain_tensor grad = waves({6, 8}, 1.1f);
  weight_backward(net.s1, net.w1, grad);
  auto const gradient = p.after_gradient;
  scales.step(0.05);
  double const bound = 7;  // of int4; a row of 8 weights shares a step size
  for (std::size_t row = 0; row < 6; ++row) {
    double const size = start[row] / bound, by_size = gradient[row] * bound;
    CHECK(p.after[row] / bound == doctest::Approx(size - 0.05 * by_size / std::sqrt(8 * bound)).epsilon(1e-5));
    CHECK(p.after_gradient[row] == 0);
  }
  CHECK(amax(net.s1, weight) == p.after);
  CHECK(cast(net.s1, net.w1).values != stale.values);  // the cached weight was made anew
  p.after[2] = -3.0f;
  scales.update();
  CHECK(p.after[2] == doctest::Approx(7e-8f));
  auto const held = amax(net.s1, weight);
  p.after[4] = std::nanf("");
  CHECK(says(error_text(error_id::format_amax, [&] { scales.update(); }), "mlp.up.weight_quantizer", "amax[4]"));
  CHECK(amax(net.s1, weight) == held);
  p.after = held;
  p.after_gradient[4] = std::nan("");
  CHECK(says(error_text(error_id::format_amax, [&] { scales.step(0.05); }), "mlp.up.weight_quantizer", "amax[4]"));
  CHECK(p.after == held);
  scales.step(0.05);  // goes on, with gradients from 0
  CHECK(amax(net.s1, weight) == held);
}

TEST_CASE("scale training: what is not finished is taken back, what is stays") {
  chain net;
  net.w1 = waves({6, 32}, 0.7f);
  for (auto const& format : {bits(3), static_nvfp4()})
    for (auto const what : {learned_scales::one, learned_scales::both}) {
      model<cpu_backend> m{net};
      quantize(m, weights(format));
      auto const start = amax(net.s1, weight);
      auto const plain = cast(net.s1, net.w1);
      {
        scale_training<cpu_backend> scales{m, what, "mlp.up.*"};
        for (float& a : scales.parameters().front()->after) a *= 0.7f;
        scales.update();
        CHECK(cast(net.s1, net.w1).values != plain.values);
      }
      CHECK(amax(net.s1, weight) == start);
      CHECK(cast(net.s1, net.w1).values == plain.values);
      CHECK_FALSE(quantizer(net.s1, weight).holds_tensor_amax());
      plain_tensor grad = waves({6, 32}, 0.3f);
      weight_backward(net.s1, net.w1, grad);  // no longer shown to anyone
    }
  model<cpu_backend> m{net};
  quantize(m, weights(bits(3)));
  scale_training<cpu_backend> scales{m};
  CHECK(scales.parameters().size() == 2);
  scales.parameters()[0]->after[1] = 0.5f;
  scales.finish();
  CHECK(amax(net.s1, weight)[1] == 0.5f);
  CHECK(quantizer(net.s1, weight).learns() == nullptr);
  CHECK(net.s1.shared_site()->rewritten(0) == nullptr);
}

TEST_CASE("scale training: amaxes that are being learned are nobody else's to change") {
  chain net;
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  auto const start = amax(net.s1, weight), start_input = amax(net.s1, quantizer_role::input);
  {
    scale_training<cpu_backend> scales{m, learned_scales::one, "mlp.down.weight*"};
    CHECK(says(error_text(error_id::state_nested, [&] { postprocess_amax(m, "*", scaled_amax(0.5f)); }),
               "mlp.down.weight_quantizer", "scale_training", "finish"));
    CHECK(amax(net.s1, weight) == start);
    CHECK(amax(net.s1, quantizer_role::input) == start_input);
    CHECK(postprocess_amax(m, "*up.weight_quantizer", scaled_amax(0.5f)) == 1);  // which it is not at
    scales.finish();
  }
  CHECK(postprocess_amax(m, "*", scaled_amax(0.5f)) == 4);
}

TEST_CASE("scale training: a guard cannot be put around its weights; one around others or from before can") {
  chain net;
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  auto const start = amax(net.s1, weight);
  auto const learn = [](scale_training<cpu_backend>& scales) {
    for (float& a : scales.parameters().front()->after) a *= 0.5f;
    scales.update();
  };
  {
    std::optional<scale_training<cpu_backend>> scales;
    scales.emplace(m, learned_scales::both, "mlp.up.weight*");
    auto const guard = [&] { quantizer_guard<cpu_backend>{m, "*"}; };
    CHECK(says(error_text(error_id::state_nested, guard), "mlp.up.weight_quantizer", "quantizer_guard"));
    CHECK(quantizer(net.s2, weight).learns() == nullptr);
    quantizer_guard<cpu_backend> const others{m, "*input_quantizer"};  // which outlives the training
    disable_quantizer(m, "*input_quantizer");
    learn(*scales);
    scales.reset();
    CHECK(amax(net.s1, weight) == start);
  }
  CHECK(net.s1.shared_site()->quantizers().find(quantizer_role::input) != nullptr);
  std::optional<quantizer_guard<cpu_backend>> before;
  before.emplace(m, "*");
  scale_training<cpu_backend> scales{m, learned_scales::one, "mlp.up.weight*"};
  learn(scales);
  before.reset();  // the quantizers from before the training are back
  CHECK(amax(net.s1, weight) == start);
  CHECK(quantizer(net.s1, weight).learns() == nullptr);
  CHECK(says(error_text(error_id::state_missing, [&] { scales.finish(); }), "mlp.up.weight_quantizer", "replaced"));
}

TEST_CASE("scale training: what cannot be learned is refused by name, and nothing has changed") {
  chain net;
  model<cpu_backend> m{net};
  auto const refused = [&](error_id id, pattern const& which = "*weight_quantizer",
                           learned_scales what = learned_scales::one) {
    auto const text = error_text(id, [&] { scale_training<cpu_backend>{m, what, which}; });
    for (auto* const slots : {&net.s1, &net.s2})
      for (auto const& q : slots->shared_site()->quantizers().quantizers)
        for (auto const& member : q.members()) CHECK(member.learns() == nullptr);
    return text;
  };
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  CHECK(says(refused(error_id::config_conflict, "*"), "mlp.up.input_quantizer", "only weights"));
  CHECK(says(refused(error_id::config_no_match, "*nothing*"), "*nothing*"));
  net.s2.shared_site()->quantizers().find(weight)->set_pre_quant_scale(m.device(), {1, 1, 2, 1, 1, 1});
  CHECK(says(refused(error_id::config_conflict, "*weight_quantizer", learned_scales::both), "mlp.down", "pre_quant"));
  {
    scale_training<cpu_backend> first{m, learned_scales::one, "mlp.down.*weight_quantizer"};
    CHECK(says(error_text(error_id::state_nested, [&] { scale_training<cpu_backend>{m}; }),
               "mlp.down.weight_quantizer"));
    quantize(m, weights(bits(4)));
    CHECK(says(error_text(error_id::state_missing, [&] { first.update(); }), "mlp.down.weight_quantizer", "replaced"));
  }
  {
    scale_training<cpu_backend> two{m, learned_scales::both};
    int& active = net.s1.shared_site()->active;
    active = 1;  // as where a search applies another recipe
    CHECK(says(error_text(error_id::state_missing, [&] { two.finish(); }), "mlp.up.weight_quantizer", "active"));
    active = 0;
    set_quantizer_attributes(m, "mlp.up.weight_quantizer", {.enable = false, .num_bits = 4});
    CHECK(says(error_text(error_id::state_missing, [&] { two.finish(); }), "mlp.up.weight_quantizer", "replaced"));
  }
  quantizer_attribute_config dynamic = bits(8);
  dynamic.type = quantizer_type::dynamic_type;
  quantize(m, weights(dynamic));
  CHECK(says(refused(error_id::config_conflict), "mlp.up.weight_quantizer", "each call's data"));
  quantize(m, weights(bits(12)));
  CHECK(says(refused(error_id::format_value, "*weight_quantizer", learned_scales::both), "mlp.up.weight_quantizer"));
  disable_quantizer(m, "*");
  CHECK(says(refused(error_id::config_no_match), "that is on"));
  quantize(m, weights(bits(8)));
  {
    scale_training<cpu_backend> late{m};
    fold_weight(m);
    CHECK(says(error_text(error_id::state_folded, [&] { late.finish(); }), "mlp.up.weight_quantizer"));
  }
  CHECK(says(refused(error_id::config_no_match), "that is on"));
}
