// Modules other than linear layers with tokens: what quantize does with each.
#include <doctest/doctest.h>

#include "mixbit/config/presets.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("modules: an attention's keys and values by a KV-cache preset, its queries not (host 5)") {
  struct attention_host {
    chain mlp;
    quantizer_slots<cpu_backend> attention;
    void walk(module_visitor<cpu_backend> const& visit) {
      mlp.walk(visit);
      visit(module("self_attn", "attention", attention));
    }
    void forward(plain_tensor& q, plain_tensor& k, plain_tensor& v) {
      mlp.forward(batch);
      apply(attention, q, 0);
      apply(attention, k, 1);
      apply(attention, v, 2);
    }
  } net;
  model<cpu_backend> m{net};
  plain_tensor const raw = waves({2, 3, 4}, 0.37f, 3.0f);
  plain_tensor q = raw, k = raw, v = raw;
  quantize(m, combine(preset("INT8_DEFAULT_CFG"), preset("FP8_KV_CFG")), [&] {
    net.forward(q, k, v);
    CHECK(k.values == raw.values);  // calibration only looks
  });
  auto& all = net.attention.shared_site()->quantizers().quantizers;
  CHECK(all[1].path() == "self_attn.k_bmm_quantizer");
  net.forward(q, k, v);
  plain_tensor expected = raw;
  cpu_backend device;
  arena scratch;
  all[1].quantize(device, scratch, read_view(raw), write_view(expected));
  CHECK(expected.values != raw.values);
  CHECK(q.values == raw.values);
  CHECK(k.values == expected.values);
  CHECK(v.values == expected.values);
  CHECK(says(error_text(error_id::state_missing, [&] { apply(net.attention, q, 4); }), "self_attn", "4"));
}

TEST_CASE("modules: a module class of the user's own, with its own quantizers") {
  struct gate_host {
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(module("gate", "my_gate", slots)); }
  } host;
  model_options<cpu_backend> options;
  options.classes.declare("my_gate", {{"left_quantizer"}, {"right_quantizer"}});
  model<cpu_backend> m{host, options};
  auto config = nothing_on();
  quantizer_attribute_config int4;
  int4.num_bits = 4;
  config.entries.push_back({"*right_quantizer", "my_gate", std::vector{int4}, true});
  plain_tensor left = waves({4, 4}, 0.3f), right = left, raw = left;
  quantize(m, config, [&] { apply(host.slots, right, 1); });
  apply(host.slots, left, 0);
  apply(host.slots, right, 1);
  CHECK(left.values == raw.values);
  CHECK(right.values != raw.values);
}

TEST_CASE("modules: an embedding looks its rows up in the quantized table, kept between calls where asked") {
  struct table {
    plain_tensor weight = waves({10, 4}, 0.7f);
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(embedding("embed", slots, weight)); }
    plain_tensor row(std::int64_t i) {
      return apply(slots, weight, [&](plain_tensor const& w) {
        plain_tensor y{1, 4};
        std::copy_n(w.values.begin() + i * 4, 4, y.values.begin());
        return y;
      });
    }
  } host;
  plain_tensor const raw = host.row(3);
  model<cpu_backend> m{host};
  auto config = nothing_on();
  quantizer_attribute_config int4;
  int4.num_bits = 4;
  config.entries.push_back(
      {"embed.*", std::nullopt, std::vector{int4}, true});  // the indices stay off: they are locked
  config.entries.push_back({"*output_quantizer", std::nullopt, std::nullopt, false});
  quantize(m, config);
  plain_tensor const quantized = host.row(3);
  CHECK(quantized.values != raw.values);
  CHECK(host.slots.shared_site()->quantizers().find(quantizer_role::input) == nullptr);
  workspace<cpu_backend> own;
  CHECK(apply(own, host.slots, host.weight, [](plain_tensor const& w) { return w; }).values[12] == quantized.values[0]);
  host.slots.cache_weight(true);
  CHECK(host.row(3).values == quantized.values);
  host.weight.values[12] = 5.0f;
  CHECK(host.row(3).values == quantized.values);
  host.slots.weight_changed();
  CHECK(host.row(3).values != quantized.values);
  quantizer_slots<cpu_backend> none;
  CHECK(says(error_text(error_id::state_missing, [&] { none.cache_weight(true); }), "quantize first"));
}

TEST_CASE("modules: experts that see no tokens have their weights calibrated from the walk (rule 9)") {
  chain net;  // up sees tokens, down none
  model<cpu_backend> m{net};
  auto const some = [&] {
    apply(net.s1, batch, net.w1, multiply);
    apply(net.s2, plain_tensor{0, 6}, net.w2, multiply);  // called without tokens, as routers do
  };
  auto config = preset("FP8_PER_CHANNEL_PER_TOKEN_CFG");
  quantize(m, config, some);
  CHECK(amax(net.s2, quantizer_role::weight).size() == 4);
  // a static input cannot be guessed from nothing, and an empty batch is nothing
  auto const text = error_text(error_id::state_not_calibrated, [&] { quantize(m, preset("INT8_DEFAULT_CFG"), some); });
  CHECK(says(text, "1 static", "mlp.down.input_quantizer"));
}
