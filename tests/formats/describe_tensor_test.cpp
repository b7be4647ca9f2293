#include "mixbit/formats/describe_tensor.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "mixbit/formats/check.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/described_kernel.hpp"
#include "support/format_data.hpp"

using namespace mixbit;
using namespace test_data;

namespace {

/// Encodes x and holds decode to the descriptor's kernel, bit for bit, through the tensor's type.
template <class T>
bool decodes_as_described(tensor<T>& x, partition const& groups, format const& how) {
  auto const d = describe(how, x.g, groups);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(d.size.payload));
  std::vector<std::uint8_t> scales(static_cast<std::size_t>(d.size.scales));
  float const tensor_amax = 3.0f;
  float tensor_scale = 0;
  auto const amax = amax_of(x, groups);
  reference::scalar{}.encode(
      {x.view(), groups, amax.data(), how, codes.data(), scales.data(), nullptr, &tensor_amax, &tensor_scale});
  tensor<T> y{dense_geometry(dtype_of<T>::value, std::span{x.g.shape.data(), static_cast<std::size_t>(x.g.rank)})};
  reference::scalar{}.decode({codes.data(), scales.data(), groups, how, y.ref(), &tensor_scale});
  auto const mine = test::decode_described(d, {codes.data(), scales.data(), nullptr, &tensor_scale});
  for (std::int64_t i = 0; i < y.g.size(); ++i) {
    T const rounded = from_float<T>(mine[static_cast<std::size_t>(i)]), decoded = y[i];
    if (std::memcmp(&rounded, &decoded, sizeof(T)) != 0) return false;
  }
  return static_cast<std::int64_t>(mine.size()) == y.g.size();
}

std::vector<format> stored_formats() {
  std::vector<format> all;
  for (auto const& list : {ratio_formats(), block_formats()})
    for (format const& how : list)
      if (how.numerics == policy::stored) all.push_back(how);
  return all;
}

std::vector<float> values_of(element_type const& e, packing layout) {
  return describe({e, policy::stored, dtype::f32, layout}, dense_geometry(dtype::f32, {2, 2}),
                  per_tensor(dense_geometry(dtype::f32, {2, 2})))
      .values;
}

}  // namespace

TEST_CASE("a tensor's descriptor is all that a kernel needs to decode it, in awkward shapes and ragged blocks") {
  for (auto const& shape : awkward_shapes) {
    tensor<float> x{make_geometry<float>(shape, layout::row_major)};
    fill(x, 1, false);
    tensor<bfloat16> brain{make_geometry<bfloat16>(shape, layout::row_major)};
    fill(brain, 2, false);
    for (auto const& part : partitions_of(x.g))
      for (format const& how : stored_formats()) {
        INFO(to_string(x.g), " ", part.name, " ", name_of(how), " layout ", static_cast<int>(how.layout));
        CHECK(decodes_as_described(x, part.groups, how));
        CHECK(decodes_as_described(brain, part.groups, how));
      }
  }
}

TEST_CASE("a descriptor's values are those of its element, pattern by pattern") {
  for (element_type const& e : minifloat_elements) {
    CAPTURE(name_of(e));
    auto const d = describe({e, policy::stored, dtype::f32, packing::dense_rows}, dense_geometry(dtype::f32, {1, 1}),
                            per_tensor(dense_geometry(dtype::f32, {1, 1})));
    REQUIRE(d.values.size() == std::size_t{1} << e.bits);
    for (std::size_t p = 0; p < d.values.size(); ++p) {
      auto const code = static_cast<int>(p);
      int const mantissa = code & ((1 << e.mantissa_bits) - 1), one = 1 << e.mantissa_bits;
      int const field = code >> e.mantissa_bits & ((1 << e.exponent_bits) - 1);
      float const magnitude = std::ldexp(static_cast<float>(field == 0 ? mantissa : one + mantissa),
                                         (field == 0 ? 1 : field) - d.exponent_bias - e.mantissa_bits);
      if (fp::is_finite(d.values[p]))
        CHECK(d.values[p] == (code >> (e.bits - 1) ? -magnitude : magnitude));
    }
  }
  CHECK(values_of(integer_element(4), packing::nibbles_row_pairs)[0xf] == -1.0f);
  CHECK(values_of(integer_element(4), packing::nibbles_high_first)[0xf] == 7.0f);
  CHECK(values_of(integer_element(3), packing::dense_rows)[4] == -4.0f);
  CHECK(values_of(integer_element(3), packing::bytes)[0xfc] == -4.0f);
  CHECK(values_of(integer_element(8, true), packing::bytes)[255] == 255.0f);
  CHECK(values_of(nf4_element, packing::nibbles_high_first)[15] == 1.0f);
  CHECK(values_of(integer_element(16), packing::bytes).empty());
}

TEST_CASE("a descriptor says the places of codes, the shape of blocks and the layout of scales") {
  auto const g = dense_geometry(dtype::bf16, {5, 70});
  axis_block const blocks[] = {{0, 2}, {1, 32}};
  auto const fp8 = describe({e4m3_element}, g, blocks_of(g, blocks));
  CHECK(fp8.type == dtype::bf16);
  CHECK(fp8.block[0] == 2);
  CHECK(fp8.block[1] == 32);
  CHECK(fp8.groups[0] == 3);
  CHECK(fp8.groups[1] == 3);
  CHECK(fp8.scale_stride[0] == 3);
  CHECK(fp8.scale_stride[1] == 1);
  CHECK(fp8.scale_count == 9);
  CHECK(fp8.form == scale_form::plain);
  CHECK(fp8.tensor_scale_count == 0);
  CHECK(fp8.size.scales == 9 * 4);

  auto const last = blocks_of(g, std::span{blocks + 1, 1});
  auto const nvfp4 =
      describe({e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level}, g, last);
  CHECK(nvfp4.form == scale_form::times_tensor_scale);
  CHECK(nvfp4.scale_entry == dtype::f8_e4m3);
  CHECK(nvfp4.tensor_scale_count == 1);
  CHECK(nvfp4.code_bits == 4);
  CHECK(nvfp4.row_bytes == 35);
  CHECK(nvfp4.row_axes == 1);

  auto const pairs = describe({integer_element(4), policy::stored, dtype::f16, packing::nibbles_row_pairs}, g, last);
  CHECK(pairs.nibbles == nibble_order::low_is_even_row);
  CHECK(pairs.row_bytes == 70);
  CHECK(pairs.size.payload == 3 * 70);

  format const nf4{nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first, scale_rule::ratio, 4};
  auto const doubly = describe(nf4, g, last);
  CHECK(doubly.form == scale_form::around_mean);
  CHECK(doubly.scale_entry == dtype::i8);
  CHECK(doubly.scale_count == 15);
  CHECK(doubly.scale_block == 4);
  CHECK(doubly.block_scale_count == 4);
  CHECK(doubly.tensor_scale_count == 1);
  CHECK(doubly.padding_code == 7);
  CHECK(doubly.row_bytes == 0);
}
