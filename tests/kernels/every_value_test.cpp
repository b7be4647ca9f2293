// All 65 536 float16 and all bfloat16 values, and every float32 near a boundary, through the real kernels of both CPU
// backends, on every instruction set, against the rules element by element: every minifloat, under every type of scale
// that goes with it. The rules' codecs have independent oracles of their own in tests/formats/.
#include <cfloat>
#include <cmath>
#include <cstring>

#include "mixbit/formats/rules.hpp"
#include "mixbit/formats/scale_types.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "kernels/boundaries.hpp"
#include "kernels/simd_targets.hpp"
#include "support/kernel_data.hpp"

using namespace kernel_tests;
using namespace mixbit;
using namespace test_data;

namespace {

constexpr std::int64_t rows = 512, columns = 128;

std::vector<element_type> const elements = minifloats_and({integer_element(8)});

/// What a kernel is asked, and what the rule says to it.
struct question {
  format how;
  partition groups;
  std::vector<float> amax;  ///< of each group; empty: a cast without scales, or from the data
  bool from_data = false;
  float tensor_amax = 3.0f;
};

template <class T>
struct answer {
  std::vector<T> fake, decoded;
  std::vector<int> codes;
  std::vector<float> scales;
};

template <class T>
std::vector<T> every_value() {
  std::vector<T> all(rows * columns);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = T{static_cast<std::uint16_t>(i)};
  return all;
}

template <class T>
bool same(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
float block_amax(T const* x, std::int64_t n) {
  float amax = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    float const m = std::fabs(to_float(x[i]));
    if (!std::isnan(m)) amax = std::max(amax, std::min(m, FLT_MAX));
  }
  return amax;
}

template <class T>
answer<T> by_rule(question const& q, std::vector<T> const& x) {
  answer<T> a;
  std::int64_t const per_group = rows * columns / q.groups.group_count();
  bool const scaled = q.from_data || !q.amax.empty();
  formats::visit_rule(q.how, {dtype_of<T>::value, q.tensor_amax, q.from_data}, [&](auto const& rule) {
    float tensor_scale = 1.0f;
    if constexpr (requires { rule.tensor_scale(); }) tensor_scale = rule.tensor_scale();
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      std::int64_t const group = i / per_group;
      float const v = to_float(x[static_cast<std::size_t>(i)]);
      float const amax = q.from_data ? block_amax(x.data() + group * per_group, per_group)
                         : scaled    ? q.amax[static_cast<std::size_t>(group)] : 0.0f;
      float const file = scaled ? rule.file_scale(amax) : 1.0f;
      if (scaled && i % per_group == 0) a.scales.push_back(file);
      auto const s = scaled ? rule.prepare(amax) : formats::scaling{};
      a.fake.push_back(from_float<T>(rule.fake_quantize(s, v)));
      a.codes.push_back(rule.encode(s, v));
      a.decoded.push_back(from_float<T>(rule.decode(rule.effective(file, tensor_scale), a.codes.back())));
    }
  });
  return a;
}

template <class B, class T>
answer<T> by_kernel(B cpu, question const& q, std::vector<T> const& x) {
  auto const view = dense_view(x.data(), {rows, columns});
  auto const size = storage_size_of(q.how, view, q.groups);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload));
  std::vector<float> scales(static_cast<std::size_t>(q.groups.group_count()));  // aligned for every type of scale
  bool const scaled = q.from_data || !q.amax.empty();
  float const* const amax = q.amax.empty() ? nullptr : q.amax.data();
  amax_use const use = q.from_data ? amax_use::data : amax_use::given;
  float tensor_scale = 1.0f;
  answer<T> a;
  a.fake.resize(x.size());
  a.decoded.resize(x.size());
  cpu.fake_quantize({view, dense_view(a.fake.data(), {rows, columns}), q.groups, amax, q.how, nullptr, &q.tensor_amax,
                     use});
  cpu.encode({view, q.groups, amax, q.how, codes.data(), scaled ? scales.data() : nullptr, nullptr, &q.tensor_amax,
              &tensor_scale, use});
  cpu.decode({codes.data(), scaled ? scales.data() : nullptr, q.groups, q.how,
              dense_view(a.decoded.data(), {rows, columns}), is_two_level(q.how.scaling) ? &tensor_scale : nullptr});
  auto const m = formats::code_matrix_of(q.how.layout, view);
  for (std::int64_t i = 0; i < rows * columns; ++i)
    a.codes.push_back(formats::read_code(codes.data(), q.how.layout, q.how.element,
                                         formats::place_of(q.how.layout, q.how.element.bits, m, i / columns,
                                                           i % columns)));
  formats::visit_scale(q.how.scale_type, [&]<class S>(S) {
    for (std::int64_t g = 0; scaled && g < q.groups.group_count(); ++g)
      a.scales.push_back(formats::scale_value(reinterpret_cast<S const*>(scales.data())[g]));
  });
  return a;
}

template <class T>
void compare(question const& q, std::vector<T> const& x) {
  auto const expected = by_rule(q, x);
  CAPTURE(name_of(q.how.element));
  CAPTURE(name_of(q.how.numerics));
  CAPTURE(name_of(q.how.scale_type));
  CAPTURE(q.from_data);
  auto const check = [&](answer<T> const& a) {
    CHECK(same(a.fake, expected.fake));
    CHECK(same(a.codes, expected.codes));
    CHECK(same(a.scales, expected.scales));
    CHECK(same(a.decoded, expected.decoded));
    if (q.how.numerics == policy::stored) CHECK(same(a.decoded, a.fake));
  };
  check(by_kernel(reference::scalar{}, q, x));
  on_every_instruction_set([&] { check(by_kernel(reference::simd{}, q, x)); });
}

void compare_both(question const& q) {
  compare(q, every_value<half>());
  compare(q, every_value<bfloat16>());
}

}  // namespace

TEST_CASE("every value of 16 bits: one scale a tensor, in every type that holds scales") {
  auto const shape = dense_geometry(dtype::f32, {rows, columns});
  for (auto const& e : elements)
    for (policy const p : {policy::stored, policy::modelopt}) {
      if (e.kind == element_kind::minifloat)  // a cast; integers have none
        compare_both({{e, p, dtype::f32, packing::dense_rows}, per_tensor(shape), {}});
      for (dtype const scale : {dtype::f32, dtype::f16, dtype::bf16})
        for (float const amax : {6.0f, 448.0f, 1.3e-3f})
          compare_both({{e, p, scale, packing::dense_rows}, per_tensor(shape), {amax}});
    }
}

TEST_CASE("every float32 near a boundary: a cast, and one scale a tensor") {
  partition const whole = per_tensor(dense_geometry(dtype::f32, {rows, columns}));
  for (element_type const& e : minifloat_elements) {
    format const how{e, policy::stored, dtype::f32, packing::dense_rows};
    compare({how, whole, {}}, near_boundaries(e, 1.0f, rows * columns));
    for (float const amax : {6.0f, 448.0f, 1.3e-3f})
      formats::visit_rule(how, {}, [&](auto const& rule) {
        compare({how, whole, {amax}}, near_boundaries(e, rule.file_scale(amax), rows * columns));
      });
  }
}

TEST_CASE("every value of 16 bits: a cast has no scale, whatever the groups") {
  auto const shape = dense_geometry(dtype::f32, {rows, columns});
  for (std::int64_t const size : {5, 16, 32}) {
    std::vector<axis_block> const block{{-1, size}};
    for (auto const& e : elements)
      if (e.kind == element_kind::minifloat)
        compare_both({{e, policy::stored, dtype::f32, packing::dense_rows}, blocks_of(shape, block), {}});
  }
}

TEST_CASE("every value of 16 bits: MX blocks with E8M0 scales") {
  auto const shape = dense_geometry(dtype::f32, {rows, columns});
  std::vector<axis_block> const block{{-1, 32}};
  partition const groups = blocks_of(shape, block);
  auto const all = static_cast<std::size_t>(groups.group_count());
  for (auto const& e : elements)
    for (policy const p : {policy::stored, policy::modelopt})
      for (scale_rule const r : {scale_rule::mx_nv, scale_rule::mx_ocp}) {
        format const how{e, p, dtype::f8_e8m0, packing::dense_rows, r};
        compare_both({how, groups, {}, true});
        for (float const amax : {6.0f, 1.3e-3f}) compare_both({how, groups, std::vector<float>(all, amax)});
      }
}

TEST_CASE("every value of 16 bits: NVFP4 blocks with E4M3 scales") {
  auto const shape = dense_geometry(dtype::f32, {rows, columns});
  std::vector<axis_block> const block{{-1, 16}};
  partition const groups = blocks_of(shape, block);
  auto const all = static_cast<std::size_t>(groups.group_count());
  for (policy const p : {policy::stored, policy::modelopt, policy::modelopt_triton, policy::modelopt_pack}) {
    format const how{e2m1_element, p, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
    compare_both({how, groups, {}, true});
    for (float const amax : {3.0f, 0.7f, 0.0f}) compare_both({how, groups, std::vector<float>(all, amax)});
  }
}
