// Integers of rows that share a scale are divided without a division by the vector kernels: on both sides of every
// middle between two codes they have the bits of reference::scalar, for scales spread over a binade. Every amax of a
// binade, by which the others differ in their exponent alone, is tried where MIXBIT_EVERY_SCALE is set: for an hour.
#include <cmath>
#include <cstdlib>
#include <limits>

#include "mixbit/formats/rules.hpp"
#include "mixbit/reference/scalar.hpp"
#include "kernels/kernel_calls.hpp"
#include "kernels/simd_targets.hpp"
#include "support/kernel_data.hpp"

using namespace kernel_tests;
using namespace mixbit;
using namespace test_data;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// The middles between codes and the two float32 on either side of each, of both signs where codes have them.
template <class F>
void for_middles(element_type const& e, float scale, F f) {
  for (float k = 0.0f; k <= formats::integer_bound(e) + 1.0f; ++k) {
    float x = (k + 0.5f) * scale;
    for (int i = 0; i < 2; ++i) x = std::nextafter(x, 0.0f);
    for (int i = 0; i < 5; ++i, x = std::nextafter(x, infinity)) {
      f(x);
      if (!e.is_unsigned) f(-x);
    }
  }
}

/// A row for each amax, of whole vectors: codes of others are made by a division.
tensor<float> middles(format const& how, std::vector<float> const& amax) {
  std::vector<float> all;
  for (float const m : amax) {
    for_middles(how.element, m / formats::integer_bound(how.element), [&](float x) { all.push_back(x); });
    all.resize((all.size() + 63) / 64 * 64);
  }
  auto const rows = static_cast<std::int64_t>(amax.size()), size = static_cast<std::int64_t>(all.size());
  tensor<float> x{dense_geometry(dtype::f32, {rows, size / rows})};
  for (std::int64_t i = 0; i < size; ++i) x[i] = all[static_cast<std::size_t>(i)];
  return x;
}

void compare(tensor<float> const& x, call const& c) {
  using reference::scalar;
  using reference::simd;
  CAPTURE(name_of(c.how.element));
  CAPTURE(c.amax[0]);
  geometry const compact = dense_like(x.g);
  CHECK(same_memory(quantized<simd>(x, compact, c, false), quantized<scalar>(x, compact, c, false)));
  CHECK(encoded<simd>(x, c) == encoded<scalar>(x, c));
}

void compare_at(format const& how, std::vector<float> const& amax) {
  tensor<float> const x = middles(how, amax);
  std::vector<axis_block> const row{{-1, std::nullopt}};
  compare(x, {blocks_of(x.g, row), amax, how, 1.0f});
}

template <class B>
std::vector<std::uint8_t> codes_of(const_tensor_ref const& x, float const& amax, format const& how) {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(x.size()));
  float scale = 0;
  data_flags flags;  // NaN is counted, and its code is 0
  B{}.encode({x, per_tensor(x), &amax, how, codes.data(), &scale, &flags});
  return codes;
}

format bytes_of(element_type const& e) { return {e, policy::stored, dtype::f32, packing::bytes}; }

}  // namespace

TEST_CASE("reference::simd: rows of integers at every middle between two codes, the bits of reference::scalar") {
  constexpr std::uint32_t one = 0x3f800000, binade = 1u << 23, rows = 64;
  std::uint32_t const step = std::getenv("MIXBIT_EVERY_SCALE") ? 1 : 8191;
  on_every_instruction_set([&] {
    for (auto const& e : {integer_element(8), integer_element(8, true)})
      for (std::uint32_t from = 0; from < binade; from += step * rows) {
        std::vector<float> amax;
        for (std::uint32_t i = 0; i < rows; ++i) amax.push_back(fp::from_bits(one + from + i * step));
        compare_at(bytes_of(e), amax);
      }
  });
}

TEST_CASE("reference::simd: rows of integers at scales that products bear and that they do not") {
  format const how = bytes_of(integer_element(8));
  on_every_instruction_set([&] {
    for (float const power : {0x1p-149f, 0x1p-126f, 0x1p-100f, 0x1p-64f, 0x1p-57f, 0x1p-56f, 0x1p0f, 0x1p70f, 0x1p71f,
                              0x1p100f, 0x1p127f}) {
      compare_at(how, {power, 0.0f});
      if (power >= 0x1p-126f) compare_at(how, {power * 1.25f, power * 1.9f});
    }
  });
}

TEST_CASE("reference::simd: rows of integers with NaN, infinities and zeros, wherever they start") {
  constexpr std::int64_t columns = 2112;  // whole vectors
  std::vector<float> const strange{std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, 0.0f, -0.0f, 1e38f,
                                   -1e38f, 1e-45f, -1e-45f};
  std::vector<float> in(columns + 16), out(in.size()), expected(in.size());
  float const amax = 3.0f;
  format const how = bytes_of(integer_element(8));
  on_every_instruction_set([&] {
    for (std::size_t kind = 0; kind <= strange.size(); ++kind)
      for (std::size_t const from : {0, 1, 5, 16}) {
        for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 701) * 0.01f - 3.5f;
        for (std::size_t i = from + kind; i < in.size() && kind < strange.size(); i += 97) in[i] = strange[kind];
        auto const x = dense_view(static_cast<float const*>(in.data() + from), {columns});
        auto const quantize = [&](auto cpu, std::vector<float>& to, const_tensor_ref const& source) {
          cpu.fake_quantize({source, dense_view(to.data() + from, {columns}), per_tensor(x), &amax, how});
        };
        quantize(reference::scalar{}, expected, x);
        quantize(reference::simd{}, out, x);
        CHECK(codes_of<reference::simd>(x, amax, how) == codes_of<reference::scalar>(x, amax, how));
        CHECK(std::memcmp(out.data() + from, expected.data() + from, columns * sizeof(float)) == 0);
        std::copy(in.begin(), in.end(), out.begin());
        quantize(reference::simd{}, out, dense_view(static_cast<float const*>(out.data() + from), {columns}));
        CHECK(std::memcmp(out.data() + from, expected.data() + from, columns * sizeof(float)) == 0);
      }
  });
}
