// A matrix that is quantized some rows at a time, against the exporter's encoding of the whole.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "examples/tools/quantize_checkpoint/weight_rows.hpp"
#include "mixbit/config/presets.hpp"
#include "support/error_text.hpp"

namespace {

using namespace quantize_checkpoint;
using mixbit::hf_algorithm;
using mixbit::hf_format;
using mixbit::test::error_text;
using mixbit::test::says;

std::vector<float> some_weights(std::int64_t rows, std::int64_t columns) {
  std::vector<float> w;
  for (std::int64_t i = 0; i < rows * columns; ++i)
    w.push_back(static_cast<float>(std::sin(0.37 * static_cast<double>(i * i % 1013)) * std::exp2(i % 11 - 6)));
  return w;
}

/// The weight quantizer of a preset.
mixbit::quantizer_attribute_config weight_attributes(char const* preset) {
  for (auto const& entry : mixbit::preset(preset).entries)
    if (entry.quantizer_name.label() == "*weight_quantizer" && entry.cfg) return entry.cfg->front();
  FAIL("no weight quantizer in " << preset);
  return {};
}

struct all_rows {
  std::vector<std::uint8_t> codes, block_scales;
  std::vector<float> scales;
  int parts = 0;
  friend bool operator==(all_rows const&, all_rows const&) = default;
};

all_rows encoded(layer const& l, std::int64_t memory) {
  all_rows all;
  weight_rows rows{device{}, l, "'f'", memory};
  rows.encode([&](encoded_rows const& part) {
    ++all.parts;
    all.codes.insert(all.codes.end(), part.codes.begin(), part.codes.end());
    all.block_scales.insert(all.block_scales.end(), part.block_scales.begin(), part.block_scales.end());
    all.scales.insert(all.scales.end(), part.scales.begin(), part.scales.end());
  });
  return all;
}

/// The least memory with which it works.
std::int64_t least_memory(layer const& l) {
  std::int64_t low = 1, high = std::int64_t{1} << 30;
  while (low < high) {
    auto const middle = (low + high) / 2;
    try {
      weight_rows{device{}, l, "'f'", middle};
      high = middle;
    } catch (mixbit::error const&) {
      low = middle + 1;
    }
  }
  return low;
}

/// What the exporter writes, from the whole matrix at once.
all_rows whole(layer const& l) {
  device cpu;
  mixbit::arena scratch;
  mixbit::tensor_quantizer<device> q{l.name, l.how->attributes, mixbit::policy::stored};
  if (q.needs_calibration()) q.observe(cpu, scratch, l.weight);
  q.finish(cpu);
  mixbit::hf_encoding<device> const e{cpu, q, l.weight, q.grouping(l.weight)};
  bool const ratio = q.numerics().how.scaling == mixbit::scale_rule::ratio;
  return {e.codes(cpu), e.block_scales(cpu), ratio ? e.scales() : std::vector<float>{}, 1};
}

struct form {
  char const* preset;
  hf_algorithm algorithm;
};
constexpr form forms[] = {{"INT8_WEIGHT_ONLY_CFG", hf_algorithm::int8_weight_only},
                          {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", hf_algorithm::int4_weight_only},
                          {"FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", hf_algorithm::fp8_2d_blocks},
                          {"FP8_PER_CHANNEL_PER_TOKEN_CFG", hf_algorithm::fp8_per_channel_per_token},
                          {"W4A16_NVFP4_CFG", hf_algorithm::nvfp4_weight_only},
                          {"MXFP8_DEFAULT_CFG", hf_algorithm::mxfp8}};

TEST_CASE("quantize_checkpoint: rows a few at a time are the whole matrix bit for bit") {
  for (auto const& f : forms)
    for (auto const& shape : {std::array<std::int64_t, 2>{300, 352}, {1, 128}, {7, 33}, {129, 130}}) {
      auto const w = some_weights(shape[0], shape[1]);
      layer const l{"m", {mixbit::dense_geometry(mixbit::dtype::f32, shape), w.data()},
                    {hf_format{f.algorithm}, weight_attributes(f.preset), f.preset}};
      CAPTURE(f.preset);
      CAPTURE(shape[0]);
      auto expected = whole(l), got = encoded(l, least_memory(l));
      if (shape[0] == 300) CHECK(got.parts > 1);
      got.parts = expected.parts;
      CHECK(got == expected);
      CHECK(encoded(l, std::int64_t{1} << 30).codes == expected.codes);
    }
}

TEST_CASE("quantize_checkpoint: the scale of a tensor is that of all its rows, or of those it shares it with") {
  auto w = some_weights(64, 32);
  w[40 * 32] = 300;  // far behind the first rows
  layer const l{"m", {mixbit::dense_geometry(mixbit::dtype::f32, std::array<std::int64_t, 2>{64, 32}), w.data()},
                {hf_format{hf_algorithm::nvfp4_weight_only, 16}, weight_attributes("W4A16_NVFP4_CFG"),
                 "W4A16_NVFP4_CFG"}};
  weight_rows rows{device{}, l, "'f'", least_memory(l)};
  CHECK(rows.tensor_amax() == 300);
  CHECK(rows.tensor_scale() == 300.0f / 2688);
  rows.share_tensor_amax(600);
  CHECK(rows.tensor_scale() == 600.0f / 2688);
}

TEST_CASE("quantize_checkpoint: weight errors are those of the quantizer, each column by its importance") {
  auto const w = some_weights(40, 48);
  layer const l{"m", {mixbit::dense_geometry(mixbit::dtype::f32, std::array<std::int64_t, 2>{40, 48}), w.data()},
                {hf_format{hf_algorithm::int8_weight_only}, weight_attributes("INT8_WEIGHT_ONLY_CFG"), "int8"}};
  device cpu;
  mixbit::arena scratch;
  mixbit::tensor_quantizer<device> q{"m", l.how->attributes, mixbit::policy::stored};
  q.observe(cpu, scratch, l.weight);
  std::vector<float> y(w.size());
  q.quantize(cpu, scratch, l.weight, {l.weight, y.data()});
  double plain = 0, weighted = 0;
  std::vector<float> importance;
  for (int i = 0; i < 48; ++i) importance.push_back(static_cast<float>(i % 5));
  for (std::size_t i = 0; i < w.size(); ++i) {
    double const d = static_cast<double>(w[i]) - static_cast<double>(y[i]);
    plain += d * d;
    weighted += d * d * static_cast<double>(importance[i % 48]);
  }
  for (auto const memory : {least_memory(l), std::int64_t{1} << 30}) {
    weight_rows rows{cpu, l, "'f'", memory};
    CHECK(rows.error({}) == doctest::Approx(plain).epsilon(1e-6));
    CHECK(rows.error(importance) == doctest::Approx(weighted).epsilon(1e-6));
  }
}

TEST_CASE("quantize_checkpoint: a weight that is not aligned is read as it is; NaN is refused by name") {
  auto const w = some_weights(16, 64);
  std::vector<std::byte> moved(w.size() * 4 + 1);
  std::memcpy(moved.data() + 1, w.data(), w.size() * 4);
  auto const shape = mixbit::dense_geometry(mixbit::dtype::f32, std::array<std::int64_t, 2>{16, 64});
  for (auto const& f : forms) {
    CAPTURE(f.preset);
    layer_format const how{hf_format{f.algorithm}, weight_attributes(f.preset), f.preset};
    layer const there{"m", {shape, w.data()}, how};
    layer const off{"m", {shape, moved.data() + 1}, how};
    CHECK(encoded(off, 1 << 20) == encoded(there, 1 << 20));
    auto bad = w;
    bad[700] = std::numeric_limits<float>::quiet_NaN();
    bad[701] = -std::numeric_limits<float>::infinity();
    layer const holed{"model.m", {shape, bad.data()}, how};
    CHECK(says(error_text(mixbit::error_id::file_content, [&] { encoded(holed, 1 << 20); }), "'f'",
               "'model.m.weight' holds 2 NaN or infinite value(s)"));
    weight_rows rows{device{}, holed, "'f'", 1 << 20};
    CHECK(says(error_text(mixbit::error_id::file_content, [&] { rows.error({}); }), "'model.m.weight' holds 2"));
  }
  layer const wide{"m", {shape, w.data()},
                   {hf_format{hf_algorithm::int8_weight_only}, weight_attributes("INT8_WEIGHT_ONLY_CFG"), "int8"}};
  CHECK(says(error_text(mixbit::error_id::file_content, [&] { weight_rows{device{}, wide, "'f'", 100}; }),
             "'m.weight': 1 rows at once take", "100 are left of --memory"));
}

}  // namespace
