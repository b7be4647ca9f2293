// Lists of formats, and tensors whose values are ties of a format and the values next to them.
#pragma once

#include <algorithm>

#include "mixbit/formats/describe.hpp"
#include "mixbit/formats/rules.hpp"
#include "support/kernel_data.hpp"

namespace test_data {

inline std::vector<format> ratio_formats() {
  std::vector<format> all;
  for (auto const& e : all_elements)
    for (policy const p : {policy::stored, policy::modelopt}) all.push_back({e, p, dtype::f32, packing::dense_rows});
  for (dtype const scale : {dtype::f16, dtype::bf16})
    for (auto const& e : {integer_element(8), e4m3_element, e2m1_element})
      all.push_back({e, policy::stored, scale, packing::bytes});
  all.push_back({integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs});
  all.push_back({integer_element(4), policy::stored, dtype::f32, packing::nibbles_high_first});
  all.push_back({integer_element(16), policy::stored, dtype::f32, packing::bytes});
  for (element_type const& e : {integer_element(8), e4m3_element})
    all.push_back({e, policy::modelopt_pack, dtype::f32, packing::bytes});
  all.push_back({integer_element(4), policy::modelopt_pack, dtype::f32, packing::nibbles_high_first});
  for (policy const p : {policy::stored, policy::modelopt_pack})
    all.push_back({nf4_element, p, dtype::f32, packing::nibbles_high_first});
  return all;
}

inline std::vector<format> block_formats() {
  std::vector<format> all;
  for (auto const& e : minifloats_and({integer_element(8)}))
    for (policy const p : {policy::stored, policy::modelopt})
      for (scale_rule const r : {scale_rule::mx_nv, scale_rule::mx_ocp})
        all.push_back({e, p, dtype::f8_e8m0, packing::dense_rows, r});
  for (element_type const& e : {e2m1_element, e4m3_element})
    all.push_back({e, policy::modelopt_pack, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv});
  for (policy const p : {policy::stored, policy::modelopt, policy::modelopt_triton, policy::modelopt_pack})
    for (scale_rule const r : {scale_rule::two_level, scale_rule::four_over_six})
      all.push_back({e2m1_element, p, dtype::f8_e4m3, packing::dense_rows, r});
  return all;
}

/// A value half way between two neighbours of a format, in units of its scale.
inline float midpoint(format const& how, std::mt19937& random) {
  element_type const& e = how.element;
  if (e.kind == element_kind::lookup) {
    int const code = static_cast<int>(random() % 15);
    return (formats::nf4_value(code) + formats::nf4_value(code + 1)) * 0.5f;
  }
  if (e.kind == element_kind::minifloat) {
    formats::minifloat_codec const codec{e};
    int const code = static_cast<int>(random() % static_cast<unsigned>(formats::codes_of(e).largest));
    return (codec.value(code) + codec.value(code + 1)) * 0.5f;
  }
  auto const codes = static_cast<unsigned>(formats::integer_bound(e)) + 1;
  return static_cast<float>(random() % codes) + 0.5f;
}

inline float next_to(float v, std::mt19937& random) {
  switch (random() % 4) {
    case 0: return std::nextafter(v, 1e30f);
    case 1: return std::nextafter(v, -1e30f);
    default: return v;
  }
}

/// What a code is worth in a group with this amax: its scale, that of the tensor in it.
template <class T>
std::vector<float> steps_of(std::vector<float> const& amax, format const& how) {
  float const tensor_amax = amax.empty() ? 0.0f : *std::ranges::max_element(amax);
  bool const divides = describe(how).use == scale_use::divides;
  std::vector<float> steps;
  formats::visit_rule(how, {dtype_of<T>::value, tensor_amax}, [&](auto const& rule) {
    for (float const m : amax) {
      float const s = rule.effective(rule.file_scale(m), formats::nvfp4_tensor_scale(how.scaling, tensor_amax));
      steps.push_back(divides && s > 0 ? 1.0f / s : s);
    }
  });
  return steps;
}

/// Groups that are zero, tiny, huge or ordinary, and in them ties with their neighbours, and what is special; with an
/// even seed finite numbers only.
template <class T>
void fill_with_ties(tensor<T>& x, partition const& groups, format const& how, unsigned seed) {
  std::mt19937 random{seed};
  std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
  for (float& m : amax) {
    constexpr float some[] = {0.0f, 0x1p-24f, 0x1p-135f, 3e4f, 1.0f, 0.7f, 448.0f, 6.0f};
    m = random() % 3 ? static_cast<float>(random() >> 8) * 0x1p-22f : some[random() % 8];
  }
  auto const steps = steps_of<T>(amax, how);
  for (std::int64_t i = 0; i < x.g.size(); ++i) {
    auto const group = static_cast<std::size_t>(group_of(groups, x.g, i));
    float const m = amax[group];
    float v = m;
    if (random() % 8) v = next_to(midpoint(how, random) * steps[group], random);
    if (random() % 2 && !how.element.is_unsigned) v = -v;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    float const special[] = {0.0f, -0.0f, 1e-40f, -m, 2 * m, nan, infinity, -infinity};
    if (random() % 32 == 0) v = special[random() % (seed % 2 == 0 ? 5 : 8)];
    x[i] = from_float<T>(v);
  }
}

}  // namespace test_data
