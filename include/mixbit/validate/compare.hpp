// Conformance: somebody's results against the reference, as a report.
//
//   mixbit::reference::scalar cpu;                               // or any backend that is trusted
//   format const how{integer_element(8)};
//   auto const r = validate::compare_fake_quantize(cpu, x, y, how, per_tensor(x));
//   std::cout << validate::to_text(r);                           // validate/text.hpp
//
// The tensors may be views of any strides on the host or in the backend's memory. Where results differ the report says
// how, where first, what the differing elements have in common, and which other convention they do match: policies,
// scale rules, packings, and the usual mistakes (validate/convention.hpp).
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mixbit/validate/confined.hpp"
#include "mixbit/validate/search.hpp"

namespace mixbit::validate {

namespace detail {

template <class T>
T& filled(std::optional<T>& optional) {
  return optional ? *optional : optional.emplace();
}

inline void add_scales(report& r, sample const& s, prediction const& p, convention const& claim) {
  auto const expected = file_scales(p, claim, s.groups, s.amax);
  r.scales_miscounted |= expected.size() != s.scales->size();
  auto& d = filled(r.scales);
  if (expected.size() == s.scales->size()) add_differences(d, expected, *s.scales, dtype::f32);
}

inline void add_sample(report& r, sample const& s, prediction const& p, convention const& claim) {
  r.elements += s.x.size();
  r.groups += static_cast<std::uint64_t>(s.groups.group_count());
  if (s.values) add_differences(filled(r.values), p.values, *s.values, s.shape.type);
  if (s.codes) {
    auto const codes = codes_of(*s.codes, claim, s.shape);
    r.codes_unreadable |= !codes;
    auto& d = filled(r.codes);
    if (codes) add_differences(d, p.codes, *codes, claim.how.element);
  }
  if (s.scales) add_scales(r, s, p, claim);
  if (s.tensor_scale)
    add_differences(filled(r.tensor_scale), std::vector{p.tensor_scale}, std::vector{*s.tensor_scale}, dtype::f32);
  if (!r.first) r.first = find_first(s, p, claim);
}

/// Was nothing done at all?
inline bool is_input(std::span<sample const> samples) {
  return std::all_of(samples.begin(), samples.end(), [](sample const& s) {
    return s.values && !s.given_codes && std::equal(s.x.begin(), s.x.end(), s.values->begin(), same_value);
  });
}

/// More than what a few strange elements would explain?
inline bool many_elements_differ(report const& r) {
  std::uint64_t const differing = (r.values ? r.values->differing : 0) + (r.codes ? r.codes->differing : 0);
  return differing * 100 > r.elements;
}

/// Does the best hypothesis leave most of the claim's mismatches?
inline bool unexplained(report const& r) {
  for (hypothesis const& h : r.hypotheses)
    if (h.changes == 0) return r.hypotheses.front().mismatches * 2 > h.mismatches;
  return false;
}

/// Is every result one of the two neighbours of its scaled input?
template <backend B>
bool between_neighbours(B& b, std::span<sample const> samples, convention const& claim) {
  convention low = claim, high = claim;
  low.rounding = rounding_mode::toward_zero;
  high.rounding = rounding_mode::away;
  for (sample const& s : samples) {
    predictor<B> const predict{b, s};
    auto const under = predict(low), over = predict(high);
    auto const codes = s.codes ? codes_of(*s.codes, claim, s.shape) : std::nullopt;
    if (s.given_codes || !under || !over || (s.codes && !codes) || (!s.codes && !s.values)) return false;
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      if (fp::is_nan(s.x[i])) continue;
      if (codes && (*codes)[i] != under->codes[i] && (*codes)[i] != over->codes[i]) return false;
      if (s.values && (*s.values)[i] != under->values[i] && (*s.values)[i] != over->values[i]) return false;
    }
  }
  return true;
}

/// Is every change of `fewer` one of `more`?
inline bool within(std::vector<std::string> const& fewer, std::vector<std::string> const& more) {
  return std::all_of(fewer.begin(), fewer.end(), [&](std::string const& change) {
    return std::find(more.begin(), more.end(), change) != more.end();
  });
}

/// The claim, and what is better than it and than all that changes less. `all` is sorted.
inline void add_hypotheses(report& r, std::span<tried const> all, convention const& claim) {
  constexpr std::size_t shown = 6;
  std::vector<tried const*> kept;
  auto const adds_nothing = [&](tried const& t) {
    return std::any_of(all.begin(), all.end(), [&](tried const& other) {
      return other.changes < t.changes && other.found.mismatches <= t.found.mismatches && other.changes > 0 &&
             within(changes(other.what, claim), changes(t.what, claim));
    });
  };
  auto const claimed = std::find_if(all.begin(), all.end(), [](tried const& t) { return t.changes == 0; });
  for (tried const& t : all) {
    bool const of_use = t.found.mismatches < claimed->found.mismatches || t.found.mismatches == 0;
    if (t.changes == 0 || (kept.size() < shown && of_use && !adds_nothing(t))) kept.push_back(&t);
  }
  for (tried const* t : kept)
    r.hypotheses.push_back({describe_changes(t->what, claim), t->found.mismatches, t->found.compared, t->changes});
}

}  // namespace detail

/// Compares samples of one claim; a report of them all. For callers with more than one tensor.
template <backend B>
report compare(B& b, std::span<sample const> samples, format const& how) {
  convention const claim = claim_of(how);
  report r;
  r.claim = name_of(claim);
  common_properties common;
  for (sample const& s : samples) {
    auto const p = predictor<B>{b, s}(claim);
    detail::add_sample(r, s, *p, claim);
    common.add(s, *p, claim);
  }
  r.confined = common.all();
  if (!r.conformant() && detail::is_input(samples)) r.notes.push_back("the output is the input: nothing was quantized");
  auto const all = convention_search<B>{b, samples, claim}.run();
  detail::add_hypotheses(r, all, claim);
  bool const some = detail::many_elements_differ(r) && detail::unexplained(r) && can_emulate(how);
  r.stochastic = some && detail::between_neighbours(b, samples, claim);
  return r;
}

/// Compares what one tensor gave. Errors begin with `where`; they are those of make_sample.
template <backend B>
report compare(B& b, results const& found, expectation const& expected, std::string const& where = "tensor") {
  sample const s = make_sample(b, found, expected, where);
  return compare(b, std::span{&s, 1}, expected.how);
}

/// y = Q(x) by somebody's kernel. Without `amax` the groups' own largest magnitudes are meant.
template <backend B>
report compare_fake_quantize(B& b, const_tensor_ref const& x, const_tensor_ref const& y, format const& how,
                             partition const& groups, std::span<float const> amax = {}) {
  return compare(b, results{x, y}, expectation{how, groups, amax});
}

/// Codes by somebody's kernel, and its scales where they are at hand.
template <backend B>
report compare_codes(B& b, const_tensor_ref const& x, const_tensor_ref const& codes,
                     std::optional<const_tensor_ref> scales, std::optional<float> tensor_scale, format const& how,
                     partition const& groups, std::span<float const> amax = {}) {
  return compare(b, results{x, std::nullopt, codes, scales, tensor_scale}, expectation{how, groups, amax});
}

}  // namespace mixbit::validate
