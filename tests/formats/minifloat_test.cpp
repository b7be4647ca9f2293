#include "mixbit/formats/minifloat.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "support/kernel_data.hpp"

using namespace mixbit;
using formats::e4m3;

namespace {

/// E4M3 from the specification's own formula, in double.
double e4m3_value(int code) {
  int const exponent = code >> 3 & 15, mantissa = code & 7;
  double const magnitude =
      exponent == 0 ? std::ldexp(mantissa / 8.0, -6) : std::ldexp(1.0 + mantissa / 8.0, exponent - 7);
  return code & 0x80 ? -magnitude : magnitude;
}

/// The nearest code by search, ties to the even code; saturating; NaN 0x7f.
int nearest_code(float x) {
  if (std::isnan(x)) return 0x7f;
  double const magnitude = std::fabs(static_cast<double>(x));
  int best = 0x7e;
  if (magnitude < 448.0) {
    double smallest = std::numeric_limits<double>::infinity();
    for (int code = 0; code <= 0x7e; ++code) {
      double const distance = std::fabs(e4m3_value(code) - magnitude);
      if (distance < smallest || (distance == smallest && code % 2 == 0)) {
        smallest = distance;
        best = code;
      }
    }
  }
  return best | (std::signbit(x) ? 0x80 : 0);
}

/// Cast, code and rounded value against the search. Plain code instead of a CHECK each, for speed.
bool agrees(float x) {
  int const code = nearest_code(x);
  float const rounded = e4m3::round(x);
  bool const same_value = std::isnan(x) ? fp::bits(rounded) == 0x7fc00000u
                                        : fp::bits(rounded) == fp::bits(static_cast<float>(e4m3_value(code)));
  return e4m3::code(x) == code && same_value;
}

template <class T>
int disagreements_of_all_inputs() {
  int wrong = 0;
  for (int b = 0; b < 65536; ++b) wrong += !agrees(to_float(T{static_cast<std::uint16_t>(b)}));
  return wrong;
}

}  // namespace

TEST_CASE("E4M3: every code decodes as the specification says") {
  for (int code = 0; code < 256; ++code) {
    CAPTURE(code);
    if ((code & 0x7f) == 0x7f) CHECK(std::isnan(e4m3::value(code)));
    else CHECK(fp::bits(e4m3::value(code)) == fp::bits(static_cast<float>(e4m3_value(code))));
  }
  static_assert(e4m3::largest == 448.0f);
  static_assert(e4m3::value(0x01) == 0x1p-9f);
  static_assert(e4m3::code(-0.0f) == 0x80);
}

TEST_CASE("E4M3: all float16 and bfloat16 inputs round to the nearest value, ties to even") {
  CHECK(disagreements_of_all_inputs<half>() == 0);
  CHECK(disagreements_of_all_inputs<bfloat16>() == 0);
}

TEST_CASE("E4M3: all float32 near a rounding boundary") {
  int wrong = 0;
  for (int code = 0; code <= 0x7e; ++code) {
    double const next = code == 0x7e ? 480.0 : e4m3_value(code + 1);
    for (double const point : {e4m3_value(code), (e4m3_value(code) + next) / 2}) {
      float x = static_cast<float>(point);
      for (int k = 0; k < 64; ++k) x = std::nextafter(x, -1.0f);
      for (int k = 0; k < 128; ++k, x = std::nextafter(x, 1e9f)) wrong += !agrees(x) + !agrees(-x);
    }
  }
  for (float x : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(), 464.0f, 465.0f, 0x1p-10f,
                  std::nextafter(0x1p-10f, 1.0f), 0x1p-149f, 0x1p-126f, std::numeric_limits<float>::quiet_NaN()})
    wrong += !agrees(x) + !agrees(-x);
  CHECK(wrong == 0);
}

TEST_CASE("E4M3 rules: zero scale, NaN, infinities and a missing scale") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  formats::minifloat_rule<policy::stored, float, e4m3> const stored{e4m3_element, dtype::f32};
  for (float const x : {0.0f, -0.0f, 1.0f, -1.0f, inf, -inf, nan}) {
    CHECK(fp::bits(stored.fake_quantize(stored.prepare(0.0f), x)) == 0);
    CHECK(stored.encode(stored.prepare(0.0f), x) == 0);
  }
  CHECK(stored.fake_quantize(stored.prepare(896.0f), inf) == 896.0f);
  CHECK(stored.encode(stored.prepare(1.0f), nan) == 0x7f);
  CHECK(std::isnan(stored.fake_quantize(stored.prepare(1.0f), nan)));
  CHECK(stored.fake_quantize({}, 1.0625f) == 1.0f);
  CHECK(stored.fake_quantize({}, 1.1875f) == 1.25f);

  formats::minifloat_rule<policy::modelopt, float, e4m3> const modelopt{e4m3_element, dtype::f32};
  CHECK(modelopt.prepare(0x1p-24f).forward == 448.0f);  // counts as an amax of 1
  CHECK(modelopt.prepare(std::nextafter(0x1p-24f, 1.0f)).forward > 1e9f);
}

TEST_CASE("float32 scales of E4M3 are rounded to the type that the file holds") {
  formats::minifloat_rule<policy::stored, float, e4m3> const rule{e4m3_element, dtype::bf16};
  CHECK(rule.file_scale(1.0f) == to_float(from_float<bfloat16>(1.0f / 448.0f)));
  CHECK(rule.prepare(1.0f).forward == rule.file_scale(1.0f));
}
