#include "mixbit/io/hf_rewritten.hpp"

#include <doctest/doctest.h>

#include "mixbit/model/fold_scales.hpp"
#include "support/error_text.hpp"
#include "support/export_bench.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("hf rewritten: a host's vector is one axis, wherever its elements lie") {
  plain_tensor const row = waves({1, 3}, 0.7f), empty{2, 0};
  auto const flat = detail::hf::as_vector({row.shape, row.values.data()});
  CHECK(flat.same_shape(dense_geometry(dtype::f32, {3})));
  CHECK(flat.data == row.values.data());
  geometry column = dense_geometry(dtype::f32, {3, 1});
  column.stride[0] = 5;
  CHECK(detail::hf::as_vector({column, nullptr}).stride[0] == 5);
  CHECK(hf_rewritten_tensor({}, "norm.weight").data == nullptr);
}

TEST_CASE("hf rewritten: a norm with a scale folded into it comes from the host, in the source's type, or not at all") {
  export_bench b;
  auto norm = make_weight({1, 16}, 5), shift = make_weight({16}, 6);
  auto const old_shift = shift.values;
  b.add("l.q_proj", make_weight({4, 16}, 1));
  b.tensors.emplace_back("l.norm.weight", make_weight({16}, 5));
  b.tensors.emplace_back("l.norm.bias", shift);
  b.quantize([](auto& c) { turn_on(c, "*weight_quantizer", blocks(4, {{-1, 16}})); });
  std::vector<float> s(16, 0.5f), inverse(16, 2.0f);
  s[3] = 0.25f, inverse[3] = 4.0f;
  cpu_backend device;
  for (auto& q : b.m->modules()[0].slots->shared_site()->quantizers().quantizers) {
    if (q.role() == quantizer_role::input) q.set_pre_quant_scale(device, s);
    if (q.role() == quantizer_role::weight) q.set_pre_quant_scale(device, inverse);
  }
  std::vector<preceding_op> const ops{preceding_norm("l.norm", norm, shift, {"l.q_proj"})};
  CHECK(fold_pre_quant_scales(*b.m, ops).folded == 1);
  CHECK(says(error_text(error_id::state_missing, [&] { b.run(); }), "l.norm.", "l.q_proj", "preceding"));
  hf_export_options options;
  options.preceding = {preceding_norm("l.norm", norm, {"l.q_proj"})};  // without the bias
  CHECK(says(error_text(error_id::state_missing, [&] { b.run(options); }), "l.norm.bias"));
  options.preceding = ops;
  b.run(options);
  CHECK(b.file().read_as_float("l.norm.weight") == norm.values);
  auto const bias = b.file().read_as_float("l.norm.bias");
  for (std::size_t i = 0; i < 16; ++i) CHECK(bias[i] == old_shift[i] * s[i]);
  CHECK(b.file().at("l.norm.weight").rank == 1);

  // a source whose norm holds no floats is refused before anything is written
  std::vector<std::int32_t> const whole_numbers(16);
  std::vector<named_tensor> tensors;
  for (auto const& [name, t] : b.tensors) tensors.push_back({name, {t.shape, t.values.data()}});
  tensors[1].tensor = {dense_geometry(dtype::i32, {16}), whole_numbers.data()};
  write_safetensors(b.source() / "model.safetensors", tensors);
  auto const plan = [&] { hf_export<cpu_backend>{*b.m, b.source(), options}; };
  CHECK(says(error_text(error_id::file_content, plan), "l.norm.weight",
             name_of(dtype::i32), "float32, float16 or bfloat16"));
}
