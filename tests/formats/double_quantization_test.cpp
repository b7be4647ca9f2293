// int8 scales around their mean, against the definition in words of its own.
#include "mixbit/formats/double_quantization.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "mixbit/formats/check.hpp"
#include "support/error_text.hpp"
#include "support/kernel_data.hpp"

using namespace mixbit;
using namespace test_data;

namespace {

format nf4(std::int32_t scale_block, policy p = policy::stored, dtype scales = dtype::f32) {
  return {nf4_element, p, scales, packing::nibbles_high_first, scale_rule::ratio, scale_block};
}

std::vector<float> random_scales(std::size_t n) {
  tensor<float> t{dense_geometry(dtype::f32, {static_cast<std::int64_t>(n)})};
  fill(t, static_cast<unsigned>(n), false);
  return {t.data(), t.data() + n};
}

}  // namespace

TEST_CASE("double quantization: mean, block scales and codes are those of the definition, the last block ragged") {
  for (std::size_t const n : {1u, 5u, 64u, 65u, 200u})
    for (std::int32_t const block : {1, 4, 64}) {
      auto const scales = random_scales(n);
      auto const q = quantize_scales(scales, nf4(block), dtype::f32);
      double sum = 0;
      for (float const s : scales) sum += s;
      float const mean = static_cast<float>(sum / static_cast<double>(n));
      CHECK(q.mean == mean);
      REQUIRE(q.codes.size() == n);
      REQUIRE(q.block_scales.size() == (n + static_cast<std::size_t>(block) - 1) / static_cast<std::size_t>(block));
      auto const values = scale_values(q, nf4(block), dtype::f32, n);
      for (std::size_t g = 0; g < n; ++g) {
        std::size_t const first = g / static_cast<std::size_t>(block) * static_cast<std::size_t>(block);
        float largest = 0;
        for (std::size_t k = first; k < std::min(n, first + static_cast<std::size_t>(block)); ++k)
          largest = std::max(largest, std::fabs(scales[k] - mean));
        float const s = largest / 127.0f;
        float const code = s == 0.0f ? 0.0f : std::nearbyint((scales[g] - mean) / s);
        CHECK(static_cast<float>(q.codes[g]) == code);
        float const product = code * s, value = product + mean;
        CHECK(values[g] == std::max(value, 0.0f));
      }
    }
}

TEST_CASE("double quantization: equal scales are their mean, and no scale is negative") {
  std::vector<float> const equal(7, 0.75f);
  auto const q = quantize_scales(equal, nf4(4), dtype::f32);
  CHECK(scale_values(q, nf4(4), dtype::f32, 7) == equal);
  for (unsigned seed = 1; seed < 40; ++seed) {
    auto scales = random_scales(100 + seed);
    for (std::size_t g = 0; g < scales.size(); g += 3) scales[g] = 0.0f;
    for (float const v : scale_values(quantize_scales(scales, nf4(64), dtype::f32), nf4(64), dtype::f32, scales.size()))
      CHECK(v >= 0.0f);
  }
  CHECK(quantize_scales({}, nf4(64), dtype::f32).codes.empty());
}

TEST_CASE("double quantization: scales of two bytes are rounded to them") {
  auto const scales = random_scales(130);
  format const how = nf4(64, policy::stored, dtype::bf16);
  auto const q = quantize_scales(scales, how, dtype::f32);
  CHECK(to_float(from_float<bfloat16>(q.mean)) == q.mean);
  for (float const s : q.block_scales) CHECK(to_float(from_float<bfloat16>(s)) == s);
  for (float const v : scale_values(q, how, dtype::f32, scales.size()))
    CHECK(to_float(from_float<bfloat16>(v)) == v);
}

TEST_CASE("double quantization under modelopt_pack: padded to whole blocks, divided, each operation in T") {
  auto const scales = random_scales(70);
  format const how = nf4(64, policy::modelopt_pack, dtype::bf16);
  auto const t = [](float v) { return to_float(from_float<bfloat16>(v)); };
  auto const q = quantize_scales(scales, how, dtype::bf16);
  REQUIRE(q.codes.size() == 128);
  double sum = 0;
  for (float const s : scales) sum += s;
  CHECK(q.mean == t(static_cast<float>(sum / 128.0)));
  auto const values = scale_values(q, how, dtype::bf16, 70);
  float largest = 0;
  for (std::size_t g = 64; g < 128; ++g)
    largest = std::max(largest, std::fabs(t((g < 70 ? scales[g] : 0.0f) - q.mean)));
  float const inverse = t(127.0f / largest);
  CHECK(q.block_scales[1] == inverse);
  for (std::size_t g = 64; g < 128; ++g) {
    float const v = t(t((g < 70 ? scales[g] : 0.0f) - q.mean) * inverse);
    CHECK(static_cast<float>(q.codes[g]) == std::nearbyint(std::min(std::max(v, -127.0f), 127.0f)));
    if (g < 70) CHECK(values[g] == t(t(static_cast<float>(q.codes[g]) / inverse) + q.mean));
  }
}

TEST_CASE("double quantization: of other elements it is refused by name") {
  auto const refused = [](format how) {
    return test::error_text(error_id::format_value, [&] { check_format(how, "w"); });
  };
  format const int4{integer_element(4), policy::stored, dtype::f32, packing::bytes, scale_rule::ratio, 64};
  CHECK(test::says(refused(int4), "w: ", "nf4", "int4"));
  CHECK(test::says(refused(nf4(-1)), "w: ", "-1"));
}
