#include "mixbit/io/hf_fused.hpp"

#include <doctest/doctest.h>

#include "mixbit/model/control.hpp"
#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// FP8 layers of one input, each shown its own.
void make(export_bench& b) {
  b.add("l.q_proj", make_weight({4, 16}, 1));
  b.add("l.k_proj", make_weight({2, 16}, 9));
  b.add("l.o_proj", make_weight({16, 4}, 3));
  auto const fp8 = [](quantize_config& c) {
    for (char const* const q : {"*input_quantizer", "*weight_quantizer"}) turn_on(c, q, whole({4, 3}));
  };
  b.quantize(fp8, [&b] { b.host.show("l.q_proj", 2), b.host.show("l.k_proj", 3), b.host.show("l.o_proj", 5); });
}

}  // namespace

TEST_CASE("hf fused: a group whose scales differ is named with both values; once shared, they are equal in the file") {
  export_bench b;
  make(b);
  auto const notes = b.run();
  CHECK(mentions(notes, "l.q_proj and l.k_proj differ in input amax: 2 and 3; loaders"));
  CHECK(mentions(notes, "l.q_proj and l.k_proj differ in weight amax: "));
  CHECK(!mentions(notes, "l.o_proj"));
  auto const scale = [&](char const* name) { return b.file().read_as_float(name).at(0); };
  float const q = scale("l.q_proj.weight_scale"), k = scale("l.k_proj.weight_scale");
  CHECK(q != k);
  CHECK(scale("l.q_proj.input_scale") == 2.0f / 448);
  share_state(*b.m);
  CHECK(!mentions(b.run(), "differ in"));
  for (char const* const name : {"l.q_proj", "l.k_proj"}) {
    CHECK(b.file().read_as_float(std::string{name} + ".weight_scale").at(0) == std::max(q, k));
    CHECK(b.file().read_as_float(std::string{name} + ".input_scale").at(0) == 3.0f / 448);
  }
  CHECK(scale("l.o_proj.input_scale") == 5.0f / 448);
}

TEST_CASE("hf fused: layers that only a common format could make share are told so") {
  export_bench b;
  make(b);
  auto constant = whole({4, 3});
  constant.constant_amax = 448;
  set_quantizer_attributes(*b.m, "l.k_proj.input_quantizer", constant);
  auto const notes = b.run();
  CHECK(mentions(notes, "l.q_proj and l.k_proj differ in input format: "));
  CHECK(mentions(notes, "share_state needs one format"));
  CHECK_FALSE(mentions(notes, "share_state makes it one"));
  CHECK_THROWS_AS(share_state(*b.m), error const&);
}

TEST_CASE("hf fused: gate and up, w1 and w3 are groups; layers of several formats are not compared") {
  std::vector<hf_layer> layers(5);
  char const* const names[] = {"b.w3", "a.gate_proj", "b.w1", "b.w2", "a.up_proj"};
  for (std::size_t i = 0; i < 5; ++i) layers[i].name = names[i];
  CHECK(detail::hf::fused_groups(layers) == std::vector<std::vector<std::size_t>>{{0, 2}, {1, 4}});
  export_bench b;
  make(b);
  auto of = [](char const* name, hf_algorithm a) { return hf_layer{name, {a}, {}, {}, site_kind::linear}; };
  std::vector<std::string> notes;
  detail::hf::note_unshared(*b.m, {of("l.q_proj", hf_algorithm::fp8), of("l.k_proj", hf_algorithm::int8)}, notes);
  detail::hf::note_unshared(
      *b.m, {of("l.q_proj", hf_algorithm::fp8_2d_blocks), of("l.k_proj", hf_algorithm::fp8_2d_blocks)}, notes);
  CHECK(notes.empty());
  detail::hf::note_unshared(*b.m, {of("l.q_proj", hf_algorithm::fp8), of("l.k_proj", hf_algorithm::fp8)}, notes);
  CHECK(notes.size() == 2);
}

TEST_CASE("hf fused: a layer that is not quantized beside one that is, is named") {
  export_bench b;
  for (char const* name : {"l.up_proj", "l.gate_proj", "l.down_proj", "other.gate_proj", "other.up_proj"})
    b.add(name, make_weight({4, 16}));
  b.quantize([](auto& c) { turn_on(c, "l.gate_proj.weight_quantizer", blocks({4, 3}, {{-1, 128}, {-2, 128}})); });
  auto const notes = b.run();
  CHECK(mentions(notes, "l.gate_proj is fp8_pb_wo, l.up_proj not quantized: vLLM fuses them"));
  CHECK_FALSE(mentions(notes, "l.down_proj"));
  CHECK_FALSE(mentions(notes, "other"));
}
