// reference::simd = reference::scalar, bit for bit: every format, policy and scale rule, amax given and taken from the
// data, at lengths around the vectors' and the batches', on values at and next to ties, on every instruction set.
#include <cmath>
#include <cstring>
#include <limits>

#include "mixbit/formats/check.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "kernels/simd_targets.hpp"
#include "support/kernel_data.hpp"

using namespace kernel_tests;
using namespace mixbit;
using namespace test_data;

namespace {

std::vector<element_type> const minifloats{e4m3_element, e5m2_element, e3m2_element, e2m3_element,
                                           e2m1_element, e1m2_element, e0m3_element, e3m0_element};

std::vector<format> ratio_formats() {
  std::vector<format> all;
  auto elements = all_elements;
  elements.insert(elements.end(), minifloats.begin() + 1, minifloats.end());
  for (auto const& e : elements)
    for (policy const p : {policy::stored, policy::modelopt}) all.push_back({e, p, dtype::f32, packing::dense_rows});
  for (dtype const scale : {dtype::f16, dtype::bf16})
    for (auto const& e : {integer_element(8), e4m3_element, e2m1_element})
      all.push_back({e, policy::stored, scale, packing::bytes});
  all.push_back({integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs});
  all.push_back({integer_element(4), policy::stored, dtype::f32, packing::nibbles_high_first});
  all.push_back({integer_element(16), policy::stored, dtype::f32, packing::bytes});
  all.push_back({integer_element(4), policy::modelopt_pack, dtype::f32, packing::nibbles_high_first});
  all.push_back({nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first});
  return all;
}

std::vector<format> block_formats() {
  std::vector<format> all;
  auto elements = minifloats;
  elements.push_back(integer_element(8));
  for (auto const& e : elements)
    for (policy const p : {policy::stored, policy::modelopt})
      for (scale_rule const r : {scale_rule::mx_nv, scale_rule::mx_ocp})
        all.push_back({e, p, dtype::f8_e8m0, packing::dense_rows, r});
  all.push_back({e2m1_element, policy::modelopt_pack, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv});
  for (policy const p : {policy::stored, policy::modelopt, policy::modelopt_triton, policy::modelopt_pack})
    all.push_back({e2m1_element, p, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level});
  all.push_back({e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::four_over_six});
  return all;
}

/// A value half way between two neighbours of a format, in units of its scale.
float midpoint(format const& how, std::mt19937& random) {
  element_type const& e = how.element;
  if (e.kind == element_kind::minifloat) {
    formats::minifloat_codec const codec{e};
    int const code = static_cast<int>(random() % static_cast<unsigned>(formats::codes_of(e).largest));
    return (codec.value(code) + codec.value(code + 1)) * 0.5f;
  }
  auto const codes = static_cast<unsigned>(formats::integer_bound(e)) + 1;
  return static_cast<float>(random() % codes) + 0.5f;
}

float next_to(float v, std::mt19937& random) {
  switch (random() % 4) {
    case 0: return std::nextafter(v, 1e30f);
    case 1: return std::nextafter(v, -1e30f);
    default: return v;
  }
}

/// Groups that are zero, tiny, huge or ordinary, and in them ties with their neighbours, and what is special.
template <class T>
void fill_with_ties(tensor<T>& x, partition const& groups, format const& how, unsigned seed) {
  std::mt19937 random{seed};
  std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
  for (float& m : amax) {
    constexpr float some[] = {0.0f, 0x1p-24f, 0x1p-135f, 3e4f, 1.0f, 0.7f, 448.0f, 6.0f};
    m = random() % 3 ? static_cast<float>(random() >> 8) * 0x1p-22f : some[random() % 8];
  }
  float const largest = how.element.kind == element_kind::minifloat ? formats::minifloat_codec{how.element}.largest()
                                                                    : formats::integer_bound(how.element);
  for (std::int64_t i = 0; i < x.g.size(); ++i) {
    float const m = amax[static_cast<std::size_t>(group_of(groups, x.g, i))];
    float v = m;
    if (random() % 8) v = next_to(midpoint(how, random) * (m / largest), random);
    if (random() % 2 && !how.element.is_unsigned) v = -v;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    float const special[] = {0.0f, -0.0f, nan, infinity, -infinity, 1e-40f, -m, 2 * m};
    if (random() % 32 == 0) v = special[random() % 8];
    x[i] = from_float<T>(v);
  }
}

template <class T>
bool same_memory(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

struct call {
  partition groups;
  std::vector<float> amax;  // empty: from the data
  format how;
  float tensor_amax = 0;
  amax_use use() const { return amax.empty() ? amax_use::data : amax_use::given; }
  float const* given() const { return amax.empty() ? nullptr : amax.data(); }
};

template <class B, class T>
std::vector<T> quantized(tensor<T> x, geometry const& to, call const& c, bool in_place) {
  tensor<T> y{to};
  data_flags flags;
  B cpu;
  auto& target = in_place ? x : y;
  cpu.fake_quantize({x.view(), target.ref(), c.groups, c.given(), c.how, &flags, &c.tensor_amax, c.use()});
  target.memory.push_back(T(from_float<T>(static_cast<float>(flags.negative_unsigned))));
  return target.memory;
}

/// Codes, scales, the tensor's scale and the count of NaN, in this order.
template <class B, class T>
std::vector<std::uint8_t> encoded(tensor<T> x, call const& c) {
  auto const size = storage_size_of(c.how, x.g, c.groups);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload) + 8, 0xee),
      scales(static_cast<std::size_t>(size.scales), 0xee);
  float tensor_scale = 0;
  data_flags flags;
  B cpu;
  cpu.encode({x.view(), c.groups, c.given(), c.how, codes.data(), scales.data(), &flags, &c.tensor_amax, &tensor_scale,
              c.use()});
  codes.insert(codes.end(), scales.begin(), scales.end());
  for (int i = 0; i < 4; ++i) codes.push_back(static_cast<std::uint8_t>(fp::bits(tensor_scale) >> 8 * i));
  codes.push_back(static_cast<std::uint8_t>(flags.nonfinite));
  return codes;
}

template <class B, class T>
std::vector<T> decoded(geometry const& g, call const& c, std::vector<std::uint8_t> const& codes) {
  auto const size = storage_size_of(c.how, g, c.groups);
  tensor<T> y{g};
  float tensor_scale = 0;
  std::memcpy(&tensor_scale, codes.data() + codes.size() - 5, sizeof tensor_scale);
  // memory of their own, which is aligned for any type of scale
  auto const first = codes.begin() + static_cast<std::ptrdiff_t>(size.payload) + 8;
  std::vector<std::uint8_t> const scales(first, first + static_cast<std::ptrdiff_t>(size.scales));
  B cpu;
  cpu.decode({codes.data(), scales.data(), c.groups, c.how, y.ref(), &tensor_scale});
  return y.memory;
}

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

/// All values of 16 bits in one row, cast without a scale and with one.
template <class T>
void compare_every_value(element_type const& e) {
  tensor<T> x{dense_geometry(dtype_of<T>::value, {65536})};
  for (std::int64_t i = 0; i < 65536; ++i) x[i] = T{static_cast<std::uint16_t>(i)};
  for (policy const p : {policy::stored, policy::modelopt})
    for (float const amax : {6.0f, 448.0f, 1.3e-3f}) {
      call const c{per_tensor(x.g), {amax}, {e, p}, 0.0f};
      compare(x, c, "all values");
    }
  for (policy const p : {policy::stored, policy::modelopt}) {
    tensor<T> a{x.g}, b{x.g};
    reference::scalar{}.fake_quantize({x.view(), a.ref(), per_tensor(x.g), nullptr, {e, p}, nullptr});
    reference::simd{}.fake_quantize({x.view(), b.ref(), per_tensor(x.g), nullptr, {e, p}, nullptr});
    CHECK(same_memory(a.memory, b.memory));
  }
}

TEST_CASE("reference::simd: every value of 16 bits in every minifloat, the bits of reference::scalar") {
  on_every_instruction_set([] {
    for (auto const& e : minifloats) {
      CAPTURE(name_of(e));
      compare_every_value<half>(e);
      compare_every_value<bfloat16>(e);
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
