// What static quantizers become that no data reached: an error, or what the user asked for.
#include "mixbit/model/unseen.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "mixbit/config/presets.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

model_options<cpu_backend> options(unseen_quantizers unseen) {
  model_options<cpu_backend> o;
  o.unseen = unseen;
  return o;
}
quantize_config const int8 = preset("INT8_DEFAULT_CFG");

/// A loop that reaches the first layer alone, as a router that sends no token to the second.
forward_loop only_up(chain& net) {
  return [&net] { apply(net.s1, batch, net.w1, multiply); };
}
tensor_quantizer<cpu_backend>& input(quantizer_slots<cpu_backend>& slots) {
  return quantizer(slots, quantizer_role::input);
}

}  // namespace

TEST_CASE("unseen: by default an error that lists them, and the model as it was") {
  chain net;
  model<cpu_backend> m{net, options(unseen_quantizers::refuse())};
  auto const said = error_text(error_id::state_not_calibrated, [&] { quantize(m, int8, only_up(net)); });
  CHECK(says(said, "1 static quantizer(s) saw no data: mlp.down.input_quantizer"));
  CHECK_FALSE(net.s2.live());
}

TEST_CASE("unseen: they take their amax from each call's data, say so, and others keep theirs") {
  chain net;
  model<cpu_backend> m{net, options(unseen_quantizers::take_from_data())};
  auto const result = quantize(m, int8, only_up(net));
  CHECK(std::ranges::count(result.notes, "mlp.down.input_quantizer: saw no data while others did; it takes its amax "
                                         "from each call's data") == 1);
  CHECK(std::ranges::none_of(result.notes, [](auto const& n) { return n.starts_with("mlp.up"); }));
  CHECK(input(net.s1).attributes().type == quantizer_type::static_type);
  CHECK(input(net.s1).has_amax());
  CHECK(input(net.s2).attributes().type == quantizer_type::dynamic_type);
  auto* const whole = net.s2.shared_site()->quantizers().find(quantizer_role::input);
  CHECK(whole->attributes().front().type == quantizer_type::dynamic_type);
  CHECK(whole->configured().front().type == quantizer_type::static_type);
  // as a config that says dynamic quantizes
  chain other;
  model<cpu_backend> twin{other};
  auto dynamic = int8;
  for (auto& e : dynamic.entries)
    if (e.cfg && e.quantizer_name.label() == "*input_quantizer") e.cfg->front().type = quantizer_type::dynamic_type;
  quantize(twin, dynamic);
  plain_tensor const y = waves({7, 6}, 0.21f, 40.0f);
  CHECK(apply(net.s2, y, net.w2, multiply).values == apply(other.s2, y, other.w2, multiply).values);
}

TEST_CASE("unseen: they take the amax given, also where channels would have one each") {
  chain net;
  model<cpu_backend> m{net, options(unseen_quantizers::take(6.0f))};
  auto config = nothing_on();
  turn_on(config, "*input_quantizer", {.num_bits = 8, .axis = -1});
  auto const result = quantize(m, config, only_up(net));
  CHECK(std::ranges::count(result.notes, "mlp.down.input_quantizer: saw no data while others did; its amax is 6") == 1);
  CHECK(amax(net.s1, quantizer_role::input).size() == 8);
  plain_tensor const x = waves({5, 6}, 0.4f, 9.0f);
  plain_tensor seen{5, 6};
  apply(net.s2, x, net.w2, [&](plain_tensor const& xq, plain_tensor const& wq, pass p) {
    if (p == pass::result) seen = xq;
    return multiply(xq, wq);
  });
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    float const s = 6.0f / 127, code = std::nearbyint(std::min(std::max(x.values[i] / s, -128.0f), 127.0f));
    CHECK(seen.values[i] == code * s);
  }
  for (float const none : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::nanf("")})
    CHECK(says(error_text(error_id::format_amax, [&] { unseen_quantizers::take(none); }), "unseen: "));
}

TEST_CASE("unseen: a loop that reaches none of them, no loop, and a weight without elements stay errors") {
  chain net;
  model<cpu_backend> m{net, options(unseen_quantizers::take_from_data())};
  auto const refused = [&](forward_loop const& loop) {
    return error_text(error_id::state_not_calibrated, [&] { quantize(m, int8, loop); });
  };
  CHECK(says(refused({}), "2 static", "give a forward_loop"));
  CHECK(says(refused([] {}), "2 static", "reached no such layer"));
  CHECK(says(refused([&] { apply(net.s1, plain_tensor{0, 8}, net.w1, multiply); }), "2 static"));
  net.w2 = plain_tensor{0, 6};
  CHECK(says(refused(only_up(net)), "mlp.down.weight_quantizer", "without elements"));
}

TEST_CASE("unseen: calibrate starts from what the config said, so data that come later count") {
  chain net;
  model<cpu_backend> m{net, options(unseen_quantizers::take_from_data())};
  quantize(m, int8, only_up(net));
  auto const report = calibrate(m, {}, [&] { net.forward(batch); });
  CHECK(report.notes.empty());
  CHECK(input(net.s2).attributes().type == quantizer_type::static_type);
  CHECK(input(net.s2).has_amax());
}

TEST_CASE("unseen: members of a sequence, a static bias, and what cannot be dynamic") {
  chain net;
  model<cpu_backend> m{net, options(unseen_quantizers::take_from_data())};
  quantizer_attribute_config dynamic{.num_bits = 8}, fixed{.num_bits = 4}, affine{.num_bits = 8};
  dynamic.type = quantizer_type::dynamic_type;
  affine.bias = bias_config{{-2, -1}};
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", {.num_bits = 8});
  config.entries.push_back({"mlp.down.input_quantizer", std::nullopt, std::vector{dynamic, fixed, affine}, true});
  quantize(m, config, only_up(net));
  auto& members = net.s2.shared_site()->quantizers().find(quantizer_role::input)->members();
  REQUIRE(members.size() == 3);
  for (auto const& q : members) CHECK(q.attributes().type == quantizer_type::dynamic_type);
  CHECK(members[2].attributes().bias->type == quantizer_type::dynamic_type);
  CHECK(members[1].name() == "mlp.down.input_quantizer.1");
  CHECK_NOTHROW(net.forward(batch));

  quantizer_attribute_config nf4{.num_bits = 4};
  nf4.block_sizes = block_config{{{-1, 2}}, {}, bit_spec{8}, {{-1, 2}}};
  auto two = nothing_on();
  turn_on(two, "mlp.up.input_quantizer", {.num_bits = 8});
  turn_on(two, "mlp.down.input_quantizer", nf4);
  auto const before = net.forward(batch).values;
  auto const said = error_text(error_id::format_value, [&] { quantize(m, two, only_up(net)); });
  CHECK(says(said, "mlp.down.input_quantizer: ", "dynamic", "double quantization"));
  CHECK(net.forward(batch).values == before);
}
