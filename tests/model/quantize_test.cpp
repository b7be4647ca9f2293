#include "mixbit/model/quantize.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <sstream>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/summary.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

float largest(plain_tensor const& t) {
  float top = 0;
  for (float const v : t.values) top = std::max(top, std::abs(v));
  return top;
}
std::string summary(model<cpu_backend>& m) {
  std::ostringstream text;
  print_quant_summary(m, text);
  return text.str();
}

}  // namespace

TEST_CASE("quantize: weights alone need no loop, and a loop is not run for them") {
  chain net;
  model<cpu_backend> m{net};
  int ran = 0;
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  auto const y = net.forward(batch);
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"), [&] { ++ran; });
  CHECK(ran == 0);
  CHECK(net.forward(batch).values == y.values);
  auto const rows = amax(net.s1, quantizer_role::weight);
  REQUIRE(rows.size() == 6);
  for (std::size_t r = 0; r < 6; ++r) {
    float top = 0;
    for (std::size_t i = 0; i < 8; ++i) top = std::max(top, std::abs(net.w1.values[r * 8 + i]));
    CHECK(rows[r] == top);
  }
}

TEST_CASE("quantize: calibration ends for weights and for what the loop shows, so that double quantization is ready") {
  chain net;
  model<cpu_backend> m{net};
  quantizer_attribute_config nf4;
  nf4.num_bits = 4;
  nf4.block_sizes = block_config{{{-1, 4}}, {}, bit_spec{8}, {{-1, 8}}};
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", nf4);
  turn_on(config, "mlp.up.weight_quantizer", nf4);
  quantize(m, config, [&] { net.forward(batch), net.forward(waves({5, 8}, 0.4f)); });
  auto const by_hand = [&](quantizer_role role, plain_tensor const& x) {
    tensor_quantizer<cpu_backend> q{"q", nf4, policy::stored};
    cpu_backend device;
    arena scratch;
    q.set_amax(device, q.grouping(read_view(x)), amax(net.s1, role));
    plain_tensor y = x;
    q.quantize(device, scratch, read_view(x), write_view(y));
    CHECK(y.values != x.values);
    return y;
  };
  plain_tensor const x = by_hand(quantizer_role::input, batch), w = by_hand(quantizer_role::weight, net.w1);
  CHECK(apply(net.s1, batch, net.w1, multiply).values == multiply(x, w).values);
}

TEST_CASE("quantize: static inputs without a loop, or with one that runs nothing, are refused by name") {
  chain net;
  model<cpu_backend> m{net};
  plain_tensor const before = net.forward(batch);
  auto const refused = [&](forward_loop const& loop) {
    return error_text(error_id::state_not_calibrated, [&] { quantize(m, preset("INT8_DEFAULT_CFG"), loop); });
  };
  CHECK(says(refused({}), "2 static", "mlp.up.input_quantizer", "mlp.down.input_quantizer", "give a forward_loop"));
  CHECK(says(refused([] {}), "mlp.up.input_quantizer", "reached no such layer"));
  auto const half = refused([&] { apply(net.s1, batch, net.w1, multiply); });
  CHECK(says(half, "1 static", "mlp.down.input_quantizer"));
  CHECK(half.find("mlp.up") == std::string::npos);
  CHECK(net.forward(batch).values == before.values);
  CHECK_FALSE(net.s1.live());
}

TEST_CASE("quantize: a loop that throws leaves the model as it was, to the bit (rule 11)") {
  chain net;
  model<cpu_backend> m{net};
  auto const broken = [&] {
    net.forward(waves({5, 8}, 0.3f, 100.0f));
    throw std::runtime_error{"no more batches"};
  };
  plain_tensor const plain = net.forward(batch);
  CHECK_THROWS_WITH(quantize(m, preset("INT8_DEFAULT_CFG"), broken), "no more batches");
  CHECK(net.forward(batch).values == plain.values);
  CHECK_FALSE(net.s1.live());
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  plain_tensor const quantized = net.forward(batch);
  auto const text = summary(m);
  CHECK(quantized.values != plain.values);
  CHECK_THROWS_WITH(quantize(m, preset("FP8_DEFAULT_CFG"), broken), "no more batches");
  CHECK_THROWS_WITH(calibrate(m, {}, broken), "no more batches");
  CHECK(net.forward(batch).values == quantized.values);
  CHECK(summary(m) == text);
  CHECK(m.scratch().scratch.used() == 0);
}

TEST_CASE("quantize: NaN and infinities are left out, counted and named") {
  chain net;
  model<cpu_backend> m{net};
  plain_tensor bad = batch;
  bad.values[3] = std::numeric_limits<float>::quiet_NaN();
  bad.values[9] = -std::numeric_limits<float>::infinity();
  bad.values[10] = 5.0f;
  auto const result = quantize(m, preset("INT8_DEFAULT_CFG"), [&] {
    net.forward(batch);
    apply(net.s1, bad, net.w1, multiply);
  });
  CHECK(amax(net.s1, quantizer_role::input)[0] == 5.0f);
  auto const note = std::find_if(result.notes.begin(), result.notes.end(),
                                 [](auto const& n) { return n.find("mlp.up.input_quantizer") == 0; });
  REQUIRE(note != result.notes.end());
  CHECK(note->find(": 2 NaN or infinite") != std::string::npos);
  for (auto const& n : result.notes) CHECK(n.find("mlp.down.input_quantizer") == std::string::npos);
}

TEST_CASE("quantize: again replaces what was there; calibrate follows new data") {
  chain net;
  model<cpu_backend> m{net};
  auto const run = [&](float size) { return [&net, size] { net.forward(waves({5, 8}, 0.3f, size)); }; };
  CHECK(says(error_text(error_id::state_missing, [&] { calibrate(m, {}, run(1.0f)); }), "none of 2 modules"));
  quantize(m, preset("INT8_DEFAULT_CFG"), run(1.0f));
  plain_tensor const int8 = net.forward(batch);
  quantize(m, preset("FP8_DEFAULT_CFG"), run(1.0f));
  CHECK(summary(m).find("int8") == std::string::npos);
  CHECK(net.forward(batch).values != int8.values);
  quantize(m, preset("INT8_DEFAULT_CFG"), run(1.0f));
  CHECK(net.forward(batch).values == int8.values);
  CHECK(amax(net.s1, quantizer_role::input)[0] == largest(batch));
  for (float const size : {8.0f, 0.5f}) {  // anew: a smaller range is followed too
    calibrate(m, {}, run(size));
    CHECK(amax(net.s1, quantizer_role::input)[0] == size * largest(batch));
  }
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { calibrate(m, {}); }), "mlp.up.input_quantizer"));
  CHECK(amax(net.s1, quantizer_role::input)[0] == 0.5f * largest(batch));
}

TEST_CASE("quantize: amax is the largest over all batches of the loop") {
  chain net;
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] {
    for (float const size : {1.0f, 3.0f, 2.0f}) net.forward(waves({5, 8}, 0.3f, size));
  });
  CHECK(amax(net.s1, quantizer_role::input)[0] == 3.0f * largest(batch));
}

TEST_CASE("quantize: a user's entry that matches nothing is an error, or a note where strict is off") {
  chain net;
  auto config = nothing_on();
  turn_on(config, "*.weight_quantizer", {});
  turn_on(config, "*attention*", {});
  model<cpu_backend> m{net};
  CHECK(says(error_text(error_id::config_no_match, [&] { quantize(m, config); }), "*attention*", "entry 2"));
  CHECK_FALSE(net.s1.live());
  model_options<cpu_backend> lenient;
  lenient.strict = false;
  model<cpu_backend> n{net, lenient};
  auto const notes = quantize(n, config).notes;
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("*attention*") != std::string::npos);
  CHECK(net.s1.live());
}

TEST_CASE("quantize: a preset that enables nothing, an unknown class, and an algorithm that is not there are refused") {
  chain net;
  model<cpu_backend> m{net};
  checkpoint_host sensitive;
  sensitive.add("lm_head", waves({2, 2}, 0.5f));
  model<cpu_backend> h{sensitive};
  CHECK(says(error_text(error_id::config_no_match, [&] { quantize(h, preset("FP8_DEFAULT_CFG")); }), "FP8_DEFAULT_CFG",
             "enables none of 3"));
  auto acme = preset("INT4_AWQ_CFG");
  acme.algorithm = "acme.none";
  CHECK(says(error_text(error_id::config_value, [&] { quantize(m, acme); }), "INT4_AWQ_CFG",
             "acme.none"));
  quantizer_attribute_config foreign;
  foreign.backend = "own";
  auto unknown = nothing_on();
  turn_on(unknown, "*weight_quantizer", foreign);
  CHECK(says(error_text(error_id::format_value, [&] { quantize(m, unknown, [] {}); }), "mlp.up.", "backend"));
  checkpoint_host strange;
  strange.add("x", waves({2, 2}, 0.5f), "my.Linear");
  model<cpu_backend> s{strange};
  CHECK(says(error_text(error_id::config_unknown_field, [&] { quantize(s, preset("INT8_DEFAULT_CFG")); }), "x: ",
             "my.Linear"));
  CHECK_FALSE(net.s1.live());
}

TEST_CASE("quantize: per-token scales of the data need no loop") {
  chain net;
  model<cpu_backend> m{net};
  quantize(m, preset("FP8_PER_CHANNEL_PER_TOKEN_CFG"));
  CHECK(quantizer(net.s1, quantizer_role::input).numerics().amax_from == amax_source::data);
  for (std::int64_t rows : {1, 7}) {  // any number of tokens
    plain_tensor const x = waves({rows, 8}, 0.3f);
    plain_tensor xq{rows, 8}, wq{6, 8};
    cpu_backend device;
    arena scratch;
    quantizer(net.s1, quantizer_role::input).quantize(device, scratch, read_view(x), write_view(xq));
    quantizer(net.s1, quantizer_role::weight).quantize(device, scratch, read_view(net.w1), write_view(wq));
    CHECK(apply(net.s1, x, net.w1, multiply).values == multiply(xq, wq).values);
  }
}

TEST_CASE("quantize: MX formats calibrate nothing, NVFP4 the amax of the tensor") {
  for (char const* name : {"MXFP8_DEFAULT_CFG", "MXFP6_DEFAULT_CFG", "MXFP4_DEFAULT_CFG", "MXINT8_DEFAULT_CFG"}) {
    chain net;
    model<cpu_backend> m{net};
    quantize(m, preset(name));  // no loop
    auto const& numerics = quantizer(net.s1, quantizer_role::input).numerics();
    CHECK(numerics.how.scaling == scale_rule::mx_nv);
    CHECK(numerics.groups_from_data);
    CHECK(net.forward(batch).values != multiply(multiply(batch, net.w1), net.w2).values);
  }
  chain net;
  model<cpu_backend> m{net};
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, preset("NVFP4_DEFAULT_CFG")); }), "mlp.up."));
  quantize(m, preset("NVFP4_DEFAULT_CFG"), [&] { net.forward(batch); });
  auto& weight = quantizer(net.s1, quantizer_role::weight);
  cpu_backend device;
  CHECK(weight.amax(device) == std::vector<float>{largest(net.w1)});
  arena scratch;
  plain_tensor wq{6, 8}, expected{6, 8};
  weight.quantize(device, scratch, read_view(net.w1), write_view(wq));
  auto const amax = largest(net.w1);
  partition const blocks = weight.grouping(read_view(net.w1));
  CHECK(blocks.block[1] == 8);  // 8 inputs have one ragged block of 16
  device.fake_quantize({read_view(net.w1), write_view(expected), blocks, nullptr, weight.numerics().how, nullptr, &amax,
                        amax_use::data});
  CHECK(wq.values == expected.values);
}

TEST_CASE("quantize: a sequential weight runs its quantizers in order; both are calibrated on the raw weight") {
  chain net;
  model<cpu_backend> m{net};
  auto w4a8 = preset("W4A8_AWQ_BETA_CFG");
  w4a8.algorithm = preset("INT8_DEFAULT_CFG").algorithm;
  quantize(m, w4a8, [&] { net.forward(batch); });
  auto& members = net.s1.shared_site()->quantizers().find(quantizer_role::weight)->members();
  REQUIRE(members.size() == 2);
  CHECK(members[0].name() == "mlp.up.weight_quantizer.0");
  CHECK(members[1].name() == "mlp.up.weight_quantizer.1");
  cpu_backend device;
  CHECK(members[1].amax(device) == std::vector<float>{largest(net.w1)});
  arena scratch;
  plain_tensor int4{6, 8}, fp8{6, 8}, xq{5, 8};
  members[0].quantize(device, scratch, read_view(net.w1), write_view(int4));
  members[1].quantize(device, scratch, read_view(int4), write_view(fp8));
  quantizer(net.s1, quantizer_role::input).quantize(device, scratch, read_view(batch), write_view(xq));
  CHECK(int4.values != fp8.values);
  CHECK(apply(net.s1, batch, net.w1, multiply).values == multiply(xq, fp8).values);
}

TEST_CASE("quantize: one of a sequence that is off does not run") {
  chain net, plain;
  model<cpu_backend> m{net}, p{plain};
  quantizer_attribute_config int4, off;
  int4.num_bits = 4;
  off.enable = false;
  off.rotate = true;  // not computed by this version, and not asked for
  auto sequence = nothing_on(), alone = nothing_on();
  sequence.entries.push_back({"*weight_quantizer", std::nullopt, std::vector{int4, off}, true});
  turn_on(alone, "*weight_quantizer", int4);
  quantize(m, sequence);
  quantize(p, alone);
  CHECK(net.forward(batch).values == plain.forward(batch).values);
  CHECK(net.s1.shared_site()->quantizers().find(quantizer_role::weight)->attributes().size() == 2);
}

TEST_CASE("quantize: names and slots are unique; another phase cannot begin inside a loop") {
  checkpoint_host twice;
  twice.add("fc", waves({2, 2}, 0.5f));
  twice.add("fc", waves({2, 2}, 0.5f));
  model<cpu_backend> t{twice};
  CHECK(says(error_text(error_id::state_duplicate, [&] { t.modules(); }), "fc"));
  struct shared_slots {
    plain_tensor a = waves({2, 2}, 0.5f), b = a;
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(linear("a", slots, a));
      visit(linear("b", slots, b));
    }
  } both;
  model<cpu_backend> s{both};
  CHECK(says(error_text(error_id::state_duplicate, [&] { s.modules(); }), "b: ", "slots"));
  chain net;
  model<cpu_backend> m{net};
  auto const nested = [&] { quantize(m, preset("INT8_WEIGHT_ONLY_CFG")); };
  auto const text = error_text(error_id::state_nested, [&] { quantize(m, preset("INT8_DEFAULT_CFG"), nested); });
  CHECK(says(text, "mlp.up", "inside"));
  CHECK_FALSE(net.s1.live());
}

TEST_CASE("quantize: tied weights are quantized by each user with its own quantizer") {
  struct tied_host {
    plain_tensor weight = waves({6, 8}, 0.7f);
    quantizer_slots<cpu_backend> table, head;
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(embedding("embed", table, weight));
      visit(linear("head", head, weight));
    }
  } host;
  model<cpu_backend> m{host};
  auto config = nothing_on();
  turn_on(config, "head.weight_quantizer", {});
  quantize(m, config);
  CHECK(apply(host.table, host.weight, [](plain_tensor const& w) { return w; }).values == host.weight.values);
  plain_tensor const x = waves({2, 8}, 0.3f);
  CHECK(apply(host.head, x, host.weight, multiply).values != multiply(x, host.weight).values);
}

TEST_CASE("quantize: a second handle finds what the first one made") {
  chain net;
  plain_tensor quantized{0, 0};
  {
    model<cpu_backend> first{net};
    quantize(first, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
    quantized = net.forward(batch);
  }
  CHECK(net.forward(batch).values == quantized.values);
  model<cpu_backend> second{net};
  CHECK(summary(second).find("4 of 6 quantizers enabled") != std::string::npos);
  CHECK(net.forward(batch).values == quantized.values);
}

TEST_CASE("calibrate: a module that has joined the walk since stays unquantized") {
  struct growing_host {
    chain mlp;
    quantizer_slots<cpu_backend> attention;
    bool grown = false;
    void walk(module_visitor<cpu_backend> const& visit) {
      mlp.walk(visit);
      if (grown) visit(module("self_attn", "attention", attention));
    }
  } net;
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.mlp.forward(batch); });
  net.grown = true;
  plain_tensor const raw = waves({2, 3, 4}, 0.37f);
  plain_tensor k = raw;
  calibrate(m, {}, [&] {
    net.mlp.forward(batch);
    apply(net.attention, k, 1);
  });
  CHECK(k.values == raw.values);
  CHECK_FALSE(net.attention.live());
  CHECK(net.mlp.s1.live());
  CHECK(summary(m).find("self_attn.k_bmm_quantizer: disabled") != std::string::npos);
}
