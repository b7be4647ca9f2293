#include "mixbit/model/control.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "support/checkpoint_host.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

plain_tensor const batch = waves({5, 8}, 0.3f);

/// Three layers; `head` shares the weight of `a` where `tied`.
struct host {
  bool tied = false;
  plain_tensor wa = waves({6, 8}, 0.7f), wb = waves({6, 8}, 0.9f), wc = waves({6, 8}, 1.1f);
  quantizer_slots<cpu_backend> a = {}, b = {}, head = {};
  void walk(module_visitor<cpu_backend> const& visit) {
    visit(linear("layers.0.fc", a, wa));
    visit(linear("layers.1.fc", b, wb));
    visit(linear("head", head, tied ? wa : wc));
  }
  void forward() {
    apply(a, batch, wa, multiply);
    apply(b, batch, wb, multiply);
    apply(head, batch, tied ? wa : wc, multiply);
  }
  plain_tensor out_of_a() { return apply(a, batch, wa, multiply); }
};

void int8(model<cpu_backend>& m, host& h) { quantize(m, preset("INT8_DEFAULT_CFG"), [&] { h.forward(); }); }

sequential_quantizer<cpu_backend>& named(quantizer_slots<cpu_backend>& s, std::string const& leaf) {
  auto& all = s.shared_site()->quantizers().quantizers;
  auto const at = std::find_if(all.begin(), all.end(), [&](auto const& q) { return q.leaf() == leaf; });
  REQUIRE(at != all.end());
  return *at;
}

bool on(quantizer_slots<cpu_backend>& s, char const* leaf) { return named(s, leaf).enabled(); }

}  // namespace

TEST_CASE("control: disable and enable by wildcard and by callable, amaxes kept") {
  host h;
  model<cpu_backend> m{h};
  plain_tensor const plain = h.out_of_a();
  int8(m, h);
  plain_tensor const quantized = h.out_of_a();
  CHECK(disable_quantizer(m, "layers.[0]*") == 3);
  CHECK(h.out_of_a().values == plain.values);
  CHECK_FALSE(h.a.live());
  CHECK(h.b.live());
  auto const puts = [](std::string_view name) { return name == "layers.0.fc.input_quantizer"; };
  CHECK(enable_quantizer(m, puts) == 1);
  CHECK(enable_quantizer(m, "layers.0.fc.weight_quantizer") == 1);
  CHECK(h.out_of_a().values == quantized.values);
}

TEST_CASE("control: a pattern that matches nothing is refused, and so is a model without quantizers") {
  host h;
  model<cpu_backend> m{h};
  CHECK(says(error_text(error_id::config_no_match, [&] { disable_quantizer(m, "*"); }), "'*'", "quantize()"));
  int8(m, h);
  CHECK(says(error_text(error_id::config_no_match, [&] { disable_quantizer(m, "*mlp*"); }), "*mlp*"));
  CHECK(says(error_text(error_id::config_no_match, [&] { enable_quantizer(m, "*mlp*"); }), "*mlp*"));
  auto const none = pattern{[](std::string_view) { return false; }, "my rule"};
  CHECK(says(
      error_text(error_id::config_no_match, [&] { set_quantizer_attributes(m, none, quantizer_attribute_config{}); }),
      "my rule"));
}

TEST_CASE("control: attributes are replaced, amaxes go, and nothing changes where they are wrong") {
  host h;
  model<cpu_backend> m{h};
  int8(m, h);
  plain_tensor const before = h.out_of_a();
  quantizer_attribute_config int4, odd, uncomputed;
  int4.num_bits = 4;
  odd.num_bits = -3;
  uncomputed.backend = "another";
  CHECK(says(error_text(error_id::config_value, [&] { set_quantizer_attributes(m, "*weight*", odd); }), "layers.0.fc",
             "-3"));
  CHECK(says(error_text(error_id::format_value, [&] { set_quantizer_attributes(m, "*weight*", uncomputed); }),
             "layers.0", "backend"));
  auto const none = std::vector<quantizer_attribute_config>{};
  CHECK(
      says(error_text(error_id::config_conflict, [&] { set_quantizer_attributes(m, "*weight*", none); }), "*weight*"));
  CHECK(h.out_of_a().values == before.values);
  CHECK(set_quantizer_attributes(m, "*weight_quantizer", {.num_bits = 8}) == 3);
  CHECK(set_quantizer_attributes(m, "*weight_quantizer", {{.num_bits = 8}, {.num_bits = 4}}) == 3);
  CHECK(set_quantizer_attributes(m, "*weight_quantizer", int4) == 3);
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { h.out_of_a(); }), "layers.0.fc.weight_quantizer"));
  calibrate(m, {}, [&] { h.forward(); });
  CHECK(h.out_of_a().values != before.values);
  CHECK(set_quantizer_attributes(m, "*weight_quantizer", std::vector{int4, quantizer_attribute_config{}}) == 3);
  CHECK(h.a.shared_site()->quantizers().find(quantizer_role::weight)->members().size() == 2);
  int4.enable = false;
  set_quantizer_attributes(m, "*weight_quantizer", int4);
  CHECK_FALSE(on(h.a, "weight_quantizer"));
}

TEST_CASE("control: what cannot be computed is not enabled, and then nothing is") {
  host h;
  model<cpu_backend> m{h};
  auto config = preset("INT8_WEIGHT_ONLY_CFG");
  quantizer_attribute_config foreign;
  foreign.backend = "another";
  foreign.enable = false;
  config.entries.push_back({"layers.1.fc.output_quantizer", std::nullopt, std::vector{foreign}, true});
  quantize(m, config);
  CHECK(says(error_text(error_id::format_value, [&] { enable_quantizer(m, "*output*"); }), "layers.1.fc.output",
             "backend"));
  CHECK_FALSE(on(h.a, "output_quantizer"));
  CHECK(enable_quantizer(m, "layers.0*output*") == 1);
  CHECK(named(h.a, "output_quantizer").attributes()[0].enable);
}

TEST_CASE("control: of a sequence only what will be on has to be computable") {
  host h;
  model<cpu_backend> m{h};
  quantizer_attribute_config int4, foreign;
  int4.num_bits = 4;
  foreign.backend = "another";
  foreign.enable = false;
  auto config = nothing_on();
  config.entries.push_back({"layers.0.fc.weight_quantizer", std::nullopt, std::vector{int4, foreign}, true});
  quantize(m, config);
  plain_tensor const quantized = h.out_of_a();
  disable_quantizer(m, "layers.0.fc.weight_quantizer");
  CHECK(enable_quantizer(m, "layers.0.fc.weight_quantizer") == 1);
  CHECK(h.out_of_a().values == quantized.values);
  CHECK(set_quantizer_attributes(m, "layers.1.fc.weight_quantizer", std::vector{foreign, int4}) == 1);
  CHECK(named(h.b, "weight_quantizer").members().size() == 1);
  CHECK(set_quantizer_attributes(m, "layers.1.fc.output_quantizer", foreign) == 1);  // it stays off
  CHECK(says(error_text(error_id::format_value, [&] { enable_quantizer(m, "layers.1.fc.output_quantizer"); }),
             "layers.1.fc.output_quantizer", "backend"));  // all off means: turn all on
  foreign.enable = true;
  CHECK(says(error_text(error_id::format_value,
                        [&] {
                          set_quantizer_attributes(m, "layers.1.fc.weight_quantizer", std::vector{int4, foreign});
                        }),
             "layers.1.fc.weight_quantizer", "backend"));
}

TEST_CASE("control: quantizers that are off keep their amax through a calibration") {
  host h;
  model<cpu_backend> m{h};
  int8(m, h);
  plain_tensor const quantized = h.out_of_a();
  disable_quantizer(m, "layers.0.fc.*");
  calibrate(m, {}, [&] {
    apply(h.b, batch, h.wb, multiply);
    apply(h.head, batch, h.wc, multiply);
  });
  CHECK_FALSE(on(h.a, "input_quantizer"));
  enable_quantizer(m, "layers.0.fc.input_quantizer");
  enable_quantizer(m, "layers.0.fc.weight_quantizer");
  CHECK(h.out_of_a().values == quantized.values);
}

TEST_CASE("control: what a class locks off stays off") {
  struct table {
    plain_tensor weight = waves({6, 8}, 0.7f);
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(embedding("embed", slots, weight)); }
  } t;
  model<cpu_backend> m{t};
  auto config = nothing_on();
  turn_on(config, "embed.weight_quantizer", {});
  quantize(m, config);
  enable_quantizer(m, "embed.input_quantizer");
  set_quantizer_attributes(m, "embed.input_quantizer", quantizer_attribute_config{});
  CHECK_FALSE(on(t.slots, "input_quantizer"));
  calibrate(m, {});  // nothing asks for data
}

TEST_CASE("control: nothing is changed from inside a pass") {
  host h;
  model<cpu_backend> m{h};
  auto const refused = [&](auto change) {
    return error_text(error_id::state_nested, [&] { quantize(m, preset("INT8_DEFAULT_CFG"), change); });
  };
  CHECK(says(refused([&] { disable_quantizer(m, "*"); }), "layers.0.fc"));
  CHECK(says(refused([&] { set_quantizer_attributes(m, "*", quantizer_attribute_config{}); }), "layers.0.fc"));
  CHECK(says(refused([&] { fold_weight(m); }), "layers.0.fc", "fold_weight"));
}

TEST_CASE("fold_weight: weights become Q(w), results stay, and quantizing again is refused") {
  host h;
  model<cpu_backend> m{h};
  int8(m, h);
  plain_tensor const before = h.out_of_a();
  plain_tensor expected = h.wa;
  cpu_backend device;
  arena scratch;
  h.a.shared_site()->quantizers().find(quantizer_role::weight)->quantize(device, scratch, read_view(h.wa),
                                                                        write_view(expected));
  CHECK(expected.values != h.wa.values);
  CHECK(fold_weight(m) == 3);
  CHECK(h.wa.values == expected.values);
  CHECK(h.out_of_a().values == before.values);
  CHECK_FALSE(on(h.a, "weight_quantizer"));
  CHECK(fold_weight(m) == 0);
  CHECK(h.wa.values == expected.values);
  plain_tensor grad{6, 8};
  CHECK(says(error_text(error_id::state_folded, [&] { weight_backward(h.a, h.wa, grad); }), "layers.0.fc", "trained"));
  CHECK(says(error_text(error_id::state_folded, [&] { enable_quantizer(m, "*weight_quantizer"); }),
             "layers.0.fc.weight_quantizer"));
  CHECK(says(error_text(error_id::state_folded,
                        [&] { set_quantizer_attributes(m, "*weight_quantizer", quantizer_attribute_config{}); }),
             "layers.0.fc.weight_quantizer"));
  CHECK(says(error_text(error_id::state_folded, [&] { int8(m, h); }), "layers.0.fc", "fold_weight"));
  CHECK(h.out_of_a().values == before.values);
  calibrate(m, {}, [&] { h.forward(); });  // inputs may still be calibrated
  CHECK(h.out_of_a().values == before.values);
}

TEST_CASE("fold_weight: throws before it writes a weight") {
  host h;
  model<cpu_backend> m{h};
  plain_tensor const raw = h.wa;
  auto config = nothing_on();
  turn_on(config, "*weight_quantizer", {});
  quantize(m, config);
  quantizer_attribute_config is_unsigned;
  is_unsigned.is_unsigned = true;
  set_quantizer_attributes(m, "head.weight_quantizer", is_unsigned);
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { fold_weight(m); }), "head.weight_quantizer"));
  calibrate(m, {});
  CHECK(says(error_text(error_id::format_unsigned, [&] { fold_weight(m); }), "head.weight_quantizer",
             detail::concat("(down to ", *std::ranges::min_element(h.wc.values), ")")));
  CHECK(h.wa.values == raw.values);
  CHECK(on(h.a, "weight_quantizer"));
}

TEST_CASE("fold_weight: a tied weight is folded once, and only where its users agree") {
  host h{.tied = true};
  model<cpu_backend> m{h};
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  plain_tensor const raw = h.wa, before = h.out_of_a();
  disable_quantizer(m, "head.*");
  CHECK(says(error_text(error_id::config_conflict, [&] { fold_weight(m); }), "head", "layers.0.fc", "share"));
  CHECK(h.wa.values == raw.values);
  enable_quantizer(m, "head.weight_quantizer");
  auto& of_head = *h.head.shared_site()->quantizers().find(quantizer_role::weight);
  of_head.set_pre_quant_scale(m.device(), std::vector<float>(8, 2.0f));
  CHECK(says(error_text(error_id::config_conflict, [&] { fold_weight(m); }), "head", "scale its input channels"));
  CHECK(h.wa.values == raw.values);
  of_head.set_pre_quant_scale(m.device(), {});
  CHECK(fold_weight(m) == 3);
  CHECK(h.out_of_a().values == before.values);
  CHECK(apply(h.head, batch, h.wa, multiply).values == before.values);
}

TEST_CASE("fold_weight: a tied weight that its users see differently is not folded") {
  struct shared_host {  // [8, 6]: out x in for one, in x out for the other
    plain_tensor weight = waves({8, 6}, 0.7f);
    site_layout layout = layouts::linear_in_out;
    quantizer_slots<cpu_backend> table = {}, head = {};
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(linear("table", table, weight));
      visit(linear("head", head, weight, layout));
    }
  } h;
  model<cpu_backend> m{h};
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  plain_tensor const raw = h.weight;
  auto const text = error_text(error_id::config_conflict, [&] { fold_weight(m); });
  CHECK(says(text, "head", "table", "[6,8]", "[8,6]"));
  h.weight = waves({6, 6}, 0.7f);  // the same shape, but other strides
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  plain_tensor const square = h.weight;
  CHECK(says(error_text(error_id::config_conflict, [&] { fold_weight(m); }), "head", "table", "see it differently"));
  CHECK(h.weight.values == square.values);
  h.layout = layouts::linear;
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  CHECK(fold_weight(m) == 2);
  CHECK(h.weight.values != square.values);
}
