// The codecs against the conversions that cuda_fp8.h, cuda_fp6.h and cuda_fp4.h also define for the host: every
// input of 16 bits, every float32 next to a rounding boundary, every code. Skipped where the toolkit is not installed.
// What differs by rule (docs/numerics.md): casts saturate here, so __NV_SATFINITE is the mode to compare with, and for
// NaN CUDA has other codes: 0x7f in E5M2 (here 0x7e), the largest value where a format has none (here 0).
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "mixbit/formats/mx.hpp"
#include "mixbit/formats/scale_types.hpp"

#if __has_include(<cuda_fp4.h>) && __has_include(<cuda_fp6.h>) && __has_include(<cuda_fp8.h>)
#include <cuda_fp4.h>
#include <cuda_fp6.h>
#include <cuda_fp8.h>

using namespace mixbit;

namespace {

/// CUDA's conversions of one element.
struct cuda_codec {
  element_type element;
  int (*of_float)(float);
  int (*of_half)(__half_raw);
  int (*of_bfloat16)(__nv_bfloat16_raw);
  __half_raw (*value)(unsigned char);
};

constexpr auto saturates = __NV_SATFINITE;

template <__nv_fp8_interpretation_t Kind>
cuda_codec fp8(element_type const& e) {
  return {e, [](float v) -> int { return __nv_cvt_float_to_fp8(v, saturates, Kind); },
          [](__half_raw v) -> int { return __nv_cvt_halfraw_to_fp8(v, saturates, Kind); },
          [](__nv_bfloat16_raw v) -> int { return __nv_cvt_bfloat16raw_to_fp8(v, saturates, Kind); },
          [](unsigned char code) { return __nv_cvt_fp8_to_halfraw(code, Kind); }};
}

template <__nv_fp6_interpretation_t Kind>
cuda_codec fp6(element_type const& e) {
  return {e, [](float v) -> int { return __nv_cvt_float_to_fp6(v, Kind, cudaRoundNearest); },
          [](__half_raw v) -> int { return __nv_cvt_halfraw_to_fp6(v, Kind, cudaRoundNearest); },
          [](__nv_bfloat16_raw v) -> int { return __nv_cvt_bfloat16raw_to_fp6(v, Kind, cudaRoundNearest); },
          [](unsigned char code) { return __nv_cvt_fp6_to_halfraw(code, Kind); }};
}

cuda_codec fp4() {
  return {e2m1_element, [](float v) -> int { return __nv_cvt_float_to_fp4(v, __NV_E2M1, cudaRoundNearest); },
          [](__half_raw v) -> int { return __nv_cvt_halfraw_to_fp4(v, __NV_E2M1, cudaRoundNearest); },
          [](__nv_bfloat16_raw v) -> int { return __nv_cvt_bfloat16raw_to_fp4(v, __NV_E2M1, cudaRoundNearest); },
          [](unsigned char code) { return __nv_cvt_fp4_to_halfraw(code, __NV_E2M1); }};
}

std::vector<cuda_codec> const all = {fp8<__NV_E4M3>(e4m3_element), fp8<__NV_E5M2>(e5m2_element),
                                     fp6<__NV_E3M2>(e3m2_element), fp6<__NV_E2M3>(e2m3_element), fp4()};

int nan_code(element_type const& e) {
  if (e.bits == 8) return 0x7f;
  return (1 << (e.bits - 1)) - 1;  // the largest value
}

/// Is CUDA's code ours, or for NaN the one that differs by rule?
bool agrees(element_type const& e, int theirs, float v) {
  if (std::isnan(v)) return (theirs & 0x7f) == nan_code(e);
  return theirs == formats::minifloat_codec{e}.code(v);
}

/// float32 values around `point`, 64 steps to either side.
template <class F>
void around(float point, F f) {
  float v = point;
  for (int k = 0; k < 64; ++k) v = std::nextafter(v, -1e38f);
  for (int k = 0; k < 129; ++k, v = std::nextafter(v, 1e38f)) f(v);
}

int exponent_code(float v, cudaRoundMode mode) { return __nv_cvt_float_to_e8m0(v, saturates, mode); }

/// The exponents of both scale rules for one amax. CUDA rounds a number; the rules say of which number.
bool agrees_as_scale(element_type const& e, float amax) {
  float const largest = formats::minifloat_codec{e}.largest();
  int const up = exponent_code(amax / largest, cudaRoundPosInf);
  if (formats::mx_exponent(scale_rule::mx_nv, amax, largest, false) + 127 != up) return false;
  if (amax < 0x1p-126f) return true;  // a subnormal amax has an exponent that E8M0 does not
  int const down = exponent_code(amax, cudaRoundZero) - formats::floor_log2(largest);
  return formats::mx_exponent(scale_rule::mx_ocp, amax, largest, false) + 127 == std::max(down, 0);
}

}  // namespace

TEST_CASE("CUDA's headers: every float16 and bfloat16 has the same code") {
  for (auto const& c : all) {
    CAPTURE(name_of(c.element));
    int wrong = 0;
    for (int b = 0; b < 65536; ++b) {
      auto const bits = static_cast<std::uint16_t>(b);
      wrong += !agrees(c.element, c.of_half(__half_raw{bits}), to_float(mixbit::half{bits}));
      wrong += !agrees(c.element, c.of_bfloat16(__nv_bfloat16_raw{bits}), to_float(bfloat16{bits}));
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("CUDA's headers: float32 next to every boundary has the same code") {
  for (auto const& c : all) {
    formats::minifloat_codec const codec{c.element};
    int const largest = formats::codes_of(c.element).largest;
    int wrong = 0;
    auto const compare = [&](float v) {
      wrong += !agrees(c.element, c.of_float(v), v) + !agrees(c.element, c.of_float(-v), -v);
    };
    for (int code = 0; code <= largest; ++code) {
      float const next = code == largest ? 1.125f * codec.value(code) : codec.value(code + 1);
      around(codec.value(code), compare);
      around((codec.value(code) + next) / 2, compare);
    }
    for (float const v : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(), 0x1p-149f,
                          std::numeric_limits<float>::quiet_NaN()})
      compare(v);
    CAPTURE(name_of(c.element));
    CHECK(wrong == 0);
  }
}

TEST_CASE("CUDA's headers: every code has the same value") {
  for (auto const& c : all)
    for (int code = 0; code < 1 << c.element.bits; ++code) {
      float const ours = formats::minifloat_codec{c.element}.value(code);
      float const theirs = to_float(mixbit::half{c.value(static_cast<unsigned char>(code)).x});
      CAPTURE(name_of(c.element));
      CAPTURE(code);
      CHECK((std::isnan(ours) ? std::isnan(theirs) : fp::bits(ours) == fp::bits(theirs)));
    }
}

TEST_CASE("CUDA's headers: E8M0 scales round as CUDA's, up under mx_nv and down under mx_ocp") {
  for (auto const& c : all) {
    CAPTURE(name_of(c.element));
    int wrong = 0;
    for (int b = 0; b < 0x7c00; ++b)
      wrong += !agrees_as_scale(c.element, to_float(mixbit::half{static_cast<std::uint16_t>(b)}));
    for (int b = 0; b < 0x7f80; ++b)
      wrong += !agrees_as_scale(c.element, to_float(bfloat16{static_cast<std::uint16_t>(b)}));
    for (int exponent = -126; exponent < 127; ++exponent)
      for (float const m : {1.0f, formats::minifloat_codec{c.element}.largest() * 0x1p-8f})
        around(std::ldexp(m, exponent), [&](float v) { wrong += v > 0 && !agrees_as_scale(c.element, v); });
    CHECK(wrong == 0);
  }
  for (int code = 0; code < 256; ++code) {
    float const ours = formats::scale_value(formats::e8m0_scale{static_cast<std::uint8_t>(code)});
    float const theirs = to_float(bfloat16{__nv_cvt_e8m0_to_bf16raw(static_cast<unsigned char>(code)).x});
    CAPTURE(code);
    CHECK((std::isnan(ours) ? std::isnan(theirs) : ours == theirs));
  }
}

#else

#include <cstdio>

TEST_CASE("CUDA's headers") {
  std::puts("\nskipped: formats against CUDA's headers: cuda_fp8.h, cuda_fp6.h and cuda_fp4.h are not installed");
}

#endif
