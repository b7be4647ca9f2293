// Which convention explains what was found: changes the claim's fields one by one and keeps what contradicts least.
//
// A beam search: of each step's conventions the best few are changed further, while that removes mismatches, up to four
// changes. Everything tried is ranked by mismatches, then by how little it changes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/validate/difference.hpp"

namespace mixbit::validate {

struct tried {
  convention what;
  verdict found;
  std::size_t changes = 0;
};

namespace detail {

/// What the samples can show: only such fields are varied.
struct visible {
  bool values = false, codes = false, scales = false, decodes = false, amax_given = false, dynamic = false;
  bool nan = false, subnormal = false, ragged = false, groups = false, matrix_of_groups = false;
  int rank = 0;
  std::int64_t block = 0;  // the largest along the line axis; 0 where groups are no lines
};

inline visible visible_in(std::span<sample const> samples) {
  visible v;
  for (sample const& s : samples) {
    v.values |= s.values.has_value();
    v.codes |= s.codes.has_value();
    v.scales |= s.scales.has_value();
    v.decodes |= s.given_codes.has_value();
    v.amax_given |= s.amax_given;
    v.dynamic |= s.dynamic;
    for (float x : s.x) {
      v.nan |= fp::is_nan(x);
      v.subnormal |= x != 0.0f && fp::abs(x) < least_normal(s.shape.type);
    }
    if (s.values)
      for (float y : *s.values) v.subnormal |= y != 0.0f && fp::abs(y) < least_normal(s.shape.type);
    auto const ragged = ragged_elements(s.shape, s.groups);
    v.ragged |= std::find(ragged.begin(), ragged.end(), true) != ragged.end();
    v.groups |= s.groups.group_count() > 1;
    int split = 0;
    for (int a = 0; a < s.groups.rank; ++a) split += s.groups.groups[a] > 1 ? 1 : 0;
    v.matrix_of_groups |= split > 1;
    v.rank = std::max<int>(v.rank, s.shape.rank);
    if (auto const axis = line_axis(s.groups); axis && *axis >= 0)
      v.block = std::max(v.block, s.groups.block[*axis]);
  }
  return v;
}

/// Collects conventions that differ from `base` in one field and that exist.
class variations {
 public:
  variations(convention const& base, visible const& seen) : base_{base}, seen_{seen} {
    formats_of_base();
    if (!seen.decodes) arithmetic_of_base();
    if (seen.groups) vary(&convention::place, {scale_place::own, scale_place::previous, scale_place::next,
                                               scale_place::first});
    if (seen.matrix_of_groups) vary(&convention::place, {scale_place::transposed});
    if (seen.values || base.how.element.kind == element_kind::minifloat)
      vary(&convention::zeros,
           {zero_sign::of_format,
            describe(base.how, seen.dynamic).negative_zero ? zero_sign::positive : zero_sign::of_input});
    if (is_two_level(base.how.scaling)) vary(&convention::no_tensor_scale, {false, true});
    if (seen.codes || seen.decodes) readings();
    if (seen.scales || seen.decodes) vary(&convention::content, {scale_content::of_format, scale_content::reciprocal});
    if (seen.scales) {
      vary(&convention::content, {scale_content::amax});
      if (is_two_level(base.how.scaling)) vary(&convention::content, {scale_content::folded});
      if (seen.matrix_of_groups) vary(&convention::scales_transposed, {false, true});
    }
  }

  std::vector<convention> take() { return std::move(all_); }

 private:
  template <class Field, std::size_t N>
  void vary(Field convention::*field, Field const (&values)[N]) {
    for (Field const& value : values) {
      convention c = base_;
      c.*field = value;
      add(c);
    }
  }

  void add(convention const& c) {
    if (c == base_) return;
    try {
      check_format(c.how, "");
    } catch (error const&) {
      return;  // there is no such format
    }
    all_.push_back(c);
  }

  template <class Change>
  void change_format(Change const& change) {
    convention c = base_;
    change(c.how);
    add(c);
  }

  void formats_of_base() {
    format const& how = base_.how;
    for (policy p : {policy::stored, policy::modelopt, policy::modelopt_triton, policy::modelopt_pack})
      if (p != policy::modelopt_triton || is_two_level(how.scaling)) change_format([&](format& f) { f.numerics = p; });
    for (element_type const& e : minifloat_elements)
      if (how.element.kind == element_kind::minifloat && e.bits == how.element.bits)
        change_format([&](format& f) { f.element = e; });
    if (!seen_.decodes) scales_of_base();  // a decoder is given its scales
  }

  void scales_of_base() {
    format const& how = base_.how;
    auto const other = [&](scale_rule one, scale_rule two) {
      change_format([&](format& f) { f.scaling = how.scaling == one ? two : one; });
    };
    if (is_mx(how.scaling)) other(scale_rule::mx_nv, scale_rule::mx_ocp);
    if (is_two_level(how.scaling)) other(scale_rule::two_level, scale_rule::four_over_six);
    if (how.scaling == scale_rule::ratio)
      for (dtype t : {dtype::f32, dtype::f16, dtype::bf16}) change_format([&](format& f) { f.scale_type = t; });
    if (how.element.kind == element_kind::integer && !how.element.is_unsigned && !is_mx(how.scaling))
      change_format([](format& f) { f.element.narrow_range = !f.element.narrow_range; });
  }

  /// Only what the format does not do by itself.
  void arithmetic_of_base() {
    format const& how = base_.how;
    using r = rounding_mode;
    using a = arithmetic;
    if (can_emulate(how))
      for (r m : {r::of_format, r::half_even, r::half_away, r::half_added, r::half_up, r::half_toward, r::toward_zero,
                  r::away, r::down})
        if (m != emulation::native_rounding(how)) vary(&convention::rounding, {m});
    if (how.scaling == scale_rule::ratio && can_emulate(how))
      for (a m : {a::of_format, a::divides, a::reciprocal, a::inverse, a::inverse_product, a::inverse_ratio,
                  a::bound_reciprocal})
        if (m != emulation::native_scaling(how)) vary(&convention::scaling, {m});
    if (how.scaling == scale_rule::two_level) vary(&convention::scaling, {a::of_format, a::reciprocal});
    if (seen_.nan) uses_of_nan();
    if (seen_.subnormal) vary(&convention::subnormals, {flush::none, flush::inputs});
    if (seen_.subnormal && seen_.values) vary(&convention::subnormals, {flush::results});
    if (seen_.ragged) vary(&convention::tail, {tail_use::of_format, tail_use::zeroed});
    if (seen_.ragged && seen_.values) vary(&convention::tail, {tail_use::copied});
    if (!seen_.amax_given) regroup();
  }

  void uses_of_nan() {
    format_description const d = describe(base_.how, seen_.dynamic);
    bool const file_like = d.decode_is_fake_quantize;
    vary(&convention::nan, {nan_use::of_format, nan_use::highest, nan_use::lowest});
    if (d.has_nan || !file_like) vary(&convention::nan, {nan_use::zero});
    if (!d.has_nan && seen_.values) vary(&convention::nan, {nan_use::kept});
  }

  void regroup() {
    using kind = regrouping::kind;
    vary(&convention::groups, {regrouping{}, regrouping{kind::tensor, 0}});
    for (int a = 0; a < seen_.rank; ++a) vary(&convention::groups, {regrouping{kind::axis, a}});
    std::vector<std::int64_t> sizes{16, 32, 64, 128};
    std::int64_t const own = seen_.block;
    if (own > 1) sizes.insert(sizes.end(), {own - 1, own + 1, own / 2, own * 2});
    for (std::int64_t size : sizes)
      if (size != seen_.block && seen_.rank > 0) vary(&convention::groups, {regrouping{kind::block, size}});
  }

  /// Layouts that somebody has a name for come before their mirror images: where both fit, the first is named.
  void readings() {
    element_type const& e = base_.how.element;
    auto const both = [&](packing layout, bool swapped) {
      for (bool offset : {formats::stores_offset(layout, e), !formats::stores_offset(layout, e)})
        if (!offset || e.kind == element_kind::integer)
          vary(&convention::reading, {code_reading{layout, swapped, offset}});
    };
    both(packing::bytes, false);
    if (e.bits < 8) both(packing::dense_rows, false);
    if (e.bits != 4) return;
    both(packing::nibbles_high_first, false);
    if (seen_.rank > 0) both(packing::nibbles_row_pairs, false);
    both(packing::dense_rows, true);
    both(packing::nibbles_high_first, true);
    if (seen_.rank > 0) both(packing::nibbles_row_pairs, true);
  }

  convention base_;
  visible seen_;
  std::vector<convention> all_;
};

}  // namespace detail

/// Evaluates conventions over all samples, each once.
template <backend B>
class convention_search {
 public:
  convention_search(B& b, std::span<sample const> samples, convention const& claim)
      : samples_{samples}, claim_{claim}, seen_{detail::visible_in(samples)} {
    for (sample const& s : samples) predictors_.emplace_back(b, s);
    for (sample const& s : samples) elements_ += s.x.size();
  }

  /// Everything tried, best first.
  std::vector<tried> run() {
    consider(claim_);
    std::vector<convention> beam{claim_};
    std::uint64_t least = all_.front().found.mismatches;
    for (int step = 0; step < deepest; ++step) {
      std::size_t const before = all_.size();
      for (convention const& c : beam)
        for (convention const& next : detail::variations{c, seen_}.take()) consider(next);
      std::vector<tried> fresh{all_.begin() + static_cast<std::ptrdiff_t>(before), all_.end()};
      sort(fresh);
      if (fresh.empty() || least == 0 || fresh.front().found.mismatches >= worth(least)) break;
      least = fresh.front().found.mismatches;
      if (least == 0) break;
      beam.clear();
      std::size_t const width = is_large() ? 1 : 3;
      for (std::size_t i = 0; i < std::min(width, fresh.size()); ++i) beam.push_back(fresh[i].what);
    }
    sort(all_);
    return all_;
  }

 private:
  static constexpr int deepest = 4;

  /// Of large tensors less is tried: one path, as long as a change explains at least a fiftieth of what is left.
  bool is_large() const { return elements_ > (1u << 20); }
  std::uint64_t worth(std::uint64_t mismatches) const { return is_large() ? mismatches - mismatches / 50 : mismatches; }

  static void sort(std::vector<tried>& all) {
    std::stable_sort(all.begin(), all.end(), [](tried const& a, tried const& b) {
      if (a.found.mismatches != b.found.mismatches) return a.found.mismatches < b.found.mismatches;
      return a.changes < b.changes;
    });
  }

  /// Does another grouping come to the claim's, for these shapes?
  bool groups_as_claimed(convention const& c) const {
    if (c.groups.what == regrouping::kind::none) return false;
    return std::all_of(samples_.begin(), samples_.end(), [&](sample const& s) {
      return groups_of(c.groups, s.shape, s.groups) == s.groups;
    });
  }

  void consider(convention const& c) {
    for (tried const& t : all_)
      if (t.what == c) return;
    if (groups_as_claimed(c)) return;
    verdict sum;
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      auto const p = predictors_[i](c);
      if (!p) return;
      auto const groups = groups_of(c.groups, samples_[i].shape, samples_[i].groups);
      verdict const v = judge(samples_[i], *p, c, predictors_[i].amax_under(c, groups));
      sum.mismatches += v.mismatches;
      sum.compared += v.compared;
    }
    all_.push_back({c, sum, changes(c, claim_).size()});
  }

  std::span<sample const> samples_;
  convention claim_;
  detail::visible seen_;
  std::vector<predictor<B>> predictors_;
  std::uint64_t elements_ = 0;
  std::vector<tried> all_;
};

}  // namespace mixbit::validate
