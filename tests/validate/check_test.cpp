// The reference conforms to itself, in every format, policy and type; and what the entries refuse.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "mixbit/reference/scalar.hpp"
#include "mixbit/validate/check.hpp"
#include "mixbit/validate/json.hpp"
#include "mixbit/validate/text.hpp"
#include "support/error_text.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;
namespace v = mixbit::validate;

reference::scalar cpu;
format const int8{integer_element(8)};

partition rows(geometry const& g) {
  int const kept[] = {0};
  return per_axes(g, kept);
}
auto blocks(std::int64_t size) {
  return [size](geometry const& g) { return blocks_of(g, std::vector<axis_block>{{-1, size}}); };
}

std::vector<format> formats_to_try() {
  format const nvfp4{e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
  std::vector<format> all{int8, {e4m3_element}, {e5m2_element}, {integer_element(4, true)}, nvfp4,
                          {nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first},
                          {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs},
                          {integer_element(3), policy::stored, dtype::f16, packing::dense_rows},
                          {integer_element(16)}, {e3m2_element, policy::stored, dtype::f32, packing::dense_rows}};
  for (scale_rule rule : {scale_rule::mx_nv, scale_rule::mx_ocp})
    for (element_type e : {e2m1_element, e4m3_element, integer_element(8)})
      all.push_back({e, policy::stored, dtype::f8_e8m0, e.bits < 8 ? packing::dense_rows : packing::bytes, rule});
  all.push_back(nvfp4);
  all.back().scaling = scale_rule::four_over_six;
  return all;
}

bool exists(format const& how) {
  try {
    check_format(how, "");
    return true;
  } catch (error const&) {
    return false;
  }
}

bool conforms(v::report const& r) {
  if (!r.conformant()) MESSAGE(v::to_text(r));
  return r.conformant() && r.elements > 1000;
}

TEST_CASE("validate: the reference conforms to itself in every format, policy and type") {
  for (format how : formats_to_try())
    for (policy p : {policy::stored, policy::modelopt, policy::modelopt_pack})
      for (dtype t : {dtype::f32, dtype::f16, dtype::bf16}) {
        how.numerics = p;
        if (!exists(how) || (t != dtype::f32 && how.element.bits == 3)) continue;  // scales of f16 overflow in bf16
        CAPTURE(name_of(how));
        auto const b = blocks(is_two_level(how.scaling) ? 16 : 32);
        auto const fake = [](fake_quantize_args const& a) { cpu.fake_quantize(a); };
        CHECK(conforms(v::check_fake_quantize(cpu, fake, how, b, t)));
        if (p == policy::modelopt) continue;
        CHECK(conforms(v::check_encode(cpu, [](encode_args const& a) { cpu.encode(a); }, how, b, t)));
        CHECK(conforms(v::check_decode(cpu, [](decode_args const& a) { cpu.decode(a); }, how, b, t)));
      }
}

TEST_CASE("validate: ties are among the inputs") {
  geometry const g = dense_geometry(dtype::f32, {8, 128});
  auto const all = v::make_vectors(int8, g, rows(g));
  CHECK(all.size() == v::theme_count);
  int ties = 0, nan = 0, infinite = 0, subnormal = 0, minus_zero = 0;
  for (auto const& one : all)
    for (float x : one.x) {
      nan += fp::is_nan(x);
      infinite += fp::bits(fp::abs(x)) == 0x7f800000u;
      subnormal += x != 0.0f && fp::abs(x) < 0x1p-126f;
      minus_zero += fp::bits(x) == 0x80000000u;
    }
  for (int r = 0; r < 8; ++r) {  // of the first input, row 0 has ties
    float const amax = v::amax_of(all[0].x, v::group_numbers(g, rows(g)), 8, false)[0], s = amax / 127.0f;
    for (int c = 0; c < 128; ++c) {
      float const q = fp::abs(all[0].x[static_cast<std::size_t>(c)]) / s;
      ties += q - static_cast<float>(static_cast<int>(q)) == 0.5f;
    }
  }
  CHECK(ties > 100);
  CHECK(nan > 50);
  CHECK(infinite > 50);
  CHECK(subnormal > 50);
  CHECK(minus_zero > 50);
}

TEST_CASE("validate: views of any strides, and of the other types") {
  std::vector<float> x{0.5f, 9.0f, -1.0f, 9.0f, 0.3f, 9.0f, 0.7f, 9.0f}, y(8);
  const_tensor_ref xv = dense_view(static_cast<float const*>(x.data()), {2, 2});
  xv.stride = {2, 4};  // column-major, every other element
  tensor_ref yv = dense_view(y.data(), {2, 2});
  std::vector<float> const amax{1.0f};
  cpu.fake_quantize({xv, yv, per_tensor(xv), amax.data(), int8});
  CHECK(v::compare_fake_quantize(cpu, xv, yv, int8, per_tensor(xv)).conformant());
  y[3] += 0.25f;
  auto const r = v::compare_fake_quantize(cpu, xv, yv, int8, per_tensor(xv));
  CHECK(r.values->differing == 1);
  CHECK(r.first->index[0] == 1);
  CHECK(r.first->index[1] == 1);
  CHECK(r.first->block.size() == 4);
  CHECK(r.first->block[r.first->at].x == 0.7f);
}

TEST_CASE("validate: codes one number an element, in any integer type") {
  std::vector<float> const x{0.6f, -1.0f, 0.25f, 1.0f};
  format const how{integer_element(4), policy::stored, dtype::f32, packing::dense_rows};
  std::vector<std::int32_t> codes{4, -7, 2, 7};
  auto const view = dense_view(x.data(), {4});
  auto const found = [&] { return dense_view(static_cast<std::int32_t const*>(codes.data()), {4}); };
  auto const report = [&] {
    return v::compare_codes(cpu, view, found(), std::nullopt, std::nullopt, how, per_tensor(view));
  };
  CHECK(report().conformant());
  codes[2] = 1;
  CHECK(report().codes->steps.at(-1) == 1);
  codes[2] = 2;
  for (auto& c : codes) c += 8;
  CHECK(report().hypotheses.front().text.find("offset of 8") != std::string::npos);
}

TEST_CASE("validate: codes and scales that cannot be those of the format") {
  std::vector<float> const x(64, 1.0f), scales(3, 1.0f);
  std::vector<std::uint8_t> const codes(31);
  auto const view = dense_view(x.data(), {2, 32});
  format const how{integer_element(4), policy::stored, dtype::f32, packing::dense_rows};
  auto const r = v::compare_codes(cpu, view, dense_view(codes.data(), {31}), dense_view(scales.data(), {3}),
                                  std::nullopt, how, rows(view));
  CHECK(!r.conformant());
  CHECK(r.codes_unreadable);
  CHECK(r.scales_miscounted);
  CHECK(v::to_text(r).find("another number of bytes") != std::string::npos);
  CHECK(v::to_json(r)["codes"]["readable"] == false);
}

TEST_CASE("validate: tensors of different ranks are compared in one report") {
  std::vector<float> const x{0.6f, -1.0f, 0.25f, 1.0f, 0.1f, 0.7f};
  auto const matrix = dense_view(x.data(), {2, 3}), vector = dense_view(x.data(), {6});
  auto const compared = [&](bool quantizes) {
    std::vector<v::sample> samples;
    for (auto const& view : {matrix, vector}) {
      std::vector<float> values = x;
      std::vector<float> const amax{1.0f};
      tensor_ref const y{{view}, values.data()};
      if (quantizes) cpu.fake_quantize({view, y, per_tensor(view), amax.data(), int8});
      samples.push_back(v::make_sample(cpu, v::results{view, y}, {int8, per_tensor(view)}, to_string(view)));
    }
    return v::compare(cpu, samples, int8);
  };
  CHECK(compared(true).conformant());
  CHECK(!compared(false).conformant());
}

TEST_CASE("validate: what cannot be compared is refused by name") {
  std::vector<float> const x{1.0f, -2.0f}, bad{-1.0f}, two{1.0f, 1.0f};
  std::vector<half> const h(2);
  auto const view = dense_view(x.data(), {2});
  auto const whole = per_tensor(view);
  auto const text = [&](error_id id, auto&& call) { return error_text(id, call); };
  CHECK(says(text(error_id::tensor_shape,
                  [&] { v::compare_fake_quantize(cpu, view, dense_view(x.data(), {1}), int8, whole); }),
             "float32 [1]", "float32 [2]"));
  CHECK(says(text(error_id::tensor_shape,
                  [&] { v::compare_fake_quantize(cpu, view, dense_view(h.data(), {2}), int8, whole); }),
             "float16 [2]"));
  CHECK(says(text(error_id::format_amax, [&] { v::compare_fake_quantize(cpu, view, view, int8, whole, bad); }),
             "amax[0] is -1"));
  CHECK(says(text(error_id::tensor_shape, [&] { v::compare_fake_quantize(cpu, view, view, int8, whole, two); }),
             "2 values of amax for 1 groups"));
  CHECK(says(text(error_id::format_unsigned,
                  [&] { v::compare_fake_quantize(cpu, view, view, {integer_element(8, true)}, whole); }),
             "1 negative value (down to -2)"));
  CHECK(says(text(error_id::usage, [&] { v::compare(cpu, v::results{view}, {int8, whole}); }), "neither an output"));
  CHECK(says(text(error_id::tensor_shape,
                  [&] { v::compare_fake_quantize(cpu, view, view, int8, rows(dense_geometry(dtype::f32, {2, 2}))); }),
             "groups of rank 2"));
  CHECK(says(text(error_id::tensor_dtype,
                  [&] {
                    v::compare_codes(cpu, view, view, std::nullopt, std::nullopt, int8, whole);
                  }),
             "codes are float32"));
  std::int64_t const wide[] = {1};
  CHECK(says(text(error_id::tensor_dtype,
                  [&] {
                    v::compare(cpu, v::results{view, view, std::nullopt, dense_view(wide, {1})}, {int8, whole});
                  }),
             "scales are int64"));
}

TEST_CASE("validate: a report as JSON") {
  std::vector<float> const x{0.5f, -1.0f}, y{0.5f, NAN};
  auto const view = dense_view(x.data(), {2});
  auto const r = v::compare_fake_quantize(cpu, view, dense_view(y.data(), {2}), int8, per_tensor(view));
  auto const j = v::to_json(r);
  CHECK(j["conformant"] == false);
  CHECK(j["output"]["nan_made"] == 1);
  CHECK(j["output"]["differing"] == 2);
  CHECK(j["first_difference"]["index"] == json_document::array({0}));
  CHECK(j["first_difference"]["block"][1]["found"] == "nan");
  CHECK(j["hypotheses"].back()["differs_by"] == "as claimed");
  CHECK(parse_json_strict(j.dump(), "it", error_id::file_format) == j);
}

TEST_CASE("validate: ulps are steps of the tensor's type") {
  v::value_differences d;
  v::add_difference(d, 1.0f, 1.0f + 0x1p-10f, dtype::f16);
  CHECK(d.largest_ulps == 1);
  v::add_difference(d, 1.0f, 1.0f + 0x1p-10f, dtype::f32);
  CHECK(d.largest_ulps == 8192);
  CHECK(d.ulps.at(0) == 1);
  CHECK(d.ulps.at(13) == 1);
  v::add_difference(d, -0x1p-149f, 0x1p-149f, dtype::f32);
  CHECK(d.ulps.at(1) == 1);
  v::add_difference(d, 0.0f, -0.0f, dtype::f32);
  CHECK(d.zero_signs == 1);
  v::add_difference(d, NAN, fp::from_bits(0xffc00001u), dtype::f32);
  CHECK(d.differing == 4);
}

}  // namespace
