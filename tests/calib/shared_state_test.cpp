#include "mixbit/calib/shared_state.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <optional>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/shared_state.hpp"
#include "support/error_text.hpp"
#include "support/fused_host.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

using role = quantizer_role;

plain_tensor const batch = uneven(6, 16);

struct bench {
  fused_host host;
  model<cpu_backend> m;
  cpu_backend device;

  explicit bench(model_options<cpu_backend> options = {}) : m{host, std::move(options)} {}

  resolution quantize(quantize_config const& config) {
    return mixbit::quantize(m, config, [this] { host.forward(batch); });
  }
  resolution quantize(char const* name, algorithm_config algorithm) {
    auto config = preset(name);
    config.algorithm = std::move(algorithm);
    return quantize(config);
  }
  std::vector<quantizer_slots<cpu_backend>*> fused() { return {&host.q, &host.k, &host.v}; }
  float input_amax(quantizer_slots<cpu_backend>& s) {
    return quantizer_in(s, role::input).members().front().amax(device).at(0);
  }
  float weight_amax(quantizer_slots<cpu_backend>& s, plain_tensor const& w) {
    return quantizer_in(s, role::weight).members().back().tensor_amax(device, w.shape);
  }
  std::vector<float> scale(quantizer_slots<cpu_backend>& s, role r = role::input) {
    return quantizer_in(s, r).pre_quant_scale(device);
  }
};

bool mentions(std::vector<std::string> const& notes, std::string_view what) {
  return std::any_of(notes.begin(), notes.end(), [&](auto const& n) { return n.find(what) != n.npos; });
}

}  // namespace

TEST_CASE("shared_state: an FP8 group takes the largest weight amax; the layer outside of it keeps its own") {
  bench b;
  b.quantize(preset("FP8_DEFAULT_CFG"));
  float const q = b.weight_amax(b.host.q, b.host.wq), k = b.weight_amax(b.host.k, b.host.wk),
              v = b.weight_amax(b.host.v, b.host.wv), o = b.weight_amax(b.host.o, b.host.wo);
  REQUIRE(k < q);
  REQUIRE(q < v);
  auto const report = share_state(b.m);
  CHECK(report.notes.empty());
  for (auto* const s : b.fused()) CHECK(b.weight_amax(*s, b.host.wq) == v);
  CHECK(b.weight_amax(b.host.o, b.host.wo) == o);
  CHECK(unshared_groups(b.m).empty());
}

TEST_CASE("shared_state: the input amax becomes the largest of the group, and only what is asked for is shared") {
  bench b;
  b.quantize(preset("FP8_DEFAULT_CFG"));
  quantizer_in(b.host.k, role::input).members().front().set_amax(b.device, partition{}, {50.0f});
  float const v = b.weight_amax(b.host.v, b.host.wv), q = b.weight_amax(b.host.q, b.host.wq);
  share_state(b.m, fused_layers(b.m), {.weight_amax = false});
  for (auto* const s : b.fused()) CHECK(b.input_amax(*s) == 50.0f);
  CHECK(b.input_amax(b.host.o) != 50.0f);
  CHECK(b.weight_amax(b.host.q, b.host.wq) == q);
  share_state(b.m, fused_layers(b.m), {.input_amax = false});
  CHECK(b.weight_amax(b.host.q, b.host.wq) == v);
}

TEST_CASE("shared_state: NVFP4 shares its tensor-level amax, of dynamic and of static blocks; those of blocks stay") {
  for (bool const with_blocks : {false, true}) {
    CAPTURE(with_blocks);
    bench b;
    auto config = preset("NVFP4_DEFAULT_CFG");
    if (with_blocks) {
      quantizer_attribute_config a;
      a.num_bits = bit_spec{2, 1};
      a.block_sizes = block_config{{{-1, 16}}};
      a.block_sizes->scale_bits = bit_spec{4, 3};
      a.block_sizes->type = quantizer_type::static_type;
      turn_on(config, "*weight_quantizer", a);
    }
    b.quantize(config);
    auto const blocks = [&] { return quantizer_in(b.host.q, role::weight).members().front().amax(b.device); };
    auto const before = blocks();
    REQUIRE(before.size() == (with_blocks ? 8u : 1u));
    float const v = b.weight_amax(b.host.v, b.host.wv);
    REQUIRE(b.weight_amax(b.host.q, b.host.wq) < v);
    CHECK(unshared_groups(b.m).size() == 1);
    plain_tensor const y = b.host.forward(batch);
    share_state(b.m);
    for (auto* const s : b.fused()) CHECK(b.weight_amax(*s, b.host.wq) == v);
    if (with_blocks) CHECK(blocks() == before);
    CHECK(b.host.forward(batch).values != y.values);  // its scales of blocks are of another tensor scale now
    CHECK(unshared_groups(b.m).empty());
  }
}

TEST_CASE("shared_state: amaxes of channels and blocks are each layer's own") {
  for (char const* const name : {"INT8_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "MXFP8_DEFAULT_CFG"}) {
    bench b;
    b.quantize(preset(name));
    auto const amax = [&] {
      std::vector<std::vector<float>> all;
      for (auto* const s : b.fused()) all.push_back(quantizer_in(*s, role::weight).members().front().amax(b.device));
      return all;
    };
    auto const before = amax();
    share_state(b.m);
    CHECK(amax() == before);
    CHECK(unshared_groups(b.m).empty());
  }
}

TEST_CASE("shared_state: a pre_quant_scale becomes the mean, weights are calibrated under its inverse") {
  bench b;
  b.quantize("NVFP4_AWQ_LITE_CFG", "awq_lite");
  std::vector<float> mean(16);
  float top = 0;
  for (auto* const s : b.fused()) {
    auto const own = b.scale(*s);
    REQUIRE(own.size() == 16);
    for (std::size_t i = 0; i < 16; ++i) mean[i] += own[i] / 3;
    top = std::max(top, b.input_amax(*s));
  }
  auto const o = b.scale(b.host.o);
  auto const report = share_state(b.m);
  CHECK(mentions(report.notes, "attn.q_proj takes the mean"));
  auto const shared = b.scale(b.host.q);
  float largest = 0;
  for (std::size_t i = 0; i < 16; ++i) CHECK(shared[i] == doctest::Approx(mean[i]).epsilon(1e-6));
  plain_tensor const* const weights[] = {&b.host.wq, &b.host.wk, &b.host.wv};
  for (std::size_t n = 0; n < 3; ++n) {
    auto& s = *b.fused()[n];
    CHECK(b.scale(s) == shared);
    CHECK(b.input_amax(s) == top);
    auto const inverse = b.scale(s, role::weight);
    for (std::size_t i = 0; i < weights[n]->values.size(); ++i) {
      CHECK(inverse[i % 16] * shared[i % 16] == doctest::Approx(1).epsilon(1e-6));
      largest = std::max(largest, std::abs(weights[n]->values[i] * inverse[i % 16]));
    }
  }
  for (auto* const s : b.fused()) CHECK(b.weight_amax(*s, b.host.wq) == largest);
  for (std::size_t i = 0; i < batch.values.size(); ++i)  // nothing of the input is clipped
    CHECK(std::abs(batch.values[i] * shared[i % 16]) <= top * 1.00001f);
  CHECK(b.scale(b.host.o) == o);
  CHECK(unshared_groups(b.m).empty());
}

TEST_CASE("shared_state: shared scales change nothing while quantization is off") {
  bench b;
  plain_tensor const plain = b.host.forward(batch);
  b.quantize("INT4_AWQ_CFG", "awq_lite");
  share_state(b.m);
  disable_quantizer(b.m, "*");
  auto const y = b.host.forward(batch);
  for (std::size_t i = 0; i < y.values.size(); ++i)
    CHECK(y.values[i] == doctest::Approx(plain.values[i]).epsilon(1e-4));
}

TEST_CASE("shared_state: as a step of a config's algorithm, between a search for scales and one for amaxes") {
  bench b;
  auto const made = b.quantize(
      "INT4_AWQ_CFG", std::vector<algorithm_step>{{"awq_lite"}, {"share_state"}, {"awq_clip"}, {"share_state"}});
  CHECK(mentions(made.notes, "attn.k_proj takes the mean"));
  CHECK(b.scale(b.host.q) == b.scale(b.host.v));
  CHECK(unshared_groups(b.m).empty());
  bench clipped;  // the clip comes first, and a new scale then puts max in its place
  clipped.quantize("INT4_AWQ_CFG", std::vector<algorithm_step>{{"awq_lite"}, {"awq_clip"}, {"share_state"}});
  CHECK(clipped.scale(clipped.host.q) == b.scale(b.host.q));
  auto const amax = [](bench& x) { return quantizer_in(x.host.q, role::weight).members().front().amax(x.device); };
  CHECK(amax(clipped) != amax(b));
  bench some;
  some.quantize("FP8_DEFAULT_CFG",
                std::vector<algorithm_step>{{"max"}, {"share_state", {{"groups", "{q_proj,v_proj} x.{a,b}"}}}});
  CHECK(some.weight_amax(some.host.q, some.host.wq) == some.weight_amax(some.host.v, some.host.wv));
  CHECK(some.weight_amax(some.host.k, some.host.wk) < some.weight_amax(some.host.q, some.host.wq));
}

TEST_CASE("shared_state: as a step it leaves inputs that saw no data to what the model's options say of them") {
  auto config = preset("FP8_DEFAULT_CFG");
  config.algorithm = std::vector<algorithm_step>{{"max"}, {"share_state"}};
  auto const without_k = [&](bench& b, bool v_sees) {
    return quantize(b.m, config, [&b, v_sees] {
      apply(b.host.q, batch, b.host.wq, multiply);
      if (v_sees) apply(b.host.v, uneven(3, 16, 0.2f), b.host.wv, multiply);
      apply(b.host.o, waves({4, 8}, 0.3f), b.host.wo, multiply);
    }).notes;
  };
  model_options<cpu_backend> options;
  options.unseen = unseen_quantizers::take(448.0f);
  bench b{options};
  auto notes = without_k(b, true);
  CHECK(b.input_amax(b.host.q) == b.input_amax(b.host.v));  // those that saw some share
  for (auto* const s : b.fused()) CHECK(b.weight_amax(*s, b.host.wq) == b.weight_amax(b.host.v, b.host.wv));
  CHECK(mentions(notes, "attn.k_proj.input_quantizer: saw no data"));
  CHECK(mentions(notes, "share_state: attn.q_proj and attn.k_proj differ in input format: "));
  CHECK_FALSE(mentions(notes, "attn.v_proj differ"));
  CHECK(unshared_groups(b.m).size() == 1);

  // whose siblings give it what the group has: nothing is to be said of it
  options.unseen = unseen_quantizers::take_from([](std::string_view layer) {
    return layer.ends_with("o_proj") ? std::nullopt : std::optional<std::string>{"qkv"};
  });
  bench same{options};
  notes = without_k(same, false);
  CHECK(same.input_amax(same.host.k) == same.input_amax(same.host.q));
  CHECK_FALSE(mentions(notes, "share_state"));
  CHECK(unshared_groups(same.m).empty());

  bench refusing;
  auto const text = error_text(error_id::state_not_calibrated, [&] { without_k(refusing, false); });
  CHECK(says(text, "attn.k_proj.input_quantizer"));
  CHECK_FALSE(refusing.host.q.live());
}

TEST_CASE("shared_state: a step that cannot be is refused, and nothing is quantized") {
  bench b;
  auto const refused = [&](error_id id, std::vector<algorithm_step> steps) {
    auto const text = error_text(id, [&] { b.quantize("FP8_DEFAULT_CFG", std::move(steps)); });
    CHECK(b.host.q.live() == false);
    return text;
  };
  CHECK(says(refused(error_id::state_not_calibrated, {{"share_state"}}), "attn.q_proj", "no data"));
  CHECK(says(refused(error_id::config_no_match, {{"max"}, {"share_state", {{"groups", "{gate,up}"}}}}), "{gate,up}"));
  CHECK(says(refused(error_id::config_value, {{"max"}, {"share_state", {{"groups", "{q_proj"}}}}), "{q_proj"));
  CHECK(says(refused(error_id::config_conflict, {{"max"}, {"share_state", {{"layerwise", true}}}}), "layerwise"));
  CHECK(says(refused(error_id::config_unknown_field, {{"share_state", {{"group", "a"}}}}), "group"));
}
