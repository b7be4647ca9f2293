#include "mixbit/formats/integer.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "support/kernel_data.hpp"

using namespace mixbit;

namespace {

/// Half to even of the exact quotient of two floats, clamped: long double holds x and k*s exactly for these sizes.
int nearest_multiple(float x, float s, int low, int high) {
  int best = 0;
  long double smallest = std::numeric_limits<long double>::infinity();
  for (int k = low; k <= high; ++k) {
    long double const distance = std::fabs(static_cast<long double>(x) - static_cast<long double>(k) * s);
    if (distance < smallest || (distance == smallest && k % 2 == 0)) {
      smallest = distance;
      best = k;
    }
  }
  return best;
}

}  // namespace

TEST_CASE("bounds of integers") {
  static_assert(formats::integer_bound(integer_element(8)) == 127 &&
                formats::integer_minimum(integer_element(8)) == -128);
  static_assert(formats::integer_minimum(integer_element(8, false, true)) == -127);
  static_assert(formats::integer_bound(integer_element(8, true)) == 255 &&
                formats::integer_minimum(integer_element(8, true)) == 0);
  static_assert(formats::integer_bound(integer_element(1, true)) == 1);
  static_assert(formats::integer_bound(integer_element(2)) == 1 && formats::integer_minimum(integer_element(2)) == -2);
  static_assert(formats::integer_bound(integer_element(24)) == 8388607);
}

TEST_CASE("stored: the quotient is divided, not multiplied by a reciprocal, and rounds half to even") {
  int wrong = 0, ties = 0;
  for (float const amax : {1.0f, 0.3f, 2.7182817f, 127.0f, 1e-3f, 448.0f, 6.1f}) {
    for (int const bits : {2, 3, 4, 8}) {
      formats::integer_rule<policy::stored> const rule{format{integer_element(bits)}};
      auto const s = rule.prepare(amax);
      int const high = (1 << (bits - 1)) - 1, low = -high - 1;
      for (int k = low; k < high; ++k) {
        float const tie = fp::mul(s.forward, static_cast<float>(k) + 0.5f);
        for (float const x : {std::nextafter(tie, -1e9f), tie, std::nextafter(tie, 1e9f)}) {
          // the rule is defined on the float32 quotient; where that is a tie the even code must win
          float const quotient = x / s.forward;
          int const expected = static_cast<int>(std::nearbyint(quotient));
          wrong += rule.encode(s, x) != expected;
          if (quotient == static_cast<float>(k) + 0.5f) ++ties;
          else wrong += rule.encode(s, x) != nearest_multiple(x, s.forward, low, high);
        }
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(ties > 1000);
}

TEST_CASE("stored: zeros are +0, NaN is code 0, infinities saturate, a zero scale gives +0") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  formats::integer_rule<policy::stored> const rule{format{integer_element(4)}};
  auto const s = rule.prepare(7.0f);
  CHECK(fp::bits(rule.fake_quantize(s, -0.3f)) == 0);
  CHECK(fp::bits(rule.fake_quantize(s, -0.0f)) == 0);
  CHECK(fp::bits(rule.fake_quantize(s, nan)) == 0);
  CHECK(rule.fake_quantize(s, inf) == 7.0f);
  CHECK(rule.fake_quantize(s, -inf) == -8.0f);
  for (float const x : {0.0f, -0.0f, 1.0f, -1.0f, inf, -inf, nan}) {
    CHECK(fp::bits(rule.fake_quantize(rule.prepare(0.0f), x)) == 0);
    CHECK(rule.encode(rule.prepare(0.0f), x) == 0);
  }
}

TEST_CASE("modelopt: scale multiplies and divides, tiny amax keeps the sign of zero") {
  formats::integer_rule<policy::modelopt> const rule{format{integer_element(8)}};
  CHECK(rule.prepare(2.0f).forward == 63.5f);
  CHECK(fp::bits(rule.fake_quantize(rule.prepare(0x1p-24f), -5.0f)) == 0x80000000u);
  CHECK(rule.fake_quantize(rule.prepare(std::nextafter(0x1p-24f, 1.0f)), -5.0f) < 0.0f);
  CHECK(fp::bits(rule.fake_quantize(rule.prepare(127.0f), -0.25f)) == 0x80000000u);
  CHECK(std::isnan(rule.fake_quantize(rule.prepare(1.0f), std::numeric_limits<float>::quiet_NaN())));
  formats::integer_rule<policy::modelopt> const wide{format{integer_element(24)}};
  CHECK(wide.fake_quantize(wide.prepare(8388607.0f), 8388606.5f) == 8388606.0f);
  CHECK(wide.fake_quantize(wide.prepare(8388607.0f), -1e9f) == -8388608.0f);
}

TEST_CASE("modelopt: a code comes back as its quotient by the scale, not as its product with the reciprocal") {
  formats::integer_rule<policy::modelopt> const rule{format{integer_element(8)}};
  int wrong = 0, told_apart = 0;
  for (float const amax : {1.0f, 0.3f, 2.7182817f, 6.1f}) {
    float const scale = 127.0f / amax;
    for (int code = -127; code <= 127; ++code) {
      float const x = static_cast<float>(code) / scale;
      wrong += rule.fake_quantize(rule.prepare(amax), x) != x;
      told_apart += x != fp::mul(static_cast<float>(code), 1.0f / scale);
    }
  }
  CHECK(wrong == 0);
  CHECK(told_apart > 100);
}

TEST_CASE("modelopt_pack: INT4 keeps bound/amax, INT8 amax/bound, both rounded to the input's type") {
  formats::integer_rule<policy::modelopt_pack> const int4{format{integer_element(4)}, {dtype::bf16}};
  formats::integer_rule<policy::modelopt_pack> const int8{format{integer_element(8)}, {dtype::bf16}};
  CHECK(int4.file_scale(3.0f) == to_float(from_float<bfloat16>(7.0f * to_float(from_float<bfloat16>(1.0f / 3.0f)))));
  CHECK(int8.file_scale(3.0f) == to_float(from_float<bfloat16>(3.0f / 127.0f)));
  CHECK(int4.decode(2.0f, 3) == 1.5f);
  CHECK(int8.decode(2.0f, 3) == 6.0f);
}
