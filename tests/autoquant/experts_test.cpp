// Experts that a router kept the calibration from: counted, listed, and completed from their siblings.
#include "mixbit/autoquant/experts.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Four experts of two projections each, and a dense layer before them. Rows go where the test sends them.
struct mixture {
  struct expert {
    plain_tensor up, down;
    quantizer_slots<cpu_backend> up_slots = {}, down_slots = {};
  };
  plain_tensor dense = waves({8, 8}, 0.5f);
  quantizer_slots<cpu_backend> dense_slots;
  std::vector<expert> experts;

  mixture() {
    for (float step : {0.7f, 0.8f, 0.9f, 1.1f})
      experts.push_back({waves({6, 8}, step, step), waves({8, 6}, step + 0.05f)});
  }
  plain_tensor run(std::size_t e, plain_tensor const& x) {
    auto& [up, down, up_slots, down_slots] = experts[e];
    return apply(down_slots, apply(up_slots, x, up, multiply), down, multiply);
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("layers.0.attn.q_proj", dense_slots, dense));
    for (std::size_t e = 0; e < experts.size(); ++e) {
      auto const name = "layers.0.mlp.experts." + std::to_string(e);
      visit(linear(name + ".up_proj", experts[e].up_slots, experts[e].up));
      visit(linear(name + ".down_proj", experts[e].down_slots, experts[e].down));
    }
  }
};

/// Expert 0 sees 9 rows in two calls, 1 sees 5, 2 sees 2, 3 none; the dense layer sees 4.
forward_loop routed(mixture& net) {
  return [&net] {
    apply(net.dense_slots, waves({2, 2, 8}, 0.2f), net.dense, [](auto const& x, auto const& w) {
      plain_tensor flat{4, 8};
      flat.values = x.values;
      return multiply(flat, w);
    });
    net.run(0, waves({6, 8}, 0.3f, 2.0f));
    net.run(0, waves({3, 8}, 0.4f, 3.0f));
    net.run(1, waves({5, 8}, 0.6f, 5.0f));
    net.run(2, waves({2, 8}, 0.11f, 0.5f));
    net.run(3, plain_tensor{0, 8});
  };
}

model_options<cpu_backend> with_siblings() {
  model_options<cpu_backend> o;
  o.unseen = unseen_quantizers::take_from(expert_siblings());
  return o;
}
quantize_config const int8 = preset("INT8_DEFAULT_CFG");

constexpr auto input = quantizer_role::input, weight = quantizer_role::weight;
float one(quantizer_slots<cpu_backend>& slots, quantizer_role role = input) { return amax(slots, role).at(0); }

/// Every amax of the mixture, to see whether anything has changed.
std::vector<std::vector<float>> state(mixture& net) {
  std::vector<std::vector<float>> all{amax(net.dense_slots, input), amax(net.dense_slots, weight)};
  for (auto& e : net.experts)
    for (auto* const slots : {&e.up_slots, &e.down_slots})
      for (auto const role : {input, weight}) all.push_back(amax(*slots, role));
  return all;
}

}  // namespace

TEST_CASE("experts: siblings are the same projection of the other experts, by the rules of a search") {
  auto const key = expert_siblings();
  CHECK(key("layers.0.mlp.experts.3.up_proj") == "layers.0.mlp.experts.#.up_proj");
  CHECK(key("layers.0.mlp.experts.12.up_proj") == key("layers.0.mlp.experts.3.up_proj"));
  CHECK(key("layers.0.mlp.experts.3.up_proj") != key("layers.0.mlp.experts.3.down_proj"));
  CHECK(key("layers.0.mlp.experts.3.up_proj") != key("layers.1.mlp.experts.3.up_proj"));
  CHECK(key("layers.2.block_sparse_moe.experts.7.w2") == "layers.2.block_sparse_moe.experts.#.w2");
  CHECK(key("moe.w1_linear.4") == "moe.w1_linear.#");
  for (char const* none : {"layers.0.attn.q_proj", "layers.0.mlp.up_proj", "layers.0.mlp.shared_expert.gate_proj", "x"})
    CHECK_FALSE(key(none).has_value());
  grouping_rule const own{"mine", [](std::string_view name) -> std::optional<std::string> {
                            if (name.find("bank") == std::string_view::npos) return std::nullopt;
                            return "banks";
                          }};
  auto const mine = expert_siblings({own});
  CHECK(mine("a.bank.1.w") == mine("a.bank.2.w"));
  CHECK(mine("a.bank.1.w") != mine("a.bank.1.v"));
  CHECK_FALSE(mine("a.bank.w").has_value());
}

TEST_CASE("experts: a calibration counts the tokens that each layer is shown") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  auto config = int8;
  CHECK(calibration_tokens(m).layers.empty());
  quantize(m, config, routed(net));
  auto const counts = calibration_tokens(m);
  std::vector<layer_tokens> expected{{"layers.0.attn.q_proj", 4}};
  std::array<std::uint64_t, 4> const rows{9, 5, 2, 0};
  for (std::size_t e = 0; e < rows.size(); ++e)
    for (char const* p : {".up_proj", ".down_proj"})
      expected.push_back({"layers.0.mlp.experts." + std::to_string(e) + p, rows[e]});
  CHECK(counts.layers == expected);
  CHECK(counts.below(5) == std::vector<layer_tokens>{expected[0], expected[5], expected[6], expected[7], expected[8]});
  CHECK(counts.below(0).empty());

  // several runs of the loop by one calibration do not add up, and the next calibration starts from none
  auto const again = calibrate(m, algorithm_config{"mse"}, [&] {
    apply(net.dense_slots, batch, net.dense, multiply);
    net.run(0, batch);
    net.run(3, batch);
  });
  CHECK(again.tokens.layers.size() == 9);
  CHECK(again.tokens.below(5).size() == 4);
  CHECK(again.tokens.layers[1].tokens == 5);
  CHECK(again.tokens.layers[7].tokens == 5);
  // passes that are no calibration, and calls outside of any, are not counted
  net.run(1, batch);
  CHECK(calibration_tokens(m).layers == again.tokens.layers);
  // a calibration that runs no loop counts nothing
  auto weights = nothing_on();
  turn_on(weights, "*weight_quantizer", {.num_bits = 8});
  quantize(m, weights, routed(net));
  CHECK(calibration_tokens(m).layers.empty());
}

TEST_CASE("experts: who saw no data takes the largest amax of the siblings that did, where the user asks for it") {
  mixture net;
  model<cpu_backend> refused{net};
  auto const said = error_text(error_id::state_not_calibrated, [&] { quantize(refused, int8, routed(net)); });
  CHECK(says(said, "2 static", "experts.3.up_proj.input_quantizer", "experts.3.down_proj.input_quantizer"));

  model<cpu_backend> m{net, with_siblings()};
  auto const notes = quantize(m, int8, routed(net)).notes;
  CHECK(std::ranges::count(notes, "layers.0.mlp.experts.3.up_proj.input_quantizer: saw no data; it has the largest "
                                  "amax of 3 sibling(s)") == 1);
  auto& e = net.experts;
  CHECK(one(e[3].up_slots) == one(e[1].up_slots));
  CHECK(one(e[1].up_slots) > one(e[0].up_slots));
  CHECK(one(e[0].up_slots) > one(e[2].up_slots));
  CHECK(one(e[3].down_slots) ==
        std::max({one(e[0].down_slots), one(e[1].down_slots), one(e[2].down_slots)}));
  CHECK(quantizer(e[3].up_slots, input).attributes().type == quantizer_type::static_type);
  // each weight has its own
  CHECK(amax(e[3].up_slots, weight).at(0) != amax(e[1].up_slots, weight).at(0));
  for (float const v : net.run(3, batch).values) CHECK(std::isfinite(v));
}

TEST_CASE("experts: siblings under pre_quant_scales of their own are left out, and said") {
  mixture net;
  auto options = with_siblings();
  auto const scales = [](std::vector<std::string> const& of) {
    return [of](calibration<cpu_backend>& c, algorithm_step const&) {
      for (auto const& l : c.layers)  // before max, as smoothquant leaves them
        for (auto& q : l.quantizers().quantizers)
          if (q.role() == input && std::ranges::any_of(of, [&](auto const& n) { return l.name().ends_with(n); }))
            q.set_pre_quant_scale(c.home.device, {1, 2, 1, 1, 1, 1, 1, 1});
      calibrate_max(c);
    };
  };
  options.algorithms.add("test.one", scales({"1.up_proj"}));
  options.algorithms.add("test.all", scales({"0.up_proj", "1.up_proj", "2.up_proj"}));
  model<cpu_backend> m{net, options};
  auto config = int8;
  config.algorithm = "test.one";
  auto const notes = quantize(m, config, routed(net)).notes;
  auto const said = [&](std::string const& what) { return std::ranges::count(notes, what); };
  std::string const name = "layers.0.mlp.experts.3.up_proj.input_quantizer";
  CHECK(said(name + ": saw no data; it has the largest amax of 2 sibling(s)") == 1);
  CHECK(said(name + ": its amax cannot be taken from layers.0.mlp.experts.1.up_proj.input_quantizer, which scales its "
                    "channels by another pre_quant_scale: 1 such sibling(s) were left out") == 1);
  auto& e = net.experts;
  CHECK(one(e[3].up_slots) == std::max(one(e[0].up_slots), one(e[2].up_slots)));
  auto const before = state(net);
  config.algorithm = "test.all";
  auto const refused = error_text(error_id::state_not_calibrated, [&] { quantize(m, config, routed(net)); });
  CHECK(says(refused, "1 static quantizer(s) saw no data: " + name, "another pre_quant_scale"));
  CHECK(state(net) == before);
}

TEST_CASE("experts: what has no sibling with data stays refused, and so does a rule that is none") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  auto const refused = [&](forward_loop const& loop) {
    return error_text(error_id::state_not_calibrated, [&] { quantize(m, int8, loop); });
  };
  CHECK(says(refused([&] { net.run(0, batch); }), "1 static", "layers.0.attn.q_proj.input_quantizer"));
  CHECK(says(refused([&] { apply(net.dense_slots, batch, net.dense, multiply); }), "8 static"));
  CHECK_FALSE(net.experts[0].up_slots.live());
  CHECK(says(error_text(error_id::config_value, [] { unseen_quantizers::take_from({}); }), "unseen: "));
}

TEST_CASE("experts: those that saw too few tokens are completed, each group by itself, and nothing else changes") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  auto config = nothing_on();
  turn_on(config, "*input_quantizer", {.num_bits = 8, .axis = -1});
  turn_on(config, "*weight_quantizer", {.num_bits = 8});
  quantize(m, config, routed(net));
  auto const before = state(net);
  auto const done = complete_experts(m, {.least_tokens = 5});
  REQUIRE(done.size() == 4);
  CHECK(done[0].name == "layers.0.mlp.experts.2.down_proj.input_quantizer");
  CHECK(done[0].tokens == 2);
  CHECK(done[0].siblings == 2);
  CHECK(done[1].tokens == 0);
  auto const after = state(net);
  for (std::size_t i = 0; i < before.size(); ++i) {
    bool const completed = i == 10 || i == 12 || i == 14 || i == 16;  // the inputs of experts 2 and 3
    if (!completed) CHECK(after[i] == before[i]);
    if (!completed) continue;
    std::size_t const first = i % 4 == 2 ? 2 : 4, second = first + 4;
    REQUIRE(after[i].size() == before[first].size());
    for (std::size_t c = 0; c < after[i].size(); ++c)
      CHECK(after[i][c] == std::max({before[first][c], before[second][c], before[i][c]}));
  }
  CHECK(complete_experts(m).size() == 2);  // expert 3 alone saw none
  CHECK(state(net) == after);
}

TEST_CASE("experts: a few tokens that showed more than all siblings' keep what they showed") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  quantize(m, int8, [&] {
    apply(net.dense_slots, batch, net.dense, multiply);
    for (std::size_t e = 0; e < 3; ++e) net.run(e, waves({5, 8}, 0.3f, 1.0f));
    net.run(3, waves({1, 8}, 0.3f, 50.0f));
  });
  float const own = one(net.experts[3].up_slots);
  complete_experts(m, {.least_tokens = 2});
  CHECK(one(net.experts[3].up_slots) == own);
}

TEST_CASE("experts: weights share the largest amax on request") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  quantize(m, int8, routed(net));
  auto const before = state(net);
  auto const done = complete_experts(m, {.share_weight_amax = true});
  CHECK(done.size() == 2 + 8);
  for (std::size_t p = 0; p < 2; ++p) {
    auto const slots = [&](std::size_t e) -> auto& { return p ? net.experts[e].down_slots : net.experts[e].up_slots; };
    for (std::size_t c = 0; c < amax(slots(0), weight).size(); ++c) {
      float most = 0;
      for (std::size_t e = 0; e < 4; ++e) most = std::max(most, before[2 + 4 * e + 2 * p + 1][c]);
      for (std::size_t e = 0; e < 4; ++e) CHECK(amax(slots(e), weight)[c] == most);
    }
  }
  fold_weight(m);
  auto const said = error_text(error_id::state_folded, [&] { complete_experts(m, {.share_weight_amax = true}); });
  CHECK(says(said, "layers.0.mlp.experts.0.down_proj", "fold_weight"));
}

TEST_CASE("experts: of two levels the tensor's own amax is shared too, where one holds it apart from its blocks") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  auto config = nothing_on();
  quantizer_attribute_config nvfp4{.num_bits = bit_spec{2, 1}};
  nvfp4.block_sizes = block_config{{{-1, 16}}, quantizer_type::static_type, bit_spec{4, 3}};
  turn_on(config, "*weight_quantizer", nvfp4);
  quantize(m, config, routed(net));
  auto const of = [&](std::size_t e) -> auto& { return quantizer(net.experts[e].up_slots, weight); };
  cpu_backend device;
  of(2).hold_tensor_amax(device, 77.0f);  // as a search of its blocks' scales leaves it
  complete_experts(m, {.share_weight_amax = true});
  for (std::size_t e = 0; e < 4; ++e) CHECK(of(e).tensor_amax(device, net.experts[e].up.shape) == 77.0f);
}

TEST_CASE("experts: what cannot be completed is an error that names the layer, and the model as it was") {
  mixture net;
  model<cpu_backend> m{net, with_siblings()};
  quantize(m, int8, routed(net));
  auto before = state(net);
  auto const refused = [&](error_id id, expert_options const& options) {
    auto const text = error_text(id, [&] { complete_experts(m, options); });
    CHECK(state(net) == before);
    return text;
  };
  CHECK(says(refused(error_id::state_not_calibrated, {.least_tokens = 1000}), "layers.0.mlp.experts.0.",
             "saw 9 token(s)", "3 sibling(s)", "1000"));
  CHECK(says(refused(error_id::config_value, {.siblings = {}}), "complete_experts"));
  CHECK(says(refused(error_id::config_no_match, {.siblings = expert_siblings({grouping_rule{"#.{nothing}"}})}),
             "no quantized layer"));

  {
    scale_training<cpu_backend> scales{m, learned_scales::one, "*experts.2.up_proj.weight*"};
    CHECK(says(refused(error_id::state_nested, {.share_weight_amax = true}), "experts.2.up_proj.weight_quantizer",
               "scale_training"));
  }

  // experts that are calibrated on something else
  quantizer_attribute_config rows{.num_bits = 8};
  rows.axis = -1;
  set_quantizer_attributes(m, "*experts.1.up_proj.input_quantizer", rows);
  partition const whole = quantizer(net.experts[0].up_slots, input).groups();
  quantizer(net.experts[1].up_slots, input).set_amax(m.device(), whole, {1.0f});
  before = state(net);
  CHECK(says(refused(error_id::config_conflict, {}), "experts.3.up_proj.input_quantizer",
             "experts.1.up_proj.input_quantizer", "calibrated otherwise"));
  quantize(m, int8, routed(net));
  auto& scaled = *net.experts[2].down_slots.shared_site()->quantizers().find(input);
  scaled.set_pre_quant_scale(m.device(), {1, 2, 1, 1, 1, 1});
  before = state(net);
  CHECK(says(refused(error_id::config_conflict, {}), "experts.3.down_proj.input_quantizer", "pre_quant_scale"));
}
