#include "mixbit/model/fold_scales.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/postprocess.hpp"
#include "mixbit/model/scale_training.hpp"
#include "mixbit/model/shared_state.hpp"
#include "support/error_text.hpp"
#include "support/norm_host.hpp"
#include "support/plain_linalg.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

using role = quantizer_role;

plain_tensor const batch = uneven(6, 16);

struct bench {
  norm_host host;
  model<cpu_backend> m;
  cpu_backend device;

  explicit bench(model_options<cpu_backend> options = {}) : m{host, std::move(options)} {}
  /// Quantized, with one scale for what the norm feeds.
  void quantize(char const* name, std::vector<algorithm_step> steps) {
    auto config = preset(name);
    config.algorithm = std::move(steps);
    mixbit::quantize(m, config, [this] { host.forward(batch); });
  }
  preceding_op norm() { return preceding_norm("norm", host.norm, host.shift, {"q_proj", "up_proj"}); }
  preceding_op up() { return preceding_linear("up_proj", host.up_bias, {"down_proj"}); }

  std::vector<std::vector<float>> weights() const {
    return {host.norm.values, host.shift.values,   host.wq.values,
            host.wup.values,  host.up_bias.values, host.wdown.values};
  }
  std::vector<float> scale(quantizer_slots<cpu_backend>& s, role r = role::input) {
    return quantizer_in(s, r).pre_quant_scale(device);
  }
  std::string refused(error_id id, std::vector<preceding_op> const& ops) {
    auto const before = weights();
    auto const y = host.forward(batch);
    auto const text = error_text(id, [&] { fold_pre_quant_scales(m, ops); });
    CHECK(weights() == before);
    CHECK(host.forward(batch) == y);
    return text;
  }
};

/// The largest difference, relative to the largest value.
float difference(std::vector<float> const& a, std::vector<float> const& b) {
  REQUIRE(a.size() == b.size());
  float most = 0, top = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
    top = std::max(top, std::abs(b[i]));
  }
  return most / top;
}

std::vector<algorithm_step> const smooth{{"smoothquant", {{"alpha", 1.0}}}};  // what reads one input has one scale

}  // namespace

TEST_CASE("fold_pre_quant_scales: the norm and the rows before take the scale, consumers its inverse; y is the same") {
  for (bool const smoothed : {false, true}) {
    CAPTURE(smoothed);
    bench b;
    auto const plain = b.host.forward(batch);
    b.quantize(smoothed ? "INT8_SMOOTHQUANT_CFG" : "INT4_AWQ_CFG",
               smoothed ? smooth : std::vector<algorithm_step>{{"awq_lite"}});
    share_state(b.m, {{"q_proj", "up_proj"}});
    auto const y = b.host.forward(batch);
    auto const s = b.scale(b.host.q), inverse = b.scale(b.host.q, role::weight), t = b.scale(b.host.down);
    auto const before = b.weights();
    auto const report = fold_pre_quant_scales(b.m, {b.norm(), b.up()});
    CHECK(report.folded == 2);
    CHECK(report.notes.empty());
    for (std::size_t i = 0; i < 16; ++i) {
      CHECK(b.host.norm.values[i] == before[0][i] * s[i]);
      CHECK(b.host.shift.values[i] == before[1][i] * s[i]);
    }
    for (std::size_t i = 0; i < before[2].size(); ++i) CHECK(b.host.wq.values[i] == before[2][i] * inverse[i % 16]);
    for (std::size_t i = 0; i < 10; ++i) CHECK(b.host.up_bias.values[i] == before[4][i] * t[i]);
    for (auto* const slots : {&b.host.q, &b.host.up, &b.host.down})
      for (auto const r : {role::input, role::weight}) CHECK(b.scale(*slots, r).empty());
    CHECK(difference(b.host.forward(batch), y) < 2e-6f);
    disable_quantizer(b.m, "*");
    CHECK(difference(b.host.forward(batch), plain) < 2e-6f);  // and so without quantizers
  }
}

TEST_CASE("fold_pre_quant_scales: what is not said stays a pre_quant_scale; a second call finds nothing") {
  bench b;
  b.quantize("INT4_AWQ_CFG", {{"awq_lite"}});
  auto const y = b.host.forward(batch);
  CHECK(fold_pre_quant_scales(b.m, {b.up()}).folded == 1);
  CHECK(b.scale(b.host.q).size() == 16);
  CHECK(b.scale(b.host.up, role::weight).size() == 16);
  CHECK(difference(b.host.forward(batch), y) < 2e-6f);
  auto const before = b.weights();
  CHECK(fold_pre_quant_scales(b.m, {b.up()}).folded == 0);
  CHECK(b.weights() == before);
}

TEST_CASE("fold_pre_quant_scales: rows without scales of their own are calibrated by max, which a note says") {
  bench b;
  b.quantize("NVFP4_AWQ_LITE_CFG", {{"awq_lite"}});
  auto const report = fold_pre_quant_scales(b.m, {b.up()});
  REQUIRE(report.notes.size() == 1);
  CHECK(report.notes[0].find("up_proj: ") == 0);
  auto const inverse = b.scale(b.host.up, role::weight);
  float top = 0;
  for (std::size_t i = 0; i < b.host.wup.values.size(); ++i)
    top = std::max(top, std::abs(b.host.wup.values[i] * inverse[i % 16]));
  CHECK(quantizer_in(b.host.up, role::weight).members().front().amax(b.device) == std::vector{top});
}

TEST_CASE("fold_pre_quant_scales: a layer that takes a scale and gives one away is calibrated for both, in any order") {
  std::vector<std::vector<float>> amaxes, outputs;
  for (bool const norm_first : {true, false}) {
    bench b;
    b.quantize("NVFP4_AWQ_LITE_CFG", {{"awq_lite"}});
    share_state(b.m, {{"q_proj", "up_proj"}});
    fold_pre_quant_scales(b.m, norm_first ? std::vector{b.norm(), b.up()} : std::vector{b.up(), b.norm()});
    float top = 0;
    for (float const w : b.host.wup.values) top = std::max(top, std::abs(w));
    CHECK(difference(quantizer_in(b.host.up, role::weight).members().front().amax(b.device), {top}) < 1e-6f);
    outputs.push_back(b.host.forward(batch));
  }
  CHECK(difference(outputs[0], outputs[1]) < 1e-6f);
}

TEST_CASE("fold_pre_quant_scales: what two operations make of one weight together must be finite") {
  bench b;
  b.quantize("INT4_AWQ_CFG", {{"awq_lite"}});
  auto const give = [&](quantizer_slots<cpu_backend>& s, std::size_t width, std::size_t at, float of_input) {
    std::vector<float> scale(width, 1.0f), inverse(width, 1.0f);
    scale[at] = of_input;
    inverse[at] = 1 / of_input;
    quantizer_in(s, role::input).set_pre_quant_scale(b.device, scale);
    quantizer_in(s, role::weight).set_pre_quant_scale(b.device, inverse);
  };
  give(b.host.q, 16, 3, 1e-30f);
  give(b.host.up, 16, 3, 1e-30f);
  give(b.host.down, b.scale(b.host.down).size(), 4, 1e30f);  // in row 4 and column 3 of up: 1e60
  auto const before = b.weights();
  auto const fold = [&] { fold_pre_quant_scales(b.m, {b.norm(), b.up()}); };
  CHECK(says(error_text(error_id::format_value, fold), "up_proj.weight", "1 value(s)"));
  CHECK(b.weights() == before);
}

TEST_CASE("fold_pre_quant_scales: a bias of two operations and a layer whose scales are learned are refused") {
  bench b;
  b.quantize("INT8_SMOOTHQUANT_CFG", smooth);
  auto down = b.up();
  down.bias = b.norm().bias;
  CHECK(says(b.refused(error_id::config_conflict, {b.norm(), down}), "bias is given for two"));
  scale_training<cpu_backend> const learning{b.m, learned_scales::one, "up_proj.weight_quantizer"};
  CHECK(says(b.refused(error_id::state_nested, {b.norm()}), "up_proj.weight_quantizer", "scale_training"));
}

TEST_CASE("fold_pre_quant_scales: weights that gptq and svdquant rewrote follow; calibrating again starts from there") {
  std::vector<std::vector<algorithm_step>> const cases{
      {{"svdquant", {{"lowrank", std::int64_t{2}}}}}, {{"awq_lite"}, {"gptq"}}, {{"gptq"}, {"awq_lite"}}};
  for (auto const& steps : cases) {
    CAPTURE(steps.front().method);
    model_options<cpu_backend> options;
    options.linalg = plain_linalg{};
    bench b{std::move(options)};
    b.quantize("INT4_AWQ_CFG", steps);
    auto const y = b.host.forward(batch);
    auto const plain = b.host.wdown.values;
    CHECK(fold_pre_quant_scales(b.m, {b.up()}).folded == 1);
    CHECK(b.host.wdown.values != plain);
    CHECK(difference(b.host.forward(batch), y) < 1e-5f);
    calibrate(b.m, algorithm_config{"max"}, [&] { b.host.forward(batch); });
    CHECK(b.scale(b.host.down, role::weight).empty());
  }
}

TEST_CASE("fold_pre_quant_scales: consumers that do not share a scale are refused by name") {
  bench b;
  b.quantize("INT4_AWQ_CFG", {{"awq_lite"}});
  CHECK(says(b.refused(error_id::config_conflict, {b.up(), b.norm()}), "norm", "q_proj and up_proj", "share_state"));
  quantizer_in(b.host.q, role::input).set_pre_quant_scale(b.device, {});
  CHECK(says(b.refused(error_id::config_conflict, {b.norm()}), "q_proj has no pre_quant_scale", "up_proj has one"));
  CHECK(says(b.refused(error_id::config_conflict,
                       {b.up(), preceding_norm("n", b.host.up_bias, {"down_proj"})}), "down_proj", "up_proj already"));
}

TEST_CASE("fold_pre_quant_scales: operations that are not there, do not fit or are said twice are refused") {
  bench b;
  b.quantize("INT4_AWQ_CFG", {{"awq_lite"}});
  auto const conflict = [&](std::vector<preceding_op> const& ops) { return b.refused(error_id::config_conflict, ops); };
  CHECK(says(b.refused(error_id::config_no_match, {preceding_linear("upp", {"down_proj"})}), "'upp'"));
  CHECK(says(b.refused(error_id::config_no_match, {preceding_linear("up_proj", {"downn"})}), "up_proj", "'downn'"));
  CHECK(says(conflict({preceding_linear("up_proj", {})}), "up_proj", "no consumers"));
  CHECK(says(b.refused(error_id::tensor_shape, {preceding_linear("q_proj", {"down_proj"})}), "q_proj", "6 outputs"));
  CHECK(says(b.refused(error_id::tensor_shape, {preceding_norm("norm", b.host.norm, {"down_proj"})}), "norm", "[16]"));
  CHECK(says(b.refused(error_id::tensor_shape, {preceding_linear("up_proj", b.host.norm, {"down_proj"})}), "bias"));
  CHECK(says(conflict({preceding_norm("a", b.host.norm, {"q_proj"}), preceding_norm("b", b.host.norm, {"up_proj"})}),
             "b: its weight", "one"));
  quantizer_in(b.host.down, role::weight).set_pre_quant_scale(b.device, {});
  CHECK(says(conflict({b.up()}), "down_proj", "none on its weight"));
}

TEST_CASE("fold_pre_quant_scales: folded and tied weights, output quantizers and values out of range are refused") {
  bench b;
  b.quantize("INT4_AWQ_CFG", {{"awq_lite"}});
  auto const own = b.scale(b.host.down);
  auto huge = own;
  huge[4] = 3e38f;
  quantizer_in(b.host.down, role::input).set_pre_quant_scale(b.device, huge);
  b.host.up_bias.values[4] = 20;
  CHECK(says(error_text(error_id::format_value, [&] { fold_pre_quant_scales(b.m, {b.up()}); }), "up_proj.bias"));
  CHECK(b.host.up_bias.values[4] == 20);
  quantizer_in(b.host.down, role::input).set_pre_quant_scale(b.device, own);
  quantizer_attribute_config output;
  set_quantizer_attributes(b.m, "up_proj.output_quantizer", output);
  CHECK(says(error_text(error_id::config_conflict, [&] { fold_pre_quant_scales(b.m, {b.up()}); }),
             "up_proj.output_quantizer", "disable it"));
  disable_quantizer(b.m, "*output_quantizer");
  fold_weight(b.m);
  CHECK(says(b.refused(error_id::state_folded, {b.up()}), "down_proj"));

  // two layers over one weight
  plain_tensor w = waves({4, 10}, 0.9f), factor = waves({10}, 0.4f);
  quantizer_slots<cpu_backend> s1, s2;
  struct two_users {
    plain_tensor* w;
    quantizer_slots<cpu_backend>*a, *b;
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(linear("a", *a, *w));
      visit(linear("b", *b, *w));
    }
  } host{&w, &s1, &s2};
  model<cpu_backend> m{host};
  auto config = preset("INT4_AWQ_CFG");
  config.algorithm = "awq_lite";
  mixbit::quantize(m, config, [&] {
    auto const x = uneven(3, 10);
    apply(s1, x, w, multiply);
    apply(s2, x, w, multiply);
  });
  std::vector<preceding_op> const ops{preceding_norm("n", factor, {"a"})};
  auto const fold = [&] { fold_pre_quant_scales(m, ops); };
  CHECK(says(error_text(error_id::config_conflict, fold), "a and b share one weight"));
}

TEST_CASE("fold_pre_quant_scales: a guard around it does not put the scales back") {
  bench b;
  b.quantize("INT4_AWQ_CFG", {{"awq_lite"}});
  auto const y = b.host.forward(batch);
  {
    quantizer_guard keep{b.m, "*"};
    fold_pre_quant_scales(b.m, {b.up()});
  }
  CHECK(b.scale(b.host.down).empty());
  CHECK(difference(b.host.forward(batch), y) < 2e-6f);
  {
    quantizer_guard keep{b.m, "*"};
    disable_quantizer(b.m, "q_proj*");
    fold_pre_quant_scales(b.m, {b.up()});
  }
  CHECK(quantizer_in(b.host.q, role::weight).enabled());  // which had no part in it
}
