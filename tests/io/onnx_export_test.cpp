// QDQ graphs of single layers: what they say by ONNX's description, and what onnxruntime of PyPI computes with them, is
// what the model simulates. A whole network: hosts/digits_onnx_test.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "mixbit/io/onnx_export.hpp"
#include "mixbit/model/control.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"
#include "support/onnx_runtime.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantizer_attribute_config as_unsigned(quantizer_attribute_config a) {
  a.is_unsigned = true;
  return a;
}

/// A layer "fc" [9, 20] and "other" [4, 9], calibrated on inputs up to 3.
struct layers {
  checkpoint_host host;
  std::unique_ptr<mixbit::model<cpu_backend>> m;

  explicit layers(plain_tensor const& weight = make_weight({9, 20}), std::string const& kind = "nn.Linear",
                  site_layout layout = layouts::linear) {
    host.add("fc", weight, kind, layout);
  }
  layers& quantize(std::vector<std::pair<std::string, quantizer_attribute_config>> const& quantizers) {
    m = std::make_unique<mixbit::model<cpu_backend>>(host);
    auto config = nothing_on();
    for (auto const& [name, a] : quantizers) turn_on(config, name, a);
    if (!quantizers.empty()) mixbit::quantize(*m, config, [&] { host.show("fc", 3.0f); });
    return *this;
  }
  module_ref<cpu_backend> fc() { return m->modules().front(); }
};

plain_tensor identity(std::int64_t n) {
  plain_tensor t{n, n};
  for (std::int64_t i = 0; i < n; ++i) t.values[static_cast<std::size_t>(i * n + i)] = 1;
  return t;
}

named_tensor as_input(plain_tensor const& t) { return {"x", {t.shape, t.values.data()}}; }

onnx_initializer const& initializer(onnx_graph const& g, std::string const& name) {
  for (auto const& i : g.initializers)
    if (i.name == name) return i;
  throw std::runtime_error{"no initializer " + name};
}

float scale_at(onnx_initializer const& i, std::int64_t index) {
  float value;
  std::memcpy(&value, i.bytes.data() + index * 4, sizeof value);
  return value;
}

/// A matrix behind a DequantizeLinear, as ONNX 1.23 describes the operator.
std::vector<float> dequantized(onnx_graph const& g, onnx_node const& n) {
  auto const &codes = initializer(g, n.inputs[0]), &scales = initializer(g, n.inputs[1]);
  std::int64_t axis = 1, block = 0;  // the defaults
  for (auto const& a : n.attributes) (a.name == "axis" ? axis : block) = std::get<std::int64_t>(a.value);
  std::vector<float> values;
  for (std::int64_t r = 0; r < codes.shape[0]; ++r)
    for (std::int64_t c = 0; c < codes.shape[1]; ++c) {
      std::int64_t const at = r * codes.shape[1] + c;
      bool const nibbles = codes.type == onnx_type::i4;
      auto const byte = static_cast<std::uint8_t>(codes.bytes[static_cast<std::size_t>(nibbles ? at / 2 : at)]);
      int code = static_cast<std::int8_t>(byte);
      if (nibbles) code = static_cast<std::int8_t>((at % 2 == 0 ? byte << 4 : byte) & 0xf0) >> 4;
      float const value = codes.type == onnx_type::f8_e4m3 ? formats::e4m3::value(byte) : static_cast<float>(code);
      std::int64_t place = 0;
      if (block > 0) place = axis == 0 ? r / block * scales.shape[1] + c : r * scales.shape[1] + c / block;
      else if (!scales.shape.empty()) place = axis == 0 ? r : c;
      values.push_back(value * scale_at(scales, place));
    }
  return values;
}

/// The weight that a file multiplies by, as the product with the identity shows it.
std::vector<float> run_weight(onnx_export<cpu_backend>& g, std::int64_t in, std::int64_t out) {
  temporary_folder const folder;
  g.write(folder / "g.onnx");
  auto const file = run_onnx(folder / "g.onnx", as_input(identity(in)));
  auto const array = file.read("y");
  REQUIRE(array.tensor().same_shape(dense_geometry(dtype::f32, {in, out})));
  return {array.tensor().as<float>(), array.tensor().as<float>() + in * out};
}

}  // namespace

TEST_CASE("onnx: weights of every form are dequantized to what is simulated, bit for bit") {
  bool const runs = !skipped_without_onnxruntime("ONNX weights run by onnxruntime");
  struct form {
    char const* name;
    quantizer_attribute_config attributes;
    std::int64_t opset;
    std::int64_t in = 20;
  };
  for (form const& f : {form{"int8 tensor", whole(8), 13}, {"int8 rows", per_axis(8, 0), 13},
                        {"int8 columns", per_axis(8, 1), 13}, {"int8 blocks", blocks(8, {{-1, 4}}), 21},
                        {"int4 tensor", whole(4), 21}, {"int4 rows", per_axis(4, 0), 21},
                        {"int4 blocks", blocks(4, {{-1, 16}}), 21, 48}, {"int4 ragged", blocks(4, {{-1, 16}}), 21, 40},
                        {"int4 blocks of rows", blocks(4, {{0, 3}}), 21}, {"e4m3 tensor", whole(bit_spec{4, 3}), 19},
                        {"e4m3 rows", per_axis(bit_spec{4, 3}, 0), 19}, {"not quantized", whole(8), 13, 21}}) {
    CAPTURE(f.name);
    layers l{make_weight({9, f.in})};
    if (f.in == 21) l.quantize({});
    else l.quantize({{"fc.weight_quantizer", f.attributes}});
    onnx_export g{*l.m, "g"};
    g.output("y", g.linear("fc", g.input("x", {"n", f.in})), {"n", 9});
    CHECK(opset_of(g.graph()) == f.opset);
    std::vector<std::vector<float>> found;
    auto const& first = g.graph().nodes.front();
    REQUIRE(first.op == (f.in == 21 ? "MatMul" : "DequantizeLinear"));
    if (f.in != 21) found.push_back(dequantized(g.graph(), first));
    if (runs) found.push_back(run_weight(g, f.in, 9));
    if (f.in != 21) fold_weight(*l.m);
    float const* const w = static_cast<float const*>(l.fc().weight.data);
    for (auto const& read : found) {
      int wrong = 0;
      for (std::int64_t o = 0; o < 9; ++o)
        for (std::int64_t i = 0; i < f.in; ++i)
          wrong += !(read[static_cast<std::size_t>(i * 9 + o)] == w[o * f.in + i]);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("onnx: input and output quantizers compute what the model simulates, ties and saturation included") {
  if (skipped_without_onnxruntime("ONNX activations run by onnxruntime")) return;
  for (auto const& a : {whole(8), whole(bit_spec{4, 3}), whole(4), as_unsigned(whole(8))}) {
    plain_tensor w = identity(20);
    layers l{w};
    l.quantize({});
    auto config = nothing_on();
    turn_on(config, "fc.input_quantizer", a);
    plain_tensor x{32, 20};
    mixbit::quantize(*l.m, config, [&] {
      plain_tensor top{1, 20};
      std::fill(top.values.begin(), top.values.end(), 3.0f);
      apply(*l.fc().slots, top, w, multiply);
    });
    float const step = 3.0f / (a.num_bits == bit_spec{4} ? 7.0f : a.is_unsigned ? 255.0f : 127.0f);
    for (std::size_t i = 0; i < x.values.size(); ++i)  // at ties of the integers, beside them, and beyond the amax
      x.values[i] = step * (static_cast<float>(i) - (a.is_unsigned ? 0.0f : 320.0f)) / 2.0f;
    for (std::size_t i = 0; i < x.values.size(); i += 3) x.values[i] = std::nextafter(x.values[i], 10.0f);
    auto const expected = apply(*l.fc().slots, x, w, multiply);
    temporary_folder const folder;
    onnx_export g{*l.m, "g"};
    g.output("y", g.linear("fc", g.input("x", {"n", 20})), {"n", 20});
    g.write(folder / "g.onnx");
    auto const file = run_onnx(folder / "g.onnx", as_input(x));
    auto const y = file.read("y");
    int wrong = 0;
    for (std::size_t i = 0; i < expected.values.size(); ++i)
      wrong += !(y.tensor().as<float>()[i] == expected.values[i]);
    CHECK_MESSAGE(wrong == 0, a.num_bits.text(), a.is_unsigned);
  }
}

TEST_CASE("onnx: with onnxruntime's optimisations a layer is within one step of its output") {
  if (skipped_without_onnxruntime("an ONNX layer optimised by onnxruntime")) return;
  layers l;
  l.quantize({{"fc.weight_quantizer", per_axis(8, 0)}, {"fc.input_quantizer", whole(8)},
              {"fc.output_quantizer", whole(8)}});
  auto x = make_weight({64, 20}, 5);
  for (float& v : x.values) v *= 0.5f;
  plain_tensor w{l.fc().weight};
  std::copy_n(static_cast<float const*>(l.fc().weight.data), w.values.size(), w.values.data());
  auto const expected = apply(*l.fc().slots, x, w, multiply);
  temporary_folder const folder;
  onnx_export g{*l.m, "g"};
  g.output("y", g.linear("fc", g.input("x", {"n", 20})), {"n", 9});
  g.write(folder / "g.onnx");
  auto const file = run_onnx(folder / "g.onnx", as_input(x));
  auto const off = file.read("y"), on = file.read("y/on");
  auto* const q = l.fc().slots->shared_site()->quantizers().find(quantizer_role::output);
  float const step = q->members().front().amax(l.m->device()).front() / 127.0f;
  int far = 0, other = 0;
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    far += std::abs(on.tensor().as<float>()[i] - expected.values[i]) > 1.001f * step;
    other += !(off.tensor().as<float>()[i] == expected.values[i]);
  }
  CHECK(far == 0);
  CHECK(other <= 2);  // none here; sums in another order may end on the other side of a tie
}

TEST_CASE("onnx: the graph has the host's nodes, names of its own, and a weight once however often its layer runs") {
  layers l;
  l.quantize({{"fc.weight_quantizer", per_axis(8, 0)}, {"fc.input_quantizer", whole(8)},
              {"fc.output_quantizer", whole(8)}});
  onnx_export g{*l.m, "twice"};
  auto const bias = make_weight({9});
  auto const a = g.input("a", {2, 20}), b = g.input("b", {2, 20});
  auto const sum = g.op("Add", {g.linear("fc", a, bias), g.linear("fc", b, bias)});
  g.output("y", sum, {2, 9});
  std::map<std::string, int> ops;
  for (auto const& n : g.graph().nodes) ++ops[n.op];
  CHECK(ops == std::map<std::string, int>{{"QuantizeLinear", 4}, {"DequantizeLinear", 5}, {"MatMul", 2}, {"Add", 3},
                                          {"Identity", 1}});
  auto const& codes = g.graph().initializers.front();
  CHECK(codes.name == "fc.weight.codes");
  CHECK(codes.shape == onnx_shape{20, 9});
  CHECK(codes.type == onnx_type::i8);
  temporary_folder const folder;
  CHECK_NOTHROW(g.write(folder / "g.onnx"));
}

TEST_CASE("onnx: a QuantizeLinear has the scale of the amax, the zero point of its type, or its type alone") {
  for (auto const& [a, type, largest] : {std::tuple{whole(8), onnx_type::i8, 127.0f}, {whole(4), onnx_type::i4, 7.0f},
                                         {as_unsigned(whole(8)), onnx_type::u8, 255.0f},
                                         {whole(bit_spec{4, 3}), onnx_type::f8_e4m3, 448.0f}}) {
    layers l;
    l.quantize({});
    auto config = nothing_on();
    turn_on(config, "fc.input_quantizer", a);
    mixbit::quantize(*l.m, config, [&] {
      plain_tensor x{1, 20};
      x.values[3] = 3.0f;
      apply(*l.fc().slots, x, make_weight({9, 20}), multiply);
    });
    onnx_export g{*l.m, "g"};
    g.linear("fc", g.input("x", {"n", 20}));
    auto const& nodes = g.graph().nodes;
    auto const q = std::find_if(nodes.begin(), nodes.end(), [](auto const& n) { return n.op == "QuantizeLinear"; });
    REQUIRE(q != nodes.end());
    CHECK(q->inputs[0] == "x");
    CHECK(scale_at(initializer(g.graph(), q->inputs[1]), 0) == 3.0f / largest);
    CHECK(q[1].op == "DequantizeLinear");
    CHECK(q[1].inputs[0] == q->outputs[0]);
    if (type == onnx_type::f8_e4m3) {
      CHECK(q->inputs.size() == 2);
      REQUIRE(q->attributes.size() == 1);
      CHECK(q->attributes[0].name == "output_dtype");
      CHECK(std::get<std::int64_t>(q->attributes[0].value) == 17);
      CHECK(opset_of(g.graph()) == 21);
    } else {
      CHECK(initializer(g.graph(), q->inputs[2]).type == type);
      CHECK(initializer(g.graph(), q->inputs[2]).bytes == std::string(1, '\0'));
    }
  }
}

TEST_CASE("onnx: operands of a module without a weight go through its quantizers") {
  struct {
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(module("attention", "attention", slots)); }
  } host;
  mixbit::model<cpu_backend> m{host};
  auto config = nothing_on();
  turn_on(config, "*q_bmm_quantizer", whole(8));
  mixbit::quantize(m, config, [&] {
    auto q = make_weight({3, 4});
    apply(host.slots, q, 0);
  });
  onnx_export g{m, "g"};
  auto const q = g.operand("attention", "q_bmm_quantizer", g.input("q", {3, 4}));
  CHECK(q == "attention.q_bmm_quantizer");
  CHECK(says(error_text(error_id::state_missing, [&] { g.operand("attention", "p", "q"); }), "no quantizer 'p'"));
}

TEST_CASE("onnx: what it has no form for is refused by name") {
  using quantizers = std::vector<std::pair<std::string, quantizer_attribute_config>>;
  auto const refusal = [](error_id id, quantizers const& on) {
    layers l;
    l.quantize(on);
    onnx_export g{*l.m, "g"};
    return error_text(id, [&] { g.linear("fc", g.input("x", {"n", 20})); });
  };
  auto dynamic = whole(8);
  dynamic.type = quantizer_type::dynamic_type;
  auto narrow = whole(8);
  narrow.narrow_range = true;
  auto mx = blocks(bit_spec{2, 1}, {{-1, 32}});
  mx.block_sizes->type = quantizer_type::dynamic_type;
  mx.block_sizes->scale_bits = bit_spec{8, 0};
  error_id const value = error_id::format_value;
  CHECK(says(refusal(value, {{"fc.weight_quantizer", whole(6)}}), "fc.weight_quantizer", "no int6", "8 and 4 bits"));
  CHECK(says(refusal(value, {{"fc.weight_quantizer", mx}}), "fc.weight_quantizer", "no e2m1 mx_nv"));
  CHECK(says(refusal(value, {{"fc.weight_quantizer", blocks(4, {{-1, 4}, {0, 3}})}}), "fc.weight_quantizer",
             "scales of a tensor, an axis or blocks of one axis"));
  CHECK(says(refusal(value, {{"fc.input_quantizer", dynamic}}), "fc.input_quantizer", "make it static"));
  CHECK(says(refusal(value, {{"fc.input_quantizer", narrow}}), "fc.input_quantizer", "narrow range"));
  CHECK(says(refusal(value, {{"fc.input_quantizer", per_axis(8, -1)}}), "fc.input_quantizer", "part of an operand"));
  layers l;
  l.quantize({{"fc.weight_quantizer", whole(8)}, {"fc.input_quantizer", whole(8)}});
  auto const is = [](layers& of, error_id id, auto call) {
    onnx_export g{*of.m, "g"};
    auto const x = g.input("x", {"n", 20});
    return error_text(id, [&] { call(g, x); });
  };
  auto const layer = [](auto& g, auto const& x) { g.linear("fc", x); };
  error_id const missing = error_id::state_missing;
  CHECK(says(is(l, missing, [](auto& g, auto const& x) { g.linear("none", x); }), "none: the model's walk"));
  CHECK(says(is(l, missing, [](auto& g, auto const& x) { g.operand("fc", "q", x); }), "fc: has a weight"));
  CHECK(says(is(l, missing, [](auto& g, auto const& x) {
    g.output("y", x, {"n", 20});
    g.write("/nowhere/g.onnx");
  }), "fc.input_quantizer: is on, but the graph does not have it"));
  auto& recipe = l.fc().slots->shared_site()->quantizers();
  cpu_backend device;
  auto* const weight = recipe.find(quantizer_role::weight);
  auto* const input = recipe.find(quantizer_role::input);
  input->set_pre_quant_scale(device, std::vector<float>(20, 2.0f));
  CHECK(says(is(l, value, layer), "fc.input_quantizer", "no pre_quant_scale; fold it"));
  input->set_pre_quant_scale(device, {});
  input->members().front().set_amax(device, partition{input->members().front().groups()}, {0.0f});
  CHECK(says(is(l, error_id::format_amax, layer), "fc.input_quantizer: its amax is 0"));
  CHECK(weight != nullptr);
  fold_weight(*l.m);
  CHECK(says(is(l, error_id::state_folded, layer), "fc: fold_weight"));
  layers flat{make_weight({4, 2, 3, 3}), "nn.Conv2d", layouts::conv};
  flat.m = std::make_unique<mixbit::model<cpu_backend>>(flat.host);
  CHECK(says(is(flat, error_id::tensor_shape, layer), "fc: its weight is [4,2,3,3]", "rank 2"));
}

TEST_CASE("onnx: groups that are one axis, blocks of an axis, or neither") {
  auto const at = [](std::initializer_list<std::int64_t> shape, std::vector<axis_block> const& b) {
    auto const g = dense_geometry(dtype::f32, shape);
    return onnx_scales_of(g, blocks_of(g, b));
  };
  auto const is = [](std::optional<onnx_scales> const& s, std::optional<int> axis, std::int64_t block) {
    return s && s->axis == axis && s->block == block;
  };
  CHECK(is(at({4, 8}, {{0, {}}, {1, {}}}), std::nullopt, 0));
  CHECK(is(at({4, 8}, {{1, {}}}), 0, 0));
  CHECK(is(at({4, 8}, {{1, 8}}), 0, 0));
  CHECK(is(at({4, 8}, {{1, 4}}), 1, 4));
  CHECK(is(at({4, 9}, {{1, 4}}), 1, 4));
  CHECK(is(at({1, 8}, {{1, 4}}), 1, 4));
  CHECK(is(at({4, 8}, {{0, 2}}), 0, 2));
  CHECK(is(at({4, 3, 8}, {{2, {}}}), 2, 8));
  CHECK_FALSE(at({4, 8}, {{0, 2}, {1, 4}}));
  CHECK_FALSE(at({4, 3, 8}, {{1, {}}, {2, 4}}));
  auto const g = dense_geometry(dtype::f32, {4, 8});
  CHECK_FALSE(onnx_scales_of(g, per_axes(g, std::vector<int>{0, 1})));
}
