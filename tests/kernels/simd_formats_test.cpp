// reference::simd = reference::scalar, bit for bit: every format, policy and scale rule, amax given and taken from the
// data, at lengths around the vectors' and the batches', on values at and next to ties, on every instruction set.
#include <algorithm>
#include <span>

#include "mixbit/reference/scalar.hpp"
#include "kernels/kernel_calls.hpp"
#include "kernels/simd_targets.hpp"
#include "support/format_data.hpp"

using namespace kernel_tests;
using namespace mixbit;
using namespace test_data;

namespace {

template <class T>
void compare(tensor<T> const& x, call const& c, char const* name) {
  using reference::scalar;
  using reference::simd;
  auto const where = [&](char const* kernel) {
    return std::string{kernel}.append(" of ").append(name_of(c.how.element)).append(" ").append(name_of(c.how.numerics))
        .append(" ").append(name_of(c.how.scaling)).append(" ").append(name).append(" ").append(to_string(x.g))
        .append(" ").append(name_of(x.g.type)).append(c.amax.empty() ? " from data" : " given");
  };
  geometry const compact = dense_like(x.g);
  if (!same_memory(quantized<simd>(x, compact, c, false), quantized<scalar>(x, compact, c, false)))
    FAIL_CHECK(where("fake_quantize"));
  if (!same_memory(quantized<simd>(x, compact, c, true), quantized<scalar>(x, compact, c, true)))
    FAIL_CHECK(where("fake_quantize in place"));
  // dynamic scales without blocks are simulated only: files hold static ones
  if (!formats::has_codes(c.how.element.bits) || (c.amax.empty() && c.how.scaling == scale_rule::ratio)) return;
  auto const codes = encoded<scalar>(x, c);
  if (encoded<simd>(x, c) != codes) FAIL_CHECK(where("encode"));
  if (!same_memory(decoded<simd, T>(compact, c, codes), decoded<scalar, T>(compact, c, codes)))
    FAIL_CHECK(where("decode"));
}

template <class T>
void compare_on(geometry const& g, named_partition const& part, format const& how, unsigned seed) {
  tensor<T> x{g};
  fill_with_ties(x, part.groups, how, seed);
  call c{part.groups, amax_of(x, part.groups), how, 1.0f};
  for (float const m : c.amax) c.tensor_amax = std::max(c.tensor_amax, m);
  if (seed % 5 == 0) c.tensor_amax = 0.0f;  // its scale is 0, as that of a tensor of the smallest numbers
  compare(x, c, part.name.c_str());
  if (how.numerics == policy::modelopt_pack || !line_axis(part.groups) || how.scaling == scale_rule::ratio) return;
  c.amax.clear();
  compare(x, c, part.name.c_str());
}

template <class T>
void compare_all(std::vector<format> const& list, std::vector<std::int64_t> const& blocks) {
  unsigned seed = 1;
  for (std::vector<std::int64_t> const& shape :
       {std::vector<std::int64_t>{1}, {15}, {16}, {17}, {5, 33}, {3, 64}, {2, 3, 80}, {1, 2049}})
    for (auto const l : {layout::row_major, layout::column_major, layout::strided}) {
      if (l != layout::row_major && shape.size() == 1) continue;
      geometry const g = make_geometry<T>(shape, l);
      for (auto const& how : list)
        for (std::int64_t const block : blocks) {
          std::vector<axis_block> const last{{-1, block}};
          compare_on<T>(g, {"block " + std::to_string(block), blocks_of(g, last)}, how, ++seed);
        }
    }
}

}  // namespace

TEST_CASE("reference::simd: formats with a ratio scale, the bits of reference::scalar") {
  on_every_instruction_set([] {
    compare_all<float>(ratio_formats(), {16, 32, 100, 4096});
    compare_all<half>(ratio_formats(), {32, 4096});
    compare_all<bfloat16>(ratio_formats(), {32, 4096});
  });
}

TEST_CASE("reference::simd: block formats, the bits of reference::scalar") {
  on_every_instruction_set([] {
    compare_all<float>(block_formats(), {8, 16, 32, 48});
    compare_all<half>(block_formats(), {16, 32});
    compare_all<bfloat16>(block_formats(), {16, 32});
  });
}

TEST_CASE("reference::simd: four over six takes 6 where the errors are the same squares in another order") {
  std::mt19937 random{7};
  tensor<float> x{dense_geometry(dtype::f32, {8, 1024})};
  std::vector<axis_block> const block{{-1, 16}};
  call const c{blocks_of(x.g, block), {}, {e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows,
               scale_rule::four_over_six}, 1536.0f};  // so that the scales of a block are 1 and 1.5
  for (std::int64_t first = 0; first < x.g.size(); first += 16) {
    std::vector<float> values{6.0f, 0.0f};
    while (values.size() < 16) {
      // under the scale 1 these err by t and by 1/4 - t, under 1.5 the other way round
      float const t = static_cast<float>(random() % 0x3ffff) * 0x1p-20f;
      values.insert(values.end(), {0.5f + t, 0.75f + t});
    }
    std::ranges::shuffle(values, random);
    for (std::int64_t i = 0; i < 16; ++i) x[first + i] = values[static_cast<std::size_t>(i)];
  }
  std::int64_t const scales_at = x.g.size() / 2 + 8;  // behind the codes
  auto const codes = encoded<reference::scalar>(x, c);
  CHECK(std::ranges::count(codes.begin() + scales_at, codes.begin() + scales_at + 512, 0x38) == 512);
  on_every_instruction_set([&] { compare(x, c, "ties"); });
}

TEST_CASE("reference::simd: dynamic scales per token, the bits of reference::scalar") {
  on_every_instruction_set([] {
    for (auto const& how : {format{}, format{e4m3_element}, format{integer_element(8), policy::modelopt}})
      for (std::int64_t const n : {40, 1000, 2048, 5000, 40000}) {
        geometry const g = dense_geometry(dtype::f32, {3, n});
        std::vector<axis_block> const token{{-1, std::nullopt}};
        call c{blocks_of(g, token), {}, how, 0.0f};
        tensor<float> x{g};
        fill_with_ties(x, c.groups, how, static_cast<unsigned>(n));
        compare(x, c, "token");
      }
  });
}

TEST_CASE("reference::simd: every code of a byte, those that nothing encodes to included") {
  std::vector<std::uint8_t> codes(256);
  for (int i = 0; i < 256; ++i) codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i);
  on_every_instruction_set([&] {
    for (auto how : ratio_formats()) {
      if (how.element.bits > 8 || how.element == nf4_element) continue;
      how.layout = packing::bytes;
      tensor<float> a{dense_geometry(dtype::f32, {256})}, b{a.g};
      reference::scalar{}.decode({codes.data(), nullptr, per_tensor(a.g), how, a.ref()});
      reference::simd{}.decode({codes.data(), nullptr, per_tensor(b.g), how, b.ref()});
      CAPTURE(name_of(how.element));
      CHECK(same_memory(a.memory, b.memory));
    }
  });
}

TEST_CASE("reference::simd: tensors past the caches are stored around them, wherever they start") {
  constexpr std::int64_t rows = 1025, columns = 8200;  // 33.6 MB
  std::vector<float> x(rows * columns), scalar_y(x.size() + 16, -7.0f), simd_y(x.size() + 16, -7.0f);
  std::mt19937 random{3};
  for (float& v : x) v = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-29f;
  std::vector<axis_block> const block{{-1, 8}};
  auto const view = dense_view(static_cast<float const*>(x.data()), {rows, columns});
  format const mx{e4m3_element, policy::stored, dtype::f8_e8m0, packing::bytes, scale_rule::mx_nv};
  for (std::int64_t const shift : {0, 3}) {
    auto const y = dense_view(scalar_y.data() + shift, {rows, columns});
    auto const z = dense_view(simd_y.data() + shift, {rows, columns});
    float const amax = 3.7f;
    reference::scalar{}.fake_quantize({view, y, per_tensor(view), &amax, {}, nullptr});
    reference::simd{}.fake_quantize({view, z, per_tensor(view), &amax, {}, nullptr});
    CHECK(same_memory(scalar_y, simd_y));
    auto const groups = blocks_of(view, block);
    reference::scalar{}.fake_quantize({view, y, groups, nullptr, mx, nullptr, nullptr, amax_use::data});
    reference::simd{}.fake_quantize({view, z, groups, nullptr, mx, nullptr, nullptr, amax_use::data});
    CHECK(same_memory(scalar_y, simd_y));
  }
}

namespace {

struct large_codes {
  std::vector<std::uint8_t> memory;
  std::span<std::uint8_t> codes;  ///< from an address that is aligned to 64 bytes on
  std::vector<float> scales;
  data_flags flags;

  large_codes(std::int64_t payload, std::int64_t groups)
      : memory(static_cast<std::size_t>(payload) + 96, 0xee), scales(static_cast<std::size_t>(groups), -1.0f) {
    std::size_t const past = reinterpret_cast<std::uintptr_t>(memory.data()) % 64;
    codes = std::span{memory}.subspan((64 - past) % 64, static_cast<std::size_t>(payload) + 32);
  }
};

/// The codes and scales of a tensor past the caches, from an aligned address on and from one that is not, by every
/// instruction set: each stores around the caches in its own way.
void compare_large_codes(std::vector<float> const& x, std::int64_t rows, std::int64_t columns, format const& how,
                         std::vector<axis_block> const& block, amax_use use) {
  auto const view = dense_view(x.data(), {rows, columns});
  auto const groups = block.empty() ? per_tensor(view) : blocks_of(view, block);
  auto const payload = storage_size_of(how, view, groups).payload;
  std::vector<float> const amax(static_cast<std::size_t>(groups.group_count()), 3.7f);
  float const* const given = use == amax_use::data ? nullptr : amax.data();
  for (std::size_t const shift : {0u, 5u}) {
    auto const encode = [&](auto&& backend) {
      large_codes e{payload, groups.group_count()};
      backend.encode({view, groups, given, how, e.codes.data() + shift, e.scales.data(), &e.flags, nullptr, nullptr,
                      use});
      return e;
    };
    large_codes const expected = encode(reference::scalar{});
    on_every_instruction_set([&] {
      large_codes const got = encode(reference::simd{});
      CAPTURE(name_of(how.element));
      CHECK(std::ranges::equal(expected.codes, got.codes));
      CHECK(same_memory(expected.scales, got.scales));
      CHECK(expected.flags.nonfinite == got.flags.nonfinite);
    });
  }
}

}  // namespace

TEST_CASE("reference::simd: codes of tensors past the caches are stored around them, wherever they start") {
  constexpr std::int64_t rows = 1025, columns = 8200;
  std::vector<float> x(rows * columns);
  std::mt19937 random{5};
  for (float& v : x) v = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-29f;
  // in rows whose codes start at a multiple of 64 bytes, and in one whose do not
  for (std::int64_t const at : {100, 8 * 8200 + 4097, 77777})
    x[static_cast<std::size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
  std::vector<axis_block> const block{{-1, 32}}, odd{{-1, 48}};
  auto const mx = [](element_type const& e) {
    return format{e, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv};
  };
  compare_large_codes(x, rows, columns, {}, {}, amax_use::given);
  compare_large_codes(x, rows, columns, {e4m3_element}, odd, amax_use::given);
  compare_large_codes(x, rows, columns, {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs},
                      block, amax_use::given);
  for (auto const& e : {e4m3_element, e3m2_element, e2m1_element})
    compare_large_codes(x, rows, columns, mx(e), block, amax_use::data);
}
