#include "mixbit/formats/check.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "mixbit/formats/describe.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/format_data.hpp"

using namespace mixbit;

namespace {
/// The message of the error that f throws with this id; empty where it does not.
template <class F>
std::string refused(error_id id, F f) {
  try {
    f();
  } catch (error const& e) {
    if (e.id() == id) return std::string{e.message()};
  }
  return {};
}
bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }
std::string format_refused(format const& how) {
  return refused(error_id::format_value, [&] { check_encodable(how, "q.weight_quantizer"); });
}
}  // namespace

TEST_CASE("formats that do not exist are refused with quantizer, field and value") {
  auto const one_bit = format_refused({integer_element(1)});
  CHECK(has(one_bit, "q.weight_quantizer: num_bits 1"));
  CHECK(has(one_bit, "signed"));
  CHECK(has(format_refused({integer_element(25)}), "num_bits 25"));
  CHECK(has(format_refused({integer_element(24, true)}), "num_bits 24"));
  CHECK(has(format_refused({integer_element(0, true)}), "num_bits 0"));
  CHECK(has(format_refused({integer_element(12)}), "num_bits 12"));
  CHECK(has(format_refused({minifloat_element(4, 1)}), "(4,1) is none of the minifloats (4,3), (5,2)"));
  CHECK(has(format_refused({{}, policy::stored, dtype::i8}), "int8"));
  CHECK(has(format_refused({integer_element(6), policy::modelopt_pack}), "int6"));
  CHECK(
      has(format_refused({integer_element(8), policy::stored, dtype::f32, packing::nibbles_row_pairs}), "num_bits 8"));
  CHECK(has(format_refused({integer_element(4, true), policy::stored, dtype::f32, packing::nibbles_high_first}),
            "uint4"));
  CHECK_NOTHROW(check_format({integer_element(24)}, "q"));
  CHECK_NOTHROW(check_encodable({integer_element(1, true)}, "q"));
  CHECK_NOTHROW(check_encodable({e4m3_element, policy::modelopt_pack, dtype::bf16}, "q"));
}

TEST_CASE("an amax that is negative, NaN or infinite names the quantizer and the index") {
  for (float const bad :
       {-1.0f, -1e-30f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    float const amax[] = {1.0f, bad};
    CHECK(has(refused(error_id::format_amax, [&] { check_amax(amax, {}, dtype::f32, "k.input_quantizer"); }),
              "k.input_quantizer: amax[1]"));
  }
  float const good[] = {0.0f, -0.0f, 3e38f};
  CHECK_NOTHROW(check_amax(good, {}, dtype::f32, "q"));
}

TEST_CASE("a scale that overflows float16 is refused") {
  float const amax[] = {1e9f};
  format const how{integer_element(4), policy::stored, dtype::f16};
  CHECK(has(refused(error_id::format_amax, [&] { check_amax(amax, how, dtype::f32, "q"); }), "overflows float16"));
  CHECK_NOTHROW(check_amax(amax, {integer_element(4), policy::stored, dtype::bf16}, dtype::f32, "q"));
  float const small[] = {1e-5f};  // bound/amax is 7e5
  CHECK(has(refused(error_id::format_amax,
                    [&] {
                      check_amax(small, {integer_element(4), policy::modelopt_pack, dtype::f16}, dtype::f16, "q");
                    }),
            "overflows float16"));
}

TEST_CASE("INT4 of modelopt_pack keeps bound/amax, which overflows for a tiny amax") {
  float const tiny[] = {1e-39f};
  format const how{integer_element(4), policy::modelopt_pack};
  CHECK(has(refused(error_id::format_amax, [&] { check_amax(tiny, how, dtype::f32, "q"); }), "amax[0]"));
  CHECK_NOTHROW(check_amax(tiny, {integer_element(8), policy::modelopt_pack}, dtype::f32, "q"));
}

TEST_CASE("INT4 of modelopt_pack: a dynamic block whose reciprocal overflows is zeros, with no NaN") {
  float const tiny = to_float(from_float<half>(9e-5f));  // 7/tiny is 78000, more than float16 holds
  formats::visit_rule({integer_element(4), policy::modelopt_pack}, {dtype::f16}, [&](auto const& rule) {
    auto const s = rule.prepare(tiny);
    for (float const x : {0.0f, tiny, -tiny, tiny / 2}) {
      CHECK(rule.encode(s, x) == 0);
      CHECK(rule.fake_quantize(s, x) == 0.0f);
    }
    auto const held = rule.prepare(to_float(from_float<half>(1.1e-4f)));
    CHECK(rule.encode(held, to_float(from_float<half>(1.1e-4f))) == 7);
  });
}

TEST_CASE("data flags: negative values under an unsigned format are told with the least finite one") {
  reference::scalar cpu;
  format const unsigned8{integer_element(8, true)};
  auto const text = [&](std::vector<float> const& x, data_flags const& flags) {
    const_tensor_ref const view{dense_geometry(dtype::f32, {static_cast<std::int64_t>(x.size())}), x.data()};
    return refused(error_id::format_unsigned, [&] { check_flags(cpu, &flags, view, unsigned8, "q"); });
  };
  CHECK(text({1.0f, -0.5f, -2.25f}, {0, 2}) ==
        "q: 2 negative values (down to -2.25) met the unsigned format uint8");
  float const infinity = std::numeric_limits<float>::infinity();
  CHECK(has(text({-infinity, -1.0f}, {1, 2}), "2 negative values (down to -1) met"));
  CHECK(has(text({-infinity, 3.0f}, {1, 1}), "1 negative value (not finite) met"));
  CHECK(text({-1.0f}, {5, 0}).empty());
}

TEST_CASE("descriptions say what the rules do") {
  for (policy const p : {policy::stored, policy::modelopt, policy::modelopt_pack})
    for (element_type const& e : {integer_element(4), integer_element(8), e4m3_element}) {
      format const how{e, p, dtype::f32, packing::bytes};
      auto const d = describe(how);
      formats::visit_rule(how, {}, [&](auto const& rule) {
        float const scale = rule.file_scale(5.0f);
        CHECK(scale == doctest::Approx(d.use == scale_use::divides ? d.bound / 5.0f : 5.0f / d.bound));
        CHECK(rule.decode(scale, 1) ==
              (d.use == scale_use::divides ? rule.decode(1.0f, 1) / scale : rule.decode(1.0f, 1) * scale));
        auto const huge = rule.fake_quantize(rule.prepare(d.highest), 1e30f);
        CHECK(huge == doctest::Approx(d.highest));
        CHECK(rule.fake_quantize(rule.prepare(d.highest), -1e30f) == doctest::Approx(d.lowest));
        CHECK((fp::bits(rule.fake_quantize(rule.prepare(d.highest), -0.0f)) != 0) == d.negative_zero);
        float const of_zero_group = rule.fake_quantize(rule.prepare(0.0f), -1.0f);
        CHECK((of_zero_group == 0.0f) == (d.zero != zero_group::unit_amax));
        CHECK((fp::bits(of_zero_group) == 0x80000000u) == (d.zero == zero_group::signed_zero));
        bool const nan_kept =
            fp::is_nan(rule.decode(scale, rule.encode(rule.prepare(5.0f), std::numeric_limits<float>::quiet_NaN())));
        CHECK(nan_kept == d.has_nan);
      });
    }
  CHECK(describe({integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}).nibbles ==
        nibble_order::low_is_even_row);
  CHECK(describe({integer_element(4), policy::modelopt_pack, dtype::f32, packing::nibbles_high_first}).code_offset ==
        8);
}

TEST_CASE("descriptions say what the rules of block formats do with zeros") {
  for (format const& how : test_data::block_formats())
    for (bool const dynamic : {false, true}) {
      CAPTURE(name_of(how));
      CAPTURE(name_of(how.numerics));
      CAPTURE(dynamic);
      auto const d = describe(how, dynamic);
      formats::visit_rule(how, {dtype::f32, 2688.0f, dynamic}, [&](auto const& rule) {
        auto const used = rule.prepare(96.0f), empty = rule.prepare(0.0f);
        // what rounds to zero: -0 itself is 0 in some of ModelOpt's kernels that keep the sign of other values
        CHECK((fp::bits(rule.fake_quantize(used, -1e-9f)) == 0x80000000u) == d.negative_zero);
        float const y = rule.fake_quantize(empty, -1.0f);
        CHECK((y == 0.0f) == (d.zero == zero_group::code_zero));
        if constexpr (requires { rule.of_scale(1.0f); }) {
          auto const one = d.decode_is_fake_quantize ? rule.of_scale(1.0f) : formats::scaling{1.0f, 1.0f};
          if (d.zero == zero_group::unit_scale) CHECK(y == rule.fake_quantize(one, -1.0f));
        }
        if (d.zero == zero_group::least_scale) CHECK(std::fabs(y) < 0x1p-100f);
      });
    }
}
