// Kernels of block formats against their definition: scales from each block's own data or given, in every layout, and
// decode(encode) against fake quantization.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "mixbit/formats/check.hpp"
#include "mixbit/formats/scale_types.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/kernel_data.hpp"

using namespace mixbit;
using namespace test_data;

namespace {

format mx(element_type const& e, scale_rule rule, policy p = policy::stored) {
  return {e, p, dtype::f8_e8m0, e.bits == 8 ? packing::bytes : packing::dense_rows, rule};
}
format nvfp4(scale_rule rule, policy p = policy::stored) {
  return {e2m1_element, p, dtype::f8_e4m3, packing::dense_rows, rule};
}

std::vector<format> block_formats() {
  std::vector<format> all;
  for (element_type const& e : minifloats_and({integer_element(8)})) {
    all.push_back(mx(e, scale_rule::mx_nv));
    all.push_back(mx(e, scale_rule::mx_ocp));
    all.push_back(mx(e, scale_rule::mx_nv, policy::modelopt));
  }
  for (policy const p : {policy::stored, policy::modelopt, policy::modelopt_triton, policy::modelopt_pack}) {
    all.push_back(nvfp4(scale_rule::two_level, p));
    all.push_back(nvfp4(scale_rule::four_over_six, p));
  }
  all.push_back(mx(e2m1_element, scale_rule::mx_nv, policy::modelopt_pack));
  all.push_back(mx(e4m3_element, scale_rule::mx_nv, policy::modelopt_pack));
  return all;
}

/// The elements of each group in order, as float32.
template <class T>
std::vector<std::vector<float>> groups_of(tensor<T>& x, partition const& groups) {
  std::vector<std::vector<float>> all(static_cast<std::size_t>(groups.group_count()));
  for (std::int64_t i = 0; i < x.g.size(); ++i)
    all[static_cast<std::size_t>(group_of(groups, x.g, i))].push_back(to_float(x[i]));
  return all;
}

float amax_by_definition(std::vector<float> const& group) {
  float amax = 0;
  for (float const v : group)
    if (!std::isnan(v)) amax = std::max(amax, std::min(std::fabs(v), FLT_MAX));
  return amax;
}

/// The scale of each group as the file holds it, by the definition: the candidate with the smaller squared error.
template <class Rule>
float file_scale_by_definition(Rule const& rule, float amax, std::vector<float> const& group) {
  float const first = rule.file_scale(amax);
  if constexpr (formats::block_scaled<Rule>)
    if (rule.has_alternative()) {
      float const second = rule.file_scale(rule.alternative(amax));
      auto const error = [&](float scale) {
        auto const s = rule.of_scale(scale);
        double sum = 0;
        for (float const v : group) {
          double const d = rule.fake_quantize(s, v) - v;
          sum += d * d;
        }
        return sum;
      };
      return error(second) < error(first) ? second : first;
    }
  return first;
}

template <class Rule>
formats::scaling scaling_by_definition(Rule const& rule, float amax, std::vector<float> const& group) {
  if constexpr (formats::block_scaled<Rule>)
    if (rule.has_alternative()) return rule.of_scale(file_scale_by_definition(rule, amax, group));
  return rule.prepare(amax);
}

struct expectation {
  std::vector<std::uint32_t> fake;    ///< bits of the fake-quantized elements
  std::vector<float> scales;          ///< in the file
  std::vector<int> codes;
};

template <class T>
expectation by_definition(tensor<T>& x, partition const& groups, format const& how, formats::rule_inputs const& inputs,
                          std::vector<float> const& amax) {
  expectation e;
  auto const values = groups_of(x, groups);
  formats::visit_rule(how, inputs, [&](auto const& rule) {
    std::vector<formats::scaling> scalings;
    for (std::size_t g = 0; g < values.size(); ++g) {
      e.scales.push_back(file_scale_by_definition(rule, amax[g], values[g]));
      scalings.push_back(scaling_by_definition(rule, amax[g], values[g]));
    }
    for (std::int64_t i = 0; i < x.g.size(); ++i) {
      auto const& s = scalings[static_cast<std::size_t>(group_of(groups, x.g, i))];
      e.fake.push_back(bits_of(from_float<T>(rule.fake_quantize(s, to_float(x[i])))));
      e.codes.push_back(rule.encode(s, to_float(x[i])));
    }
  });
  return e;
}

template <class T>
std::vector<std::uint32_t> all_bits(tensor<T>& t) {
  std::vector<std::uint32_t> bits;
  for (std::int64_t i = 0; i < t.g.size(); ++i) bits.push_back(bits_of(t[i]));
  return bits;
}

template <class T>
void fill_with_edges(tensor<T>& x, unsigned seed) {
  fill(x, seed);
  for (std::int64_t i = 0; i < x.g.size(); ++i) {
    if (i % 48 < 16 && i > 200) x[i] = from_float<T>(i % 2 ? 0.0f : -0.0f);  // blocks of zeros
    if (i % 61 == 7) x[i] = from_float<T>(std::numeric_limits<float>::quiet_NaN());
    if (i % 97 == 5) x[i] = from_float<T>(-std::numeric_limits<float>::infinity());
  }
}

std::string text_of(format const& how, geometry const& g, std::string const& groups, amax_use use) {
  return to_string(g) + " " + groups + " " + name_of(how.element) + " " + std::string{name_of(how.scaling)} + " " +
         std::string{name_of(how.numerics)} + (use == amax_use::data ? " from data" : " given");
}

/// Fake quantization, encode and decode of one tensor under one format.
template <class T>
void check_format_on(tensor<T>& x, named_partition const& part, format const& how, amax_use use) {
  std::string const what = text_of(how, x.g, part.name, use);
  check_encodable(how, what);
  float const tensor_amax = 3.0f;
  std::vector<float> amax;
  for (auto const& group : groups_of(x, part.groups)) amax.push_back(amax_by_definition(group));
  auto const expected =
      by_definition(x, part.groups, how, {dtype_of<T>::value, tensor_amax, use == amax_use::data}, amax);
  float const* const given = use == amax_use::data ? nullptr : amax.data();
  thread_pool pool{3};
  reference::scalar const cpu{pool};

  tensor<T> y{make_geometry<T>({x.g.shape.begin(), x.g.shape.begin() + x.g.rank}, layout::row_major)};
  cpu.fake_quantize({x.view(), y.ref(), part.groups, given, how, nullptr, &tensor_amax, use});
  CHECK_MESSAGE(all_bits(y) == expected.fake, what);

  auto const size = storage_size_of(how, x.g, part.groups);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload)),
      scales(static_cast<std::size_t>(size.scales));
  float tensor_scale = 0;
  cpu.encode(
      {x.view(), part.groups, given, how, codes.data(), scales.data(), nullptr, &tensor_amax, &tensor_scale, use});
  auto const m = formats::code_matrix_of(how.layout, x.g);
  bool same_codes = true, same_scales = true;
  for (std::int64_t i = 0; i < x.g.size(); ++i) {
    auto const place = formats::place_of(how.layout, how.element.bits, m, i / m.columns, i % m.columns);
    int const code = formats::read_code(codes.data(), how.layout, how.element, place);
    same_codes = same_codes && code == expected.codes[static_cast<std::size_t>(i)];
  }
  for (std::size_t g = 0; g < expected.scales.size() && x.g.size() > 0; ++g)
    formats::visit_scale(how.scale_type, [&]<class S>(S) {
      same_scales =
          same_scales && formats::scale_value(reinterpret_cast<S const*>(scales.data())[g]) == expected.scales[g];
    });
  CHECK_MESSAGE(same_codes, what);
  CHECK_MESSAGE(same_scales, what);
  if (how.numerics != policy::stored) return;
  tensor<T> decoded{x.g};
  cpu.decode({codes.data(), scales.data(), part.groups, how, decoded.ref(), &tensor_scale});
  CHECK_MESSAGE(all_bits(decoded) == expected.fake, what);
}

template <class T>
void check_shape(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
  tensor<T> x{make_geometry<T>(shape, l)};
  fill_with_edges(x, seed);
  for (auto const& part : partitions_of(x.g)) {
    if (!line_axis(part.groups)) continue;
    for (format const& how : block_formats())
      for (amax_use const use : {amax_use::data, amax_use::given}) check_format_on(x, part, how, use);
  }
}

}  // namespace

TEST_CASE("block formats: kernels do what the rules say, in every shape and layout") {
  unsigned seed = 1;
  for (auto const& shape :
       std::vector<std::vector<std::int64_t>>{{}, {33}, {7, 45}, {4, 32}, {2, 3, 17}, {0, 4}, {3, 0}})
    for (layout const l : {layout::row_major, layout::column_major, layout::strided})
      check_shape<float>(shape, l, seed++);
}

TEST_CASE("block formats: float16 and bfloat16") {
  for (layout const l : {layout::row_major, layout::column_major}) {
    check_shape<half>({3, 70}, l, 11);
    check_shape<bfloat16>({3, 70}, l, 12);
  }
}

TEST_CASE("block formats: blocks longer than a tile of work, and rows of their own") {
  tensor<float> x{make_geometry<float>({3, 1000}, layout::row_major)};
  fill_with_edges(x, 5);
  std::vector<axis_block> const wide{{-1, 300}};
  for (format const& how : {mx(e2m1_element, scale_rule::mx_nv), nvfp4(scale_rule::four_over_six)})
    check_format_on(x, {"block 300", blocks_of(x.g, wide)}, how, amax_use::data);
}

TEST_CASE("integers with an amax of each row's own data, in one pass") {
  tensor<float> x{make_geometry<float>({5, 300}, layout::row_major)}, y{x.g};
  fill_with_edges(x, 9);
  std::vector<axis_block> const rows{{-1, std::nullopt}};
  partition const groups = blocks_of(x.g, rows);
  format const how{integer_element(8)};
  auto const expected = by_definition(x, groups, how, {}, amax_of(x, groups));  // infinities are left out
  reference::scalar{}.fake_quantize({x.view(), y.ref(), groups, nullptr, how, nullptr, nullptr, amax_use::data});
  CHECK(all_bits(y) == expected.fake);
}

TEST_CASE("four over six takes the scale that errs less, and 6 on a tie") {
  tensor<float> x{make_geometry<float>({3, 16}, layout::row_major)}, y{x.g};
  for (std::int64_t i = 0; i < 16; ++i) {
    x[i] = i == 0 ? 6.0f : 5.0f;        // on 6: 5 becomes 4 or 6; on 4: 6 -> 4, 5 -> 3.33 -> 3 or 4
    x[16 + i] = i == 0 ? 6.0f : 3.0f;   // exact on 6
    x[32 + i] = 0.0f;
  }
  float const tensor_amax = 1536.0f;    // so that the tensor's scale is 1
  std::vector<axis_block> const blocks{{-1, 16}};
  std::vector<std::uint8_t> codes(24), scales(3);
  float tensor_scale = 0;
  reference::scalar{}.encode({x.view(), blocks_of(x.g, blocks), nullptr, nvfp4(scale_rule::four_over_six), codes.data(),
                              scales.data(), nullptr, &tensor_amax, &tensor_scale, amax_use::data});
  CHECK(tensor_scale == 1.0f);
  CHECK(formats::e4m3::value(scales[0]) == 1.5f);
  CHECK(formats::e4m3::value(scales[1]) == 1.0f);
  CHECK(formats::e4m3::value(scales[2]) == 1.0f);
}
