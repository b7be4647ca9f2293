// NVFP4 activation headroom: the statistics, the formula, and the calibrator in a model.
#include "mixbit/calib/act_headroom.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

constexpr double bin_factor = 1.0558;  // 2^(80/512/2): half a bin, up or down

quantizer_attribute_config nvfp4(calibrator_parameters p = {}) {
  return {.num_bits = {2, 1},
          .block_sizes = block_config{{{-1, 16}}, quantizer_type::dynamic_type, bit_spec{4, 3}},
          .calibrator = {"nvfp4_act_headroom", std::move(p)}};
}

struct outcome {
  float amax;
  std::string note;
};
outcome calibrated(std::vector<plain_tensor> const& batches, calibrator_parameters p = {}) {
  headroom_calibrator<cpu_backend> c{{"nvfp4_act_headroom", std::move(p)}};
  cpu_backend device;
  arena scratch;
  for (auto const& x : batches) {
    data_flags flags;
    c.observe(device, scratch, read_view(x), per_tensor(read_view(x)), &flags);
  }
  auto const amax = c.result(device, interpret(nvfp4(), policy::stored, "q"));
  REQUIRE(amax.size() == 1);
  return {amax[0], c.note()};
}

plain_tensor normal(std::int64_t rows, std::int64_t columns, unsigned seed) {
  plain_tensor t{rows, columns};
  std::mt19937 random{seed};
  std::normal_distribution<float> of;
  for (float& v : t.values) v = of(random);
  return t;
}
float largest(plain_tensor const& t) {
  float top = 0;
  for (float const v : t.values) top = std::max(top, std::abs(v));
  return top;
}
plain_tensor filled(std::int64_t rows, std::int64_t columns, float value) {
  plain_tensor t{rows, columns};
  std::ranges::fill(t.values, value);
  return t;
}
/// The amax of each block of 16 in a row, sorted, without zeros.
std::vector<double> block_amaxes(plain_tensor const& t) {
  std::vector<double> all;
  auto const columns = static_cast<std::size_t>(t.shape.shape[1]);
  for (std::size_t row = 0; row < t.values.size(); row += columns)
    for (std::size_t c = 0; c < columns; c += 16) {
      float top = 0;
      for (std::size_t i = c; i < std::min(columns, c + 16); ++i) top = std::max(top, std::abs(t.values[row + i]));
      if (top > 0) all.push_back(top);
    }
  std::ranges::sort(all);
  return all;
}
bool within_half_a_bin(double a, double b) { return a <= b * bin_factor && b <= a * bin_factor; }

}  // namespace

TEST_CASE("act_headroom: bins of log2, the outer ones for all beyond") {
  using h = block_amax_histogram;
  CHECK(h::bin_of(1.0) == 256);
  CHECK(h::bin_of(0x1p-40) == 0);
  CHECK(h::bin_of(0x1p-100) == 0);
  CHECK(h::bin_of(0x1p40) == 511);
  CHECK(h::bin_of(1e38) == 511);
  CHECK(h::bin_of(32.0) == 288);  // 5 octaves are 32 bins
  CHECK(h::bin_of(31.99) == 287);
  for (std::size_t b = 0; b < h::bins; ++b) CHECK(h::bin_of(h::center_of(b)) == b);
  h some;
  for (float const v : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN()}) some.add(v);
  CHECK(some.percentile(50) == 0);
  CHECK(some.largest() == 0);
}

TEST_CASE("act_headroom: amax is rho times the anchor's percentile, at least the upper one, to half a bin") {
  CHECK(within_half_a_bin(calibrated({filled(256, 64, 0.5f)}, {{"rho", 1024.0}}).amax, 512));
  auto const x = normal(512, 64, 1), y = normal(64, 48, 2);
  auto all = block_amaxes(x);
  auto const more = block_amaxes(y);
  all.insert(all.end(), more.begin(), more.end());
  std::ranges::sort(all);
  auto const exact = [&](double p) {
    return all[static_cast<std::size_t>(std::ceil(p / 100 * static_cast<double>(all.size()))) - 1];
  };
  for (double const anchor : {1.0, 20.0, 50.0, 99.0})
    CHECK(within_half_a_bin(calibrated({x, y}, {{"anchor", anchor}}).amax, 16384 * exact(anchor)));
  auto const low = calibrated({x, y}, {{"rho", 0.5}, {"upper", 80.0}});  // rho too small: the upper percentile
  CHECK(within_half_a_bin(low.amax, exact(80)));
  CHECK(low.note.find("no headroom") != std::string::npos);
  CHECK(calibrated({x, y}).note.empty());
  CHECK(calibrated({x, y}, {{"rho", 1e-6}, {"upper", 100.0}}).amax == static_cast<float>(all.back()));
  CHECK(calibrated({y, x}).amax == calibrated({x, y}).amax);
}

TEST_CASE("act_headroom: an upper of 100 never clips, and by default a lone outlier does not decide") {
  auto bell = normal(4096, 256, 11);
  for (float& v : bell.values) v = std::abs(v) + 1e-3f;
  for (std::size_t i = 0; i < 16; ++i) bell.values[i] = 3e7f;
  float const by_default = calibrated({bell}).amax, literal = calibrated({bell}, {{"upper", 100.0}}).amax;
  CHECK(by_default < 3e7f);
  CHECK(literal >= 3e7f);
  CHECK(literal > 100 * by_default);
  for (unsigned seed = 0; seed < 8; ++seed) {
    auto x = normal(128, 70, seed);  // 70: the last block of a row is ragged
    for (std::size_t i = 0; i < x.values.size(); ++i)
      x.values[i] *= std::pow(10.0f, static_cast<float>(i % (seed + 1)) / 2);
    CHECK(calibrated({x}, {{"upper", 100.0}}).amax >= largest(x));
  }
}

TEST_CASE("act_headroom: blocks a million times smaller than the top do not anchor, and zeros are no blocks") {
  plain_tensor x = filled(100, 64, 1.0f);
  for (std::size_t i = 0; i < 20 * 64; ++i) x.values[i] = 1e-9f;
  for (std::size_t i = 20 * 64; i < 50 * 64; ++i) x.values[i] = 0;
  CHECK(within_half_a_bin(calibrated({x}, {{"rho", 100.0}}).amax, 100));
  for (std::size_t i = 0; i < 20 * 64; ++i) x.values[i] = 1e-3f;  // these do
  CHECK(within_half_a_bin(calibrated({x}, {{"rho", 1e4}}).amax, 10));
  CHECK(calibrated({filled(4, 64, 0.0f)}).amax == 0);
  CHECK(calibrated({filled(4, 64, 0.0f)}).note.empty());
}

TEST_CASE("act_headroom: in a model, as an NVFP4 input's calibrator; NaN is counted, and other formats are refused") {
  chain net;
  model<cpu_backend> m{net};
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", nvfp4({{"rho", 256.0}}));
  auto x = normal(64, 8, 3);
  auto const expected = calibrated({x}, {{"rho", 256.0}}).amax;
  x.values.insert(x.values.end(), 8, std::numeric_limits<float>::quiet_NaN());
  plain_tensor with_nan{65, 8};
  with_nan.values = x.values;
  auto const result = quantize(m, config, [&] { apply(net.s1, with_nan, net.w1, multiply); });
  CHECK(amax(net.s1, quantizer_role::input) == std::vector{expected});
  CHECK(std::ranges::count_if(result.notes, [](auto const& n) {
          return n.starts_with("mlp.up.input_quantizer: 8 NaN or infinite");
        }) == 1);
  auto fp8 = nvfp4();
  fp8.num_bits = {4, 3}, fp8.block_sizes.reset();
  auto wrong = nothing_on();
  turn_on(wrong, "mlp.up.weight_quantizer", fp8);
  CHECK(says(error_text(error_id::format_value, [&] { quantize(m, wrong); }), "mlp.up.weight_quantizer: ", "NVFP4"));
  CHECK(amax(net.s1, quantizer_role::input) == std::vector{expected});
}
