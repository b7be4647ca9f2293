#include "mixbit/quantizer/apply.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <type_traits>

#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Two kinds of tensor that share their elements, as a framework and its extension may.
template <int Kind>
struct shared_matrix {
  std::shared_ptr<matrix> elements;
};

}  // namespace

template <int Kind>
struct mixbit::tensor_traits<shared_matrix<Kind>> {
  static const_tensor_ref view(shared_matrix<Kind> const& m) { return read_view(*m.elements); }
  static tensor_ref view(shared_matrix<Kind>& m) { return write_view(*m.elements); }
  static shared_matrix<Kind> like(shared_matrix<Kind> const& m) { return {std::make_shared<matrix>(*m.elements)}; }
};

namespace {

matrix const batch = random_matrix(6, 32, 7);

model<cpu_backend> quantized(small_network& net, char const* preset_name) {
  model<cpu_backend> m{net};
  quantize(m, preset(preset_name), [&] { net.forward(batch); });
  return m;
}

}  // namespace

TEST_CASE("apply: with quantizers off it is the op, bit for bit, before and after a model exists") {
  small_network net;
  matrix const hidden = batch * net.first.weight.transpose();
  matrix const direct = hidden * net.second.weight.transpose();
  CHECK(same_bits(net.forward(batch), direct));
  model<cpu_backend> m{net};
  m.modules();
  CHECK(same_bits(net.forward(batch), direct));
  CHECK_FALSE(net.first.slots.live());
}

TEST_CASE("apply: with quantizers on it is the op on operands quantized by hand") {
  small_network net;
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  auto& q = site_of(net.first).quantizers();
  matrix const x = by_hand(*q.find(quantizer_role::input), batch);
  matrix const w = by_hand(*q.find(quantizer_role::weight), net.first.weight);
  CHECK_FALSE(same_bits(x, batch));
  CHECK_FALSE(same_bits(w, net.first.weight));
  CHECK(same_bits(net.first.forward(batch), matrix(x * w.transpose())));
}

TEST_CASE("apply: the op gets one operand type, off and on (rule 1)") {
  small_network net;
  auto const op = [](auto const& x, auto const& w) -> matrix {
    static_assert(std::is_same_v<decltype(x), operand_t<matrix> const&>);
    static_assert(std::is_same_v<decltype(w), operand_t<matrix> const&>);
    return x * w.transpose();
  };
  matrix const off = apply(net.first.slots, batch, net.first.weight, op);
  auto m = quantized(net, "INT8_WEIGHT_ONLY_CFG");
  CHECK_FALSE(same_bits(off, apply(net.first.slots, batch, net.first.weight, op)));
}

TEST_CASE("apply: the op is told result first and trial afterwards, and layers see in_trial (rule 6)") {
  small_network net;
  std::vector<pass> seen;
  std::vector<bool> in_trial;
  auto const op = [&](auto const& x, auto const& w, pass p) -> matrix {
    seen.push_back(p);
    in_trial.push_back(net.first.slots.in_trial());
    return x * w.transpose();
  };
  auto m = quantized(net, "INT8_WEIGHT_ONLY_CFG");
  apply(net.first.slots, batch, net.first.weight, op);
  REQUIRE(seen.size() > 1);  // the layout probe follows the first result
  CHECK(seen[0] == pass::result);
  CHECK_FALSE(in_trial[0]);
  for (std::size_t i = 1; i < seen.size(); ++i) {
    CHECK(seen[i] == pass::trial);
    CHECK(in_trial[i]);
  }
  seen.clear();
  apply(net.first.slots, batch, net.first.weight, op);
  CHECK(seen.size() == 1);
  CHECK_FALSE(net.first.slots.in_trial());
}

TEST_CASE("apply: a result over scratch memory is refused, and nothing stays behind (rule 2)") {
  using map = Eigen::Map<matrix>;
  small_network net;
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  auto const lazy = [](auto const& x, auto const&) -> map {
    return map{const_cast<float*>(x.data()), x.rows(), x.cols()};
  };
  auto const text = error_text(error_id::tensor_alias, [&] { apply(net.first.slots, batch, net.first.weight, lazy); });
  CHECK(says(text, "first", "scratch", "own"));
  CHECK(m.scratch().scratch.used() == 0);
  CHECK(net.forward(batch).rows() == 6);
}

TEST_CASE("apply: temporaries that own data are operands (rule 3)") {
  small_network net;
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  matrix const direct = net.first.forward(batch);
  CHECK(same_bits(direct, apply(net.first.slots, matrix(batch), net.first.weight, linear_layer::product())));
}

TEST_CASE("apply: the host's weights and inputs are never written (rule 8)") {
  small_network net;
  matrix const weight = net.first.weight, x = batch;
  auto m = quantized(net, "INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  net.forward(batch);
  net.backward(random_matrix(6, 8, 3));
  CHECK(same_bits(weight, net.first.weight));
  CHECK(same_bits(x, batch));
}

TEST_CASE("apply: an op that throws leaves the site and the scratch memory as they were (rule 11)") {
  small_network net;
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  matrix const before = net.forward(batch);
  auto const broken = [](auto const&, auto const&) -> matrix { throw std::runtime_error{"op"}; };
  CHECK_THROWS_WITH(apply(net.first.slots, batch, net.first.weight, broken), "op");
  CHECK(m.scratch().scratch.used() == 0);
  CHECK_FALSE(net.first.slots.in_trial());
  CHECK(same_bits(before, net.forward(batch)));
}

TEST_CASE("apply: a layer may call apply of another layer inside its op (rule 10)") {
  small_network net;
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  matrix const plain = net.second.forward(net.first.forward(batch));
  matrix inner;
  apply(net.first.slots, batch, net.first.weight, [&](auto const& x, auto const& w) -> matrix {
    matrix const y = x * w.transpose();
    inner = net.second.forward(y);
    return y;
  });
  CHECK(same_bits(plain, inner));
}

TEST_CASE("apply_into: writes into the host's tensor; trials do not") {
  small_network net;
  matrix y = matrix::Zero(6, 24);
  auto const op = [](auto const& x, auto const& w, auto&& out) { out.noalias() = x * w.transpose(); };
  apply_into(net.first.slots, batch, net.first.weight, y, op);
  CHECK(same_bits(y, matrix(batch * net.first.weight.transpose())));
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  matrix const expected = net.first.forward(batch);
  for (int i = 0; i < 2; ++i) {
    y.setZero();
    apply_into(net.first.slots, batch, net.first.weight, y, op);
    CHECK(same_bits(y, expected));
  }
}

TEST_CASE("slots: moving keeps the site, as when a vector of layers grows (rule 9)") {
  std::vector<linear_layer> layers(1);
  layers[0].weight = random_matrix(24, 32, 1);
  struct host {
    std::vector<linear_layer>& layers;
    void walk(module_visitor<cpu_backend> const& visit) { visit(linear("0", layers[0].slots, layers[0].weight)); }
  } h{layers};
  model<cpu_backend> m{h};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { layers[0].forward(batch); });
  matrix const before = layers[0].forward(batch);
  auto const* const site = layers[0].slots.shared_site().get();
  layers.resize(100);
  CHECK(layers[0].slots.shared_site().get() == site);
  CHECK(same_bits(before, layers[0].forward(batch)));
  static_assert(!std::is_copy_constructible_v<quantizer_slots<cpu_backend>>);
  static_assert(sizeof(quantizer_slots<cpu_backend>) == 16);
}

TEST_CASE("slots: a cached weight is used until it changes, moves, or another recipe runs (rule 8)") {
  small_network net;
  auto m = quantized(net, "INT8_WEIGHT_ONLY_CFG");
  matrix const fresh = net.first.forward(batch);
  net.first.slots.cache_weight(true);
  CHECK(same_bits(fresh, net.first.forward(batch)));
  net.first.weight *= 0.5f;
  CHECK(same_bits(fresh, net.first.forward(batch)));  // the host has not said that it changed
  net.first.slots.weight_changed();
  matrix const halved = net.first.forward(batch);
  CHECK_FALSE(same_bits(fresh, halved));
  matrix const elsewhere = net.first.weight * 2.0f;
  CHECK(same_bits(fresh, apply(net.first.slots, batch, elsewhere, linear_layer::product())));
  disable_quantizer(m, "first.weight_quantizer");
  enable_quantizer(m, "first.weight_quantizer");
  CHECK(same_bits(halved, net.first.forward(batch)));
}

TEST_CASE("lend: hands out the operands of the forward, raw where nothing is quantized") {
  small_network net;
  matrix xq, wq;
  auto const keep = [&](auto const& x, auto const& w) { xq = x, wq = w; };
  lend(net.first.slots, batch, net.first.weight, keep);
  CHECK(same_bits(xq, batch));
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  lend(net.first.slots, batch, net.first.weight, keep);
  CHECK(same_bits(net.first.forward(batch), matrix(xq * wq.transpose())));
  CHECK_FALSE(same_bits(xq, batch));
}

TEST_CASE("backward: straight-through by default, masked where pass_through_bwd is false") {
  small_network net;
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  quantizer_attribute_config clipped;
  clipped.pass_through_bwd = false;
  set_quantizer_attributes(m, "first.*put_quantizer", clipped);
  disable_quantizer(m, "first.output_quantizer");
  auto& input = *site_of(net.first).quantizers().find(quantizer_role::input);
  cpu_backend cpu;
  input.members()[0].set_amax(cpu, per_tensor(read_view(batch)), {0.5f});
  matrix gradient = matrix::Ones(6, 32);
  input_backward(net.first.slots, batch, gradient);
  for (Eigen::Index i = 0; i < batch.size(); ++i)
    CHECK(gradient.data()[i] == (std::abs(batch.data()[i]) > 0.5f ? 0.0f : 1.0f));
  matrix through = matrix::Ones(24, 32);
  weight_backward(net.first.slots, net.first.weight, through);
  CHECK(same_bits(through, matrix(matrix::Ones(24, 32))));
  matrix wrong = matrix::Ones(3, 3);
  CHECK(says(error_text(error_id::tensor_shape, [&] { input_backward(net.first.slots, batch, wrong); }), "first",
             "[3,3]"));
}

TEST_CASE("apply: within another layer's trial an op is told trial, quantized, not, or without a model (rule 6)") {
  small_network net;
  linear_layer bare;
  bare.weight = random_matrix(4, 24, 5);
  auto m = quantized(net, "INT8_DEFAULT_CFG");
  SUBCASE("on") {}
  SUBCASE("off") { disable_quantizer(m, "second.*"); }
  int told[2] = {0, 0};
  auto const op = [&](auto const& x, auto const& w, pass outer) -> matrix {
    auto const inner = [&](auto const& a, auto const& b, pass p) -> matrix {
      CHECK(p == outer);
      CHECK(bare.slots.in_trial() == (p == pass::trial));
      ++told[static_cast<int>(p)];
      return a * b.transpose();
    };
    matrix const y = x * w.transpose();
    apply(net.second.slots, y, net.second.weight, inner);
    apply(bare.slots, y, bare.weight, inner);
    matrix out(6, 4);
    apply_into(bare.slots, y, bare.weight, out, [&](auto const& a, auto const& b, auto&& into, pass p) {
      into = inner(a, b, p);
    });
    return y;
  };
  site_of(net.first).probed = false;  // its probe runs trials
  apply(net.first.slots, batch, net.first.weight, op);
  CHECK(told[0] == 3);
  CHECK(told[1] >= 3);
  lend(net.first.slots, batch, net.first.weight, [&](auto const&, auto const&) { CHECK_FALSE(bare.slots.in_trial()); });
}

TEST_CASE("slots: a cached weight is not used for a view with other strides, or for another type of tensor") {
  using rows = Eigen::Map<matrix const>;
  using columns = Eigen::Map<Eigen::MatrixXf const>;
  small_network net;
  net.second.weight = random_matrix(24, 24, 5);
  auto m = quantized(net, "INT8_WEIGHT_ONLY_CFG");
  auto& slots = net.second.slots;
  matrix const x = random_matrix(3, 24, 6);
  float const* const data = net.second.weight.data();
  auto const as_columns = [&] { return apply(slots, x, columns{data, 24, 24}, linear_layer::product()); };
  matrix const fresh = as_columns();
  slots.cache_weight(true);
  matrix const by_rows = apply(slots, x, rows{data, 24, 24}, linear_layer::product());
  CHECK(same_bits(fresh, as_columns()));
  CHECK_FALSE(same_bits(fresh, by_rows));

  auto const elements = std::make_shared<matrix>(net.second.weight);
  auto const op = [](auto const& a, auto const& w) -> matrix { return a * w.elements->transpose(); };
  apply(slots, x, shared_matrix<0>{elements}, op);
  std::shared_ptr<void> const first = site_of(net.second).cache.holder;
  matrix const y = apply(slots, x, shared_matrix<1>{elements}, op);
  CHECK(site_of(net.second).cache.holder != first);
  CHECK(same_bits(y, by_rows));
}

TEST_CASE("apply: what a layer's tensors cannot be is said with the layer's name") {
  using wide = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  struct host {
    matrix weight = random_matrix(8, 32, 1);
    site_layout layout;
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(linear("fc", slots, weight, layout)); }
  } h;
  model<cpu_backend> m{h};
  auto const narrow = [](wide const& x, matrix const& w) -> matrix { return x.cast<float>() * w.transpose(); };
  auto const forward = [&] { apply(h.slots, wide(batch.cast<double>()), h.weight, narrow); };
  auto const calibrated = [&] { quantize(m, preset("INT8_DEFAULT_CFG"), forward); };
  CHECK(says(error_text(error_id::tensor_dtype, calibrated), "fc: ", "float64"));
  quantize(m, preset("FP8_PER_CHANNEL_PER_TOKEN_CFG"));
  CHECK(says(error_text(error_id::tensor_dtype, forward), "fc.input_quantizer: ", "float64"));
  struct wide_host {
    wide weight = wide::Ones(8, 32);
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(linear("wide", slots, weight)); }
  } w;
  model<cpu_backend> n{w};
  CHECK(says(error_text(error_id::tensor_dtype, [&] { quantize(n, preset("INT8_WEIGHT_ONLY_CFG")); }),
             "wide.weight_quantizer: ", "float64"));
  h.layout.input = {0, 2, 1};
  m.modules();
  CHECK(says(error_text(error_id::tensor_layout, [&] { h.slots.shared_site()->probed = false; forward(); }), "fc: ",
             "{0,2,1}"));
  h.layout.weight = {2, 0, 1};
  CHECK(says(error_text(error_id::tensor_layout, [&] { quantize(m, preset("INT8_WEIGHT_ONLY_CFG")); }), "fc: ",
             "{2,0,1}"));
}

TEST_CASE("apply: one tensor of a module that has no quantizers yet is refused by name, inside a pass too") {
  struct host {
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(module("norm", "attention", slots)); }
  } h;
  model<cpu_backend> m{h};
  max_calibration<cpu_backend> const pass{sites_of(m.modules())};
  matrix x = batch;
  CHECK(says(error_text(error_id::state_missing, [&] { apply(h.slots, x, 0); }), "norm", "quantizer 0", "has 0"));
}
