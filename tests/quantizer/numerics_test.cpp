#include "mixbit/quantizer/numerics.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "mixbit/config/presets.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/quantizer/layout.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantizer_numerics interpreted(quantizer_attribute_config const& a) { return interpret(a, policy::stored, "fc.q"); }

std::string refusal(quantizer_attribute_config const& a) {
  return error_text(error_id::format_value, [&] { interpreted(a); });
}

template <class F>
quantizer_attribute_config with(F change) {
  quantizer_attribute_config a;
  change(a);
  return a;
}

}  // namespace

TEST_CASE("numerics: what is not computed is refused, naming quantizer and field") {
  CHECK(says(refusal(with([](auto& a) { a.block_sizes = block_config{{{-1, 16}}, {}, bit_spec{4, 3}}; })), "fc.q: ",
             "block_sizes.scale_bits [4,3]", "int8"));
  CHECK(says(refusal(with([](auto& a) {
               a.bias = bias_config{{-1}};
               a.block_sizes = block_config{{{-1, 16}}};
             })),
             "fc.q: ", "bias", "blocks"));
  CHECK(says(refusal(with([](auto& a) {
               a.rotate = true;
               a.rotate.block_size = 12;
             })),
             "fc.q: ", "rotate.block_size 12"));
  CHECK(says(refusal(with([](auto& a) { a.backend = "own"; })), "fc.q: ", "backend 'own'"));
  CHECK(says(refusal(with([](auto& a) { a.fake_quant = false; })), "fc.q: ", "fake_quant"));
  CHECK(says(refusal(with([](auto& a) { a.num_bits = {4, 1}; })), "fc.q: ", "(4,1)"));
  CHECK(says(refusal(with([](auto& a) { a.num_bits = "posit8"; })), "fc.q: ", "posit8"));
  for (int bits : {1, formats::widest_integer + 1, 300})
    CHECK(says(refusal(with([&](auto& a) { a.num_bits = bits; })), "fc.q: ", "num_bits " + std::to_string(bits)));
}

TEST_CASE("numerics: double quantization is NF4's, of calibrated scales under stored; others are refused by name") {
  auto const nf4 = with([](auto& a) {
    a.num_bits = 4;
    a.block_sizes = block_config{{{-1, 64}}, {}, bit_spec{8}, {{-1, 256}}};
  });
  auto const n = interpreted(nf4);
  CHECK(n.how.element == nf4_element);
  CHECK(n.how.scale_block == 256);
  CHECK(n.how.layout == packing::nibbles_high_first);
  auto const changed = [&](auto change) {
    auto a = nf4;
    change(a);
    return refusal(a);
  };
  CHECK(says(changed([](auto& a) { a.num_bits = 8; }), "fc.q: ", "scale_block_sizes", "int8", "scale_bits 8"));
  CHECK(says(changed([](auto& a) { a.block_sizes->scale_bits = bit_spec{4, 3}; }), "fc.q: ", "int4", "[4,3]"));
  CHECK(says(changed([](auto& a) { a.block_sizes->scale_bits.reset(); }), "fc.q: ", "without scale_bits"));
  CHECK(says(changed([](auto& a) { a.block_sizes->scale_block_sizes.clear(); }), "fc.q: ", "scale_bits 8", "int4"));
  CHECK(says(changed([](auto& a) { a.block_sizes->scale_block_sizes = {{0, 256}}; }), "fc.q: ", "axis -1"));
  CHECK(says(changed([](auto& a) { a.block_sizes->scale_block_sizes = {{-1, {}}}; }), "fc.q: ", "axis -1"));
  CHECK(says(changed([](auto& a) { a.block_sizes->scale_block_sizes = {{-1, std::int64_t{1} << 40}}; }), "fc.q: ",
             "1099511627776"));
  CHECK(says(changed([](auto& a) { a.block_sizes->type = quantizer_type::dynamic_type; }), "fc.q: ", "calibrated"));
  CHECK(says(changed([](auto& a) { a.type = quantizer_type::dynamic_type; }), "fc.q: ", "calibrated"));
  for (policy const p : {policy::modelopt, policy::modelopt_pack})
    CHECK(says(error_text(error_id::format_value, [&] { interpret(nf4, p, "fc.q"); }), "fc.q: ", name_of(p)));
}

TEST_CASE("numerics: element, policy and where amax comes from") {
  auto const int8 = interpreted({});
  CHECK(int8.how.element.bits == 8);
  CHECK(int8.how.numerics == policy::stored);
  CHECK(int8.amax_from == amax_source::calibration);
  CHECK(interpret({}, policy::modelopt, "q").how.numerics == policy::modelopt);
  CHECK(interpreted(with([](auto& a) { a.num_bits = {4, 3}; })).how.element == e4m3_element);
  CHECK(interpreted(with([](auto& a) { a.is_unsigned = true; })).how.element.is_unsigned);
  CHECK(interpreted(with([](auto& a) { a.type = quantizer_type::dynamic_type; })).amax_from == amax_source::data);
  auto const constant = interpreted(with([](auto& a) { a.constant_amax = 3.5; }));
  CHECK(constant.amax_from == amax_source::constant);
  CHECK(constant.constant_amax == 3.5f);
  CHECK(interpreted(with([](auto& a) { a.use_constant_amax = true; })).constant_amax == 448.0f);
  auto const histogram = interpreted(with([](auto& a) { a.calibrator = "histogram"; }));
  CHECK(histogram.calibrator == calibrator_config{"histogram"});
  CHECK_FALSE(histogram.same_calibration(int8));
  CHECK(histogram.same_calibration(interpreted(with([](auto& a) { a.num_bits = 4, a.calibrator = "histogram"; }))));
  for (double const none : {1e300, 1e-60})  // nothing that float32 holds
    CHECK(says(error_text(error_id::format_amax, [&] { interpreted(with([&](auto& a) { a.constant_amax = none; })); }),
               "fc.q: ", "constant_amax"));
  // as in ModelOpt, blocks that alone say dynamic are calibrated (docs/numerics.md)
  auto const rows = with([](auto& a) {
    a.block_sizes = block_config{{{-1, std::nullopt}}, quantizer_type::dynamic_type};
  });
  CHECK(interpreted(rows).amax_from == amax_source::calibration);
}

TEST_CASE("numerics: scales that are themselves quantized") {
  auto const mx = with([](auto& a) {
    a.num_bits = {3, 2};
    a.block_sizes = block_config{{{-1, 32}}, quantizer_type::dynamic_type, bit_spec{8, 0}};
  });
  auto const mxfp6 = interpreted(mx);
  CHECK(mxfp6.how.element == e3m2_element);
  CHECK(mxfp6.how.scaling == scale_rule::mx_nv);
  CHECK(mxfp6.how.scale_type == dtype::f8_e8m0);
  CHECK(mxfp6.groups_from_data);
  CHECK(mxfp6.amax_from == amax_source::data);
  CHECK(interpret(mx, {policy::stored, scale_rule::mx_ocp}, "q").how.scaling == scale_rule::mx_ocp);
  for (element_type const& e : minifloat_elements) {  // a config can name each that there is
    auto named = mx;
    named.num_bits = {e.exponent_bits, e.mantissa_bits};
    named.validate("fc.q");
    CHECK(interpreted(named).how.element == e);
  }
  auto nvfp4 = with([](auto& a) {
    a.num_bits = {2, 1};
    a.block_sizes = block_config{{{-1, 16}}, quantizer_type::dynamic_type, bit_spec{4, 3}};
  });
  auto const dynamic = interpreted(nvfp4);
  CHECK(dynamic.how.scaling == scale_rule::two_level);
  CHECK(dynamic.groups_from_data);
  CHECK(dynamic.amax_from == amax_source::calibration);  // of the tensor
  CHECK(dynamic.calibrated().what == grouping_scheme::kind::tensor);
  nvfp4.block_sizes->type = quantizer_type::static_type;
  nvfp4.block_sizes->four_over_six = true;
  auto const fixed = interpreted(nvfp4);
  CHECK(fixed.how.scaling == scale_rule::four_over_six);
  CHECK_FALSE(fixed.groups_from_data);
  CHECK(fixed.calibrated() == fixed.grouping);
}

TEST_CASE("numerics: groups follow axes and blocks, and errors name the quantizer") {
  geometry const g = dense_geometry(dtype::f32, {6, 10});
  CHECK(interpreted({}).groups_of(g, "q").group_count() == 1);
  CHECK(interpreted(with([](auto& a) { a.axis = 0; })).groups_of(g, "q").group_count() == 6);
  CHECK(interpreted(with([](auto& a) { a.axis = -1; })).groups_of(g, "q").group_count() == 10);
  auto const blocks = interpreted(with([](auto& a) { a.block_sizes = block_config{{{-1, 4}, {-2, 4}}}; }));
  CHECK(blocks.groups_of(g, "q").group_count() == 6);  // 2 x 3, ragged at both ends
  auto const text = error_text(error_id::format_value, [&] {
    interpreted(with([](auto& a) { a.axis = 2; })).groups_of(g, "fc.input_quantizer");
  });
  CHECK(says(text, "fc.input_quantizer: ", "axis 2", "rank 2"));
}

TEST_CASE("numerics: blocks along an axis that the format does not take are refused with quantizer, axis and shape") {
  geometry const g = dense_geometry(dtype::f32, {64, 64});
  auto const blocks = [](bit_spec bits, bit_spec scales, quantizer_type type, std::vector<axis_block> axes) {
    return interpreted(with([&](auto& a) {
      a.num_bits = bits;
      a.block_sizes = block_config{std::move(axes), type, scales};
      if (bits.is_integer()) a.block_sizes->scale_block_sizes = {{-1, 16}};
    }));
  };
  auto const dynamic = quantizer_type::dynamic_type, fixed = quantizer_type::static_type;
  for (auto const& n : {blocks({4, 3}, {8, 0}, dynamic, {{0, 32}}), blocks({2, 1}, {4, 3}, dynamic, {{-2, 16}}),
                        blocks({2, 1}, {4, 3}, fixed, {{-1, 16}, {0, 16}}), blocks(4, 8, fixed, {{0, 64}})}) {
    auto const text = error_text(error_id::format_value, [&] { (void)n.groups_of(g, "fc.q"); });
    CHECK(says(text, "fc.q: ", "block_sizes[", "last axis", "[64,64]"));
  }
  CHECK(blocks({4, 3}, {8, 0}, dynamic, {{1, 32}}).groups_of(g, "fc.q").group_count() == 128);
}

TEST_CASE("numerics: INT4 blocks of 128 along the width of a 3x3 kernel take 9.33 bits, and are said to (rule 5)") {
  auto const entries = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG").entries;
  auto const weight = std::find_if(entries.begin(), entries.end(), [](auto const& e) { return e.cfg.has_value(); });
  auto const int4 = interpreted(weight->cfg->front());
  geometry const kernel = dense_geometry(dtype::f32, {16, 8, 3, 3});
  partition const groups = int4.groups_of(kernel, "conv.weight_quantizer");
  CHECK(groups.block[3] == 3);
  CHECK(groups.group_count() == 16 * 8 * 3);
  auto const bits_with = [&](dtype scale) {
    format how = int4.how;
    how.scale_type = scale;
    return static_cast<double>(storage_size_of(how, kernel, groups).bits()) / static_cast<double>(kernel.size());
  };
  CHECK(bits_with(dtype::f16) == doctest::Approx(4.0 + 16.0 / 3.0));
  CHECK(bits_with(dtype::f32) == doctest::Approx(4.0 + 32.0 / 3.0));
  geometry const linear = dense_geometry(dtype::f32, {16, 1152});
  CHECK(storage_size_of(int4.how, linear, int4.groups_of(linear, "q")).bits() == 16 * 1152 * 4 + 16 * 9 * 32);
}

TEST_CASE("numerics: a flattened layout blocks a kernel along all of in x height x width (rule 5)") {
  geometry const kernel = dense_geometry(dtype::f32, {16, 128, 3, 3});
  auto const flat = weight_view(layouts::conv.flattened(), const_tensor_ref{kernel, nullptr});
  CHECK(to_string(flat) == "[16,1152]");
  CHECK(flat.stride[0] == 1152);
  CHECK(flat.stride[1] == 1);
  auto const entries = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG").entries;
  auto const weight = std::find_if(entries.begin(), entries.end(), [](auto const& e) { return e.cfg.has_value(); });
  auto const int4 = interpreted(weight->cfg->front());
  partition const groups = int4.groups_of(flat, "conv.weight_quantizer");
  CHECK(groups.group_count() == 16 * 9);
  CHECK(storage_size_of(int4.how, flat, groups).bits() == 16 * 1152 * 4 + 16 * 9 * 32);  // 4.25 bits a weight
  CHECK(to_string(weight_view(layouts::conv, const_tensor_ref{kernel, nullptr})) == "[16,128,3,3]");
  geometry const hwio = dense_geometry(dtype::f32, {3, 3, 128, 16});
  auto const refused = [&] { weight_view(layouts::conv_nhwc_hwio.flattened(), const_tensor_ref{hwio, nullptr}); };
  CHECK(says(error_text(error_id::tensor_layout, refused), "[16,128,3,3]", "flattened"));
}

TEST_CASE("numerics: flattening does not look at the strides of axes of size 1") {
  struct {
    std::initializer_list<std::int64_t> shape;
    std::int64_t size, step;
  } const cases[] = {{{4, 6, 1, 5}, 30, 1}, {{4, 6, 5, 1}, 30, 1}, {{4, 1, 6, 5}, 30, 1},
                     {{4, 1, 1, 6}, 6, 1},  {{4, 6, 1, 1}, 6, 1},  {{1, 6, 5, 1}, 30, 1}};
  for (auto const& c : cases) {
    geometry kernel = dense_geometry(dtype::f32, c.shape);
    for (int a = 0; a < kernel.rank; ++a)
      if (kernel.shape[a] == 1) kernel.stride[a] = 0;  // as xtensor has it
    auto const flat = weight_view(layouts::conv.flattened(), const_tensor_ref{kernel, nullptr});
    CAPTURE(to_string(kernel));
    CHECK(flat.rank == 2);
    CHECK(flat.shape[1] == c.size);
    CHECK(flat.stride[1] == c.step);
    CHECK(flat.size() == kernel.size());
    CHECK(flat.stride[0] == kernel.stride[0]);
  }
  geometry gap = dense_geometry(dtype::f32, {4, 6, 1, 5});
  gap.stride[1] = 10;  // rows of 5 with 5 between them
  CHECK(says(error_text(error_id::tensor_layout,
                        [&] { weight_view(layouts::conv.flattened(), const_tensor_ref{gap, nullptr}); }),
             "[4,6,1,5]", "axis 1"));
}
