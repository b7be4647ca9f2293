// MX, NVFP4 and NF4: scales by their definitions in double, and what happens at the edges.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "mixbit/formats/rules.hpp"
#include "mixbit/formats/scale_types.hpp"
#include "support/kernel_data.hpp"

using namespace mixbit;

namespace {

float const not_a_number = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

std::vector<element_type> const mx_elements = test_data::minifloats_and({integer_element(8)});

float largest_of(element_type const& e) {
  return e.kind == element_kind::integer ? 127.0f : formats::minifloat_codec{e}.largest();
}

/// The least exponent whose power covers the quotient, by search.
int covering_exponent(float amax, float largest) {
  float const quotient = amax / largest;
  for (int e = -127; e < 127; ++e)
    if (std::ldexp(1.0, e) >= quotient) return e;
  return 127;
}

/// Powers of two and their neighbours over all of float32, times the largest value.
std::vector<float> amaxes_around_powers(float largest) {
  std::vector<float> all;
  for (int e = -149; e <= 127; ++e)
    for (float const at : {std::ldexp(1.0f, e), std::ldexp(largest, e)}) {
      if (at == 0.0f || !std::isfinite(at)) continue;
      float x = at;
      for (int k = 0; k < 4; ++k) x = std::nextafter(x, 0.0f);
      for (int k = 0; k < 9; ++k, x = std::nextafter(x, inf))
        if (x > 0.0f && std::isfinite(x)) all.push_back(x);
    }
  return all;
}

format mx(element_type const& e, scale_rule rule = scale_rule::mx_nv, policy p = policy::stored) {
  return {e, p, dtype::f8_e8m0, packing::dense_rows, rule};
}

template <class F>
void with_rule(format const& how, formats::rule_inputs const& inputs, F&& f) {
  formats::visit_rule(how, inputs, f);
}

}  // namespace

TEST_CASE("mx_nv: the least power of two that covers the quotient, over all of float32") {
  for (auto const& e : mx_elements) {
    float const largest = largest_of(e);
    int wrong = 0;
    for (float const amax : amaxes_around_powers(largest))
      wrong += formats::mx_exponent(scale_rule::mx_nv, amax, largest, false) != covering_exponent(amax, largest);
    CAPTURE(name_of(e));
    CHECK(wrong == 0);
  }
  CHECK(formats::mx_exponent(scale_rule::mx_nv, 0.0f, 6.0f, false) == -127);
}

TEST_CASE("mx_ocp: the exponents' difference, over all of float32") {
  for (auto const& e : mx_elements) {
    float const largest = largest_of(e);
    int wrong = 0;
    for (float const amax : amaxes_around_powers(largest)) {
      int const expected = std::clamp(std::ilogb(amax) - std::ilogb(largest), -127, 127);
      wrong += formats::mx_exponent(scale_rule::mx_ocp, amax, largest, false) != expected;
    }
    CAPTURE(name_of(e));
    CHECK(wrong == 0);
  }
}

TEST_CASE("modelopt_pack rounds log2 to float32 before it takes its ceiling") {
  int wrong = 0, kept = 0;
  for (float const quotient : amaxes_around_powers(1.0f)) {
    if (quotient < FLT_MIN) continue;
    // float32 log2, correctly rounded: long double has 11 bits to spare
    float const log = static_cast<float>(std::log2(static_cast<long double>(quotient)));
    int const expected = std::clamp(static_cast<int>(std::ceil(log)), -127, 127);
    int const found = formats::mx_exponent(scale_rule::mx_nv, quotient, 1.0f, true);
    wrong += found != expected;
    kept += found != formats::mx_exponent(scale_rule::mx_nv, quotient, 1.0f, false);
  }
  CHECK(wrong == 0);
  CHECK(kept > 200);
  // the points that ModelOpt's packer is known for
  auto const exponent = [](float amax) { return formats::mx_exponent(scale_rule::mx_nv, amax, 448.0f, true); };
  CHECK(exponent(0.0f) == -127);
  CHECK(exponent(448.0f) == 0);
  CHECK(exponent(1.0f) == -8);
  CHECK(exponent(FLT_MAX) == 120);
}

TEST_CASE("MX: zero blocks, signs of zero, NaN and infinities") {
  with_rule(mx(e2m1_element), {}, [](auto const& rule) {
    CHECK(rule.file_scale(0.0f) == 0x1p-127f);
    auto const s = rule.prepare(6.0f);
    CHECK(rule.encode(s, -0.1f) == 8);  // negative, rounds to zero
    CHECK(rule.encode(s, -0.0f) == 0);
    CHECK(fp::bits(rule.fake_quantize(s, -0.1f)) == 0x80000000u);
    CHECK(fp::bits(rule.fake_quantize(s, -0.0f)) == 0);
    CHECK(rule.encode(s, not_a_number) == 0);
    CHECK(rule.fake_quantize(s, inf) == 6.0f);
    for (float const x : {0.0f, -0.0f}) CHECK(rule.fake_quantize(rule.prepare(0.0f), x) == 0.0f);
  });
  with_rule(mx(e4m3_element), {}, [](auto const& rule) {
    CHECK(std::isnan(rule.fake_quantize(rule.prepare(448.0f), not_a_number)));
    CHECK(rule.encode(rule.prepare(448.0f), -0.0f) == 0x80);
  });
  with_rule(mx(e2m1_element, scale_rule::mx_nv, policy::modelopt), {}, [](auto const& rule) {
    CHECK(rule.file_scale(0.0f) == 1.0f);
    CHECK(rule.fake_quantize(rule.prepare(6.0f), not_a_number) == 6.0f);
  });
  with_rule(mx(e2m1_element, scale_rule::mx_nv, policy::modelopt_pack), {}, [](auto const& rule) {
    auto const s = rule.prepare(6.0f);
    for (auto const& [tie, code] :
         {std::pair{0.25f, 0}, {0.75f, 1}, {1.25f, 2}, {1.75f, 3}, {2.5f, 4}, {3.5f, 5}, {5.0f, 6}}) {
      CHECK(rule.encode(s, tie) == code);
      CHECK(rule.encode(s, std::nextafter(tie, 9.0f)) == code + 1);
      CHECK(rule.encode(s, -tie) == code + 8);
    }
    CHECK(rule.encode(s, 0.0f) == 8);
    CHECK(fp::bits(rule.decode(1.0f, 8)) == 0x80000000u);
  });
  with_rule(mx(integer_element(8)), {}, [](auto const& rule) {
    CHECK(rule.encode(rule.prepare(127.0f), -1000.0f) == -127);
  });
}

TEST_CASE("NVFP4: scales of block and tensor, and what zeros and overflow become") {
  format const how{e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
  formats::nvfp4_rule<policy::stored> const rule{how, {dtype::f32, 2688.0f}};
  CHECK(rule.tensor_scale() == 1.0f);
  CHECK(rule.file_scale(6.0f) == 1.0f);
  CHECK(rule.file_scale(6.0f * 448.0f) == 448.0f);
  CHECK(rule.file_scale(1e30f) == 448.0f);      // the tensor's amax was calibrated on less
  CHECK(rule.file_scale(1e-30f) == 0x1p-9f);    // the smallest scale
  CHECK(rule.file_scale(0.0f) == 1.0f);
  CHECK(rule.prepare(12.0f).backward == 2.0f);
  formats::nvfp4_rule<policy::stored> const zeros{how, {dtype::f32, 0.0f}};
  for (float const x : {0.0f, 1.0f, -1.0f, not_a_number, inf}) {
    CHECK(fp::bits(zeros.fake_quantize(zeros.prepare(x), x)) == 0);
    CHECK(zeros.encode(zeros.prepare(1.0f), x) == 0);
  }
  CHECK(rule.encode(rule.prepare(6.0f), -0.0f) == 0);
  CHECK(rule.encode(rule.prepare(6.0f), -0.2f) == 8);
}

TEST_CASE("NVFP4 of modelopt_triton: a scale under 1e-5 becomes 1, which wipes the block out") {
  format const how{e2m1_element, policy::modelopt_triton, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
  formats::nvfp4_rule<policy::modelopt_triton> const rule{how, {dtype::f32, std::ldexp(2688.0f, -17), true}};
  CHECK(rule.of_scale(1.0f).backward == 1.0f);                // of 2^-17, 7.6e-6
  CHECK(rule.of_scale(1.25f).backward == 1.0f);               // 9.5e-6
  CHECK(rule.of_scale(1.375f).backward == 1.375f * 0x1p-17f);  // 1.05e-5
  CHECK(rule.fake_quantize(rule.of_scale(1.0f), 0x1p-17f) == 0.0f);
}

TEST_CASE("NVFP4 ties go to the even code") {
  format const how{e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
  formats::nvfp4_rule<policy::stored> const rule{how, {dtype::f32, 2688.0f}};
  auto const s = rule.prepare(6.0f);
  for (auto const& [tie, value] :
       {std::pair{0.25f, 0.0f}, {0.75f, 1.0f}, {1.25f, 1.0f}, {1.75f, 2.0f}, {2.5f, 2.0f}, {3.5f, 4.0f}, {5.0f, 4.0f}})
    CHECK(rule.fake_quantize(s, tie) == value);
}

TEST_CASE("four over six leaves room for 1.5 times a scale") {
  format const how{e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::four_over_six};
  formats::nvfp4_rule<policy::stored> const rule{how, {dtype::f32, 1536.0f}};
  CHECK(rule.tensor_scale() == 1.0f);
  CHECK(rule.file_scale(1536.0f) == 256.0f);
  CHECK(rule.file_scale(rule.alternative(1536.0f)) == 384.0f);
}

TEST_CASE("NF4: nearest value, lower code on a tie, NaN is 0") {
  formats::nf4_rule<policy::stored> const rule{format{nf4_element}};
  auto const s = rule.prepare(2.0f);
  for (int code = 0; code < 16; ++code) {
    CHECK(rule.encode(s, 2.0f * formats::nf4_value(code)) == code);
    if (code == 15) continue;
    float const middle = formats::nf4_value(code) + formats::nf4_value(code + 1);  // of the values times 2
    CHECK(rule.encode(s, middle) == code);
    CHECK(rule.encode(s, std::nextafter(middle, 9.0f)) == code + 1);
  }
  CHECK(rule.encode(s, not_a_number) == formats::nf4_zero);
  CHECK(rule.encode(s, inf) == 15);
  CHECK(rule.fake_quantize(rule.prepare(0.0f), -3.0f) == 0.0f);
}

TEST_CASE("NF4 of modelopt_pack: the first of the nearest values") {
  formats::nf4_rule<policy::modelopt_pack> const rule{format{nf4_element, policy::modelopt_pack}, {}};
  auto const s = rule.prepare(1.0f);
  for (int code = 0; code < 15; ++code) {
    float const middle = (formats::nf4_value(code) + formats::nf4_value(code + 1)) * 0.5f;
    CHECK(rule.encode(s, middle) == code);
    CHECK(rule.encode(s, std::nextafter(middle, 9.0f)) == code + 1);
  }
}

TEST_CASE("scales of eight bits: every code and its value") {
  for (int code = 0; code < 255; ++code) {
    formats::e8m0_scale const scale{static_cast<std::uint8_t>(code)};
    CHECK(formats::scale_value(scale) == std::ldexp(1.0f, code - 127));
    CHECK(formats::scale_as<formats::e8m0_scale>(formats::scale_value(scale)) == scale);
  }
  CHECK(std::isnan(formats::scale_value(formats::e8m0_scale{255})));
  for (int code = 0; code < 0x7f; ++code) {
    formats::e4m3_scale const scale{static_cast<std::uint8_t>(code)};
    CHECK(formats::scale_as<formats::e4m3_scale>(formats::scale_value(scale)) == scale);
  }
}
