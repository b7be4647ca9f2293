// What was found against what was predicted: counts, histograms and the first place.
#pragma once

#include <algorithm>
#include <bit>
#include <optional>
#include <span>
#include <vector>

#include "mixbit/validate/predict.hpp"
#include "mixbit/validate/report.hpp"

namespace mixbit::validate {

/// NaN equals NaN; -0 and +0 differ.
inline bool same_value(float a, float b) { return fp::bits(a) == fp::bits(b) || (fp::is_nan(a) && fp::is_nan(b)); }

/// A float of `type` as the number of its steps from zero.
inline std::int64_t steps_of(float v, dtype type) {
  std::uint32_t bits = fp::bits(v);
  std::uint32_t sign = 0x80000000u;
  if (type == dtype::f16) bits = from_float<half>(v).bits, sign = 0x8000u;
  if (type == dtype::bf16) bits = from_float<bfloat16>(v).bits, sign = 0x8000u;
  auto const magnitude = static_cast<std::int64_t>(bits & (sign - 1u));
  return bits & sign ? -magnitude : magnitude;
}

/// A code's place on the grid of its element: minifloats hold a sign and a magnitude.
inline int place_on_grid(int code, element_type const& e) {
  if (e.kind != element_kind::minifloat) return code;
  int const sign = 1 << (e.bits - 1), magnitude = code & (sign - 1);
  return code & sign ? -magnitude : magnitude;
}

inline void add_difference(value_differences& d, float expected, float found, dtype type) {
  ++d.compared;
  if (same_value(expected, found)) return;
  ++d.differing;
  if (fp::is_nan(expected) || fp::is_nan(found)) {
    ++(fp::is_nan(expected) ? d.nan_lost : d.nan_made);
    return;
  }
  std::int64_t const steps = steps_of(found, type) - steps_of(expected, type);
  auto const ulps = static_cast<std::uint64_t>(steps < 0 ? -steps : steps);
  if (ulps == 0) ++d.zero_signs;
  else ++d.ulps[std::bit_width(ulps - 1)];
  d.largest_ulps = std::max(d.largest_ulps, ulps);
  if (fp::is_finite(found) && fp::is_finite(expected))
    d.largest_error = std::max(d.largest_error, fp::abs(found - expected));
}

inline void add_differences(value_differences& d, std::span<float const> expected, std::span<float const> found,
                            dtype type) {
  for (std::size_t i = 0; i < expected.size(); ++i) add_difference(d, expected[i], found[i], type);
}

inline void add_differences(code_differences& d, std::span<int const> expected, std::span<int const> found,
                            element_type const& e) {
  d.compared += expected.size();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == found[i]) continue;
    ++d.differing;
    ++d.steps[place_on_grid(found[i], e) - place_on_grid(expected[i], e)];
  }
}

/// Found codes under a reading; nothing where so many bytes cannot be read so.
inline std::optional<std::vector<int>> codes_of(found_codes const& found, convention const& c, geometry const& g) {
  if (found.unpacked.empty()) return read_as(found.bytes, c.reading, c.how, g);
  std::vector<int> codes = found.unpacked;
  int const bits = c.how.element.bits, half = 1 << (bits - 1), mask = 2 * half - 1;
  for (int& code : codes) {
    if (c.reading.offset) code -= half;
    else if (c.how.element.kind != element_kind::integer && bits < 16) code &= mask;
  }
  return codes;
}

/// The scales that a kernel of this convention would have put into a file.
inline std::vector<float> file_scales(prediction const& p, convention const& c, partition const& groups,
                                      std::span<float const> amax) {
  std::vector<float> scales = p.scales;
  for (std::size_t g = 0; g < scales.size(); ++g) {
    dtype const type = c.how.scale_type;
    if (c.content == scale_content::reciprocal) scales[g] = formats::through(type, fp::div(1.0f, scales[g]));
    if (c.content == scale_content::amax) scales[g] = formats::through(type, amax[g]);
    if (c.content == scale_content::folded) scales[g] = fp::mul(scales[g], p.tensor_scale);
  }
  if (!c.scales_transposed) return scales;
  std::vector<float> moved(scales.size());
  for (std::size_t g = 0; g < scales.size(); ++g) moved[placed(scale_place::transposed, g, groups)] = scales[g];
  return moved;
}

/// Elements of a sample that contradict a convention, among all that are compared.
struct verdict {
  std::uint64_t mismatches = 0, compared = 0;
};

/// `amax` is that of the convention's groups.
inline verdict judge(sample const& s, prediction const& p, convention const& c, std::span<float const> amax) {
  verdict v;
  auto const count = [&](auto const& expected, auto const& found, auto const& same) {
    std::size_t const n = std::max(expected.size(), found.size());
    v.compared += n;
    if (expected.size() != found.size()) v.mismatches += n;
    else
      for (std::size_t i = 0; i < n; ++i) v.mismatches += same(expected[i], found[i]) ? 0 : 1;
  };
  auto const equal = [](int a, int b) { return a == b; };
  if (s.values) count(p.values, *s.values, same_value);
  if (s.codes) count(p.codes, codes_of(*s.codes, c, s.shape).value_or(std::vector<int>{}), equal);
  if (s.scales) count(file_scales(p, c, groups_of(c.groups, s.shape, s.groups), amax), *s.scales, same_value);
  if (s.tensor_scale) count(std::vector{p.tensor_scale}, std::vector{*s.tensor_scale}, same_value);
  return v;
}

namespace detail {

inline extents index_of(std::int64_t i, geometry const& g) {
  extents index{};
  for (int a = g.rank - 1; a >= 0; --a) {
    index[a] = i % g.shape[a];
    i /= g.shape[a];
  }
  return index;
}

/// The elements of a group around element `at`, up to four on each side.
inline std::vector<std::size_t> around(std::span<std::int32_t const> groups, std::size_t at) {
  std::vector<std::size_t> all;
  std::size_t before = 0, after = 0;
  for (std::size_t i = at; i-- > 0 && before < 4 && at - i < 1'000'000;)
    if (groups[i] == groups[at]) all.insert(all.begin(), i), ++before;
  all.push_back(at);
  for (std::size_t i = at + 1; i < groups.size() && after < 4 && i - at < 1'000'000; ++i)
    if (groups[i] == groups[at]) all.push_back(i), ++after;
  return all;
}

inline neighbour element_of(sample const& s, prediction const& p, std::vector<int> const& codes, std::size_t i) {
  neighbour n;
  n.index = index_of(static_cast<std::int64_t>(i), s.shape);
  n.x = s.x[i];
  if (s.values) n.expected = p.values[i], n.found = (*s.values)[i];
  if (!codes.empty()) n.expected_code = p.codes[i], n.found_code = codes[i];
  return n;
}

}  // namespace detail

/// The first element, code or scale that differs; nothing where none does. `p` is the claim's prediction.
inline std::optional<first_difference> find_first(sample const& s, prediction const& p, convention const& claim) {
  auto const codes = s.codes ? codes_of(*s.codes, claim, s.shape).value_or(std::vector<int>{}) : std::vector<int>{};
  auto const groups = group_numbers(s.shape, s.groups);
  first_difference f;
  f.sample = s.name;
  f.rank = s.shape.rank;
  auto const scales = s.scales ? file_scales(p, claim, s.groups, s.amax) : std::vector<float>{};
  bool const counted = s.scales && scales.size() == s.scales->size();
  std::size_t at = s.x.size();
  for (std::size_t i = 0; i < s.x.size() && at == s.x.size(); ++i) {
    auto const g = static_cast<std::size_t>(groups[i]);
    if (counted && !same_value(scales[g], (*s.scales)[g])) at = i, f.what = "scales";
    if (!codes.empty() && codes[i] != p.codes[i]) at = i, f.what = "codes";
    if (s.values && !same_value((*s.values)[i], p.values[i])) at = i, f.what = "output";
  }
  if (at == s.x.size()) return std::nullopt;
  f.index = detail::index_of(static_cast<std::int64_t>(at), s.shape);
  f.group = groups[at];
  auto const g = static_cast<std::size_t>(f.group);
  f.amax = s.given_codes ? 0.0f : s.amax[g];
  if (counted) f.expected_scale = scales[g], f.found_scale = (*s.scales)[g];
  for (std::size_t const i : detail::around(groups, at)) {
    if (i == at) f.at = f.block.size();
    f.block.push_back(detail::element_of(s, p, codes, i));
  }
  return f;
}

}  // namespace mixbit::validate
