#include "mixbit/formats/minifloat.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "support/kernel_data.hpp"

using namespace mixbit;
using formats::e4m3;

namespace {

/// A minifloat from the specifications' own formula, in double; codes of magnitudes only.
struct definition {
  element_type element;
  int bias, largest, nan;
  bool ties_away = false;

  double value(int code) const {
    int const m = element.mantissa_bits, exponent = code >> m, mantissa = code & ((1 << m) - 1);
    double const fraction = std::ldexp(mantissa, -m);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1.0 + fraction, exponent - bias);
  }
  int sign_bit() const { return 1 << (element.exponent_bits + element.mantissa_bits); }

  /// The nearest code by search; saturating.
  int nearest(float x) const {
    if (std::isnan(x)) return nan < 0 ? 0 : nan;
    double const magnitude = std::fabs(static_cast<double>(x));
    int best = largest;
    double smallest = std::numeric_limits<double>::infinity();
    for (int code = 0; code <= largest && magnitude < value(largest); ++code) {
      double const distance = std::fabs(value(code) - magnitude);
      bool const wins_tie = distance == smallest && (ties_away || code % 2 == 0);
      if (distance < smallest || wins_tie) {
        smallest = distance;
        best = code;
      }
    }
    return best | (std::signbit(x) ? sign_bit() : 0);
  }
};

std::vector<definition> const all = {
    {e4m3_element, 7, 0x7e, 0x7f},  {e5m2_element, 15, 0x7b, 0x7e}, {e3m2_element, 3, 0x1f, -1},
    {e2m3_element, 1, 0x1f, -1},    {e2m2_element, 1, 0xf, -1},     {e3m1_element, 3, 0xf, -1},
    {e2m1_element, 1, 7, -1},       {e1m2_element, 0, 7, -1},       {e0m3_element, -2, 7, -1},
    {e3m0_element, 3, 7, -1, true}};

/// Cast, code and rounded value against the search. Plain code instead of a CHECK each, for speed.
bool agrees(definition const& d, formats::minifloat_codec const& codec, float x) {
  int const code = d.nearest(x);
  float const rounded = codec.round(x);
  double const expected = d.value(code & (d.sign_bit() - 1)) * (code & d.sign_bit() ? -1 : 1);
  bool const same_value = std::isnan(x) ? fp::bits(rounded) == (d.nan < 0 ? 0u : 0x7fc00000u)
                                        : fp::bits(rounded) == fp::bits(static_cast<float>(expected));
  return codec.code(x) == code && same_value;
}

template <class T>
int disagreements_of_all_inputs(definition const& d) {
  formats::minifloat_codec const codec{d.element};
  int wrong = 0;
  for (int b = 0; b < 65536; ++b) wrong += !agrees(d, codec, to_float(T{static_cast<std::uint16_t>(b)}));
  return wrong;
}

}  // namespace

TEST_CASE("minifloats: each has a definition here") {
  for (element_type const& e : minifloat_elements) {
    CAPTURE(name_of(e));
    CHECK(std::ranges::count(all, e, &definition::element) == 1);
  }
}

TEST_CASE("minifloats: every code decodes as the specification says") {
  for (auto const& d : all) {
    formats::minifloat_codec const codec{d.element};
    CAPTURE(name_of(d.element));
    CHECK(codec.largest() == d.value(d.largest));
    CHECK(codec.has_nan() == (d.nan >= 0));
    for (int code = 0; code < 2 * d.sign_bit(); ++code) {
      CAPTURE(code);
      int const magnitude = code & (d.sign_bit() - 1);
      double const sign = code & d.sign_bit() ? -1.0 : 1.0;
      if (magnitude <= d.largest)
        CHECK(fp::bits(codec.value(code)) == fp::bits(static_cast<float>(d.value(magnitude) * sign)));
      else if (d.element == e5m2_element && magnitude == 0x7c)
        CHECK(codec.value(code) == sign * std::numeric_limits<float>::infinity());
      else
        CHECK(std::isnan(codec.value(code)));
    }
  }
  static_assert(e4m3::largest() == 448.0f);
  static_assert(e4m3::value(0x01) == 0x1p-9f);
  static_assert(e4m3::code(-0.0f) == 0x80);
  static_assert(formats::minifloat_codec{e2m2_element}.largest() == 7.0f);
  static_assert(formats::minifloat_codec{e3m1_element}.largest() == 24.0f);
}

TEST_CASE("minifloats: all float16 and bfloat16 inputs round to the nearest value") {
  for (auto const& d : all) {
    CAPTURE(name_of(d.element));
    CHECK(disagreements_of_all_inputs<half>(d) == 0);
    CHECK(disagreements_of_all_inputs<bfloat16>(d) == 0);
  }
}

TEST_CASE("minifloats: all float32 near a rounding boundary") {
  for (auto const& d : all) {
    formats::minifloat_codec const codec{d.element};
    int wrong = 0;
    for (int code = 0; code <= d.largest; ++code) {
      double const next = code == d.largest ? 1.1 * d.value(code) : d.value(code + 1);
      for (double const point : {d.value(code), (d.value(code) + next) / 2}) {
        float x = static_cast<float>(point);
        for (int k = 0; k < 64; ++k) x = std::nextafter(x, -1.0f);
        for (int k = 0; k < 128; ++k, x = std::nextafter(x, 1e9f))
          wrong += !agrees(d, codec, x) + !agrees(d, codec, -x);
      }
    }
    for (float x : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(), 0x1p-149f, 0x1p-126f,
                    std::numeric_limits<float>::quiet_NaN()})
      wrong += !agrees(d, codec, x) + (std::isnan(x) ? 0 : !agrees(d, codec, -x));
    CAPTURE(name_of(d.element));
    CHECK(wrong == 0);
  }
}

TEST_CASE("E4M3 rules: zero scale, NaN, infinities and a missing scale") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  formats::minifloat_rule<policy::stored> const stored{format{e4m3_element}};
  for (float const x : {0.0f, -0.0f, 1.0f, -1.0f, inf, -inf, nan}) {
    CHECK(fp::bits(stored.fake_quantize(stored.prepare(0.0f), x)) == 0);
    CHECK(stored.encode(stored.prepare(0.0f), x) == 0);
  }
  CHECK(stored.fake_quantize(stored.prepare(896.0f), inf) == 896.0f);
  CHECK(stored.encode(stored.prepare(1.0f), nan) == 0x7f);
  CHECK(std::isnan(stored.fake_quantize(stored.prepare(1.0f), nan)));
  CHECK(stored.fake_quantize({}, 1.0625f) == 1.0f);
  CHECK(stored.fake_quantize({}, 1.1875f) == 1.25f);

  formats::minifloat_rule<policy::modelopt> const modelopt{format{e4m3_element, policy::modelopt}};
  CHECK(modelopt.prepare(0x1p-24f).forward == 448.0f);  // counts as an amax of 1
  CHECK(modelopt.prepare(std::nextafter(0x1p-24f, 1.0f)).forward > 1e9f);
}

TEST_CASE("E4M3 of modelopt: the scale is the largest value times the rounded reciprocal of amax") {
  formats::minifloat_rule<policy::modelopt> const rule{format{e4m3_element, policy::modelopt}};
  int wrong = 0, told_apart = 0;
  for (float amax = 0.01f; amax < 100.0f; amax *= 1.07f) {
    float const reciprocal = 1.0f / amax, scale = fp::mul(448.0f, reciprocal);
    auto const s = rule.prepare(amax);
    wrong += s.forward != scale || s.backward != 1.0f / scale;
    told_apart += scale != 448.0f / amax;
  }
  CHECK(wrong == 0);
  CHECK(told_apart > 10);
}

TEST_CASE("float32 scales of E4M3 are rounded to the type that the file holds") {
  formats::minifloat_rule<policy::stored> const rule{format{e4m3_element, policy::stored, dtype::bf16}};
  CHECK(rule.file_scale(1.0f) == to_float(from_float<bfloat16>(1.0f / 448.0f)));
  CHECK(rule.prepare(1.0f).forward == rule.file_scale(1.0f));
}
