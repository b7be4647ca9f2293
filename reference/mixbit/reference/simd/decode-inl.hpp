// y from codes and scales, a stretch of a row at a time.
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/decode.hpp"
#include "mixbit/reference/simd/code_rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_DECODE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_DECODE_INL
#undef MIXBIT_REFERENCE_SIMD_DECODE_INL
#else
#define MIXBIT_REFERENCE_SIMD_DECODE_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

/// The codes of a stretch, one a byte: where they are, or unpacked into `buffer`.
HWY_INLINE std::uint8_t const* unpack_stretch(decode_args const& a, formats::code_matrix const& m,
                                              code_stretch const& s, std::uint8_t* buffer) {
  int const bits = a.how.element.bits;
  auto const place = formats::place_of(a.how.layout, bits, m, s.row, s.column);
  std::uint8_t const* const in = a.codes + place.byte;
  if (holds_bytes(a.how)) return in;
  if (a.how.layout == packing::nibbles_row_pairs) unpack_row(in, place.shift, s.length, buffer);
  else if (a.how.layout == packing::nibbles_high_first) unpack_nibbles<true>(in, s.length, buffer);
  else if (bits == 4) unpack_nibbles<false>(in, s.length, buffer);
  else unpack_bits(in, s.length, bits, buffer);
  return buffer;
}

/// Codes as numbers: `unused` bits are above a code of two's complement, 0 for codes without a sign.
HWY_INLINE ints numbers_of(bytes codes, int unused) {
  ints const v = hn::PromoteTo(int_tag{}, codes);
  return unused == 0 ? v : hn::ShiftRightSame(hn::ShiftLeftSame(v, unused), unused);
}

inline int unused_bits(format const& how) {
  element_type const& e = how.element;
  if (e.kind != element_kind::integer || e.is_unsigned) return 0;
  return 32 - (holds_bytes(how) ? 8 : e.bits);
}

/// The scales of `n` groups from `group` on, as the rule uses them.
template <class Rule>
HWY_INLINE void load_scales(vector_rule<Rule> const& rule, decode_args const& a, std::int64_t group, std::int64_t n,
                            float* scales) {
  float const tensor_scale = a.tensor_scale ? *a.tensor_scale : 1.0f;
  if (!a.scales) {
    std::fill_n(scales, n, rule.scalar.effective(1.0f, tensor_scale));
    return;
  }
  formats::visit_scale(a.how.scale_type, [&]<class S>(S) {
    S const* const file = static_cast<S const*>(a.scales) + group;
    for (std::int64_t i = 0; i < n; ++i) scales[i] = rule.scalar.effective(formats::scale_value(file[i]), tensor_scale);
  });
}

template <class Rule, class T>
HWY_INLINE void decode_run(Rule const& rule, floats scale, std::uint8_t const* codes, int unused, std::int64_t n,
                           T* y) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    store(rule.decode(scale, numbers_of(hn::LoadU(byte_tag{}, codes + i), unused)), y + i);
  if (i == n) return;
  HWY_ALIGN std::uint8_t some[static_cast<std::size_t>(lanes)] = {};
  std::memcpy(some, codes + i, static_cast<std::size_t>(n - i));
  store_some(rule.decode(scale, numbers_of(hn::Load(byte_tag{}, some), unused)), y + i, n - i);
}

template <class Rule, class T>
HWY_NOINLINE void decode_stretch(vector_rule<Rule> const& given_rule, decode_args const& a, code_rows const& rows,
                                 code_stretch const& s) {
  vector_rule<Rule> const rule = given_rule;  // a copy, that stores cannot change
  std::uint8_t buffer[stretch_columns];
  std::uint8_t const* const codes = unpack_stretch(a, rows.matrix(), s, buffer);
  int const unused = unused_bits(a.how);
  T* const y = a.y.as<T>() + s.offset;
  std::int64_t group = s.group, phase = s.phase;
  float scales[batch_groups];
  for (std::int64_t at = 0; at < s.length;) {
    std::int64_t const length = batch_length(rows.block(), phase, s.length - at);
    std::int64_t const block = std::min(rows.block(), length);
    std::int64_t const groups = (length + block - 1) / block;
    load_scales(rule, a, group, groups, scales);
    for (std::int64_t i = 0, first = 0; first < length; ++i, first += block)
      decode_run(rule, splat(scales[i]), codes + at + first, unused, std::min(block, length - first), y + at + first);
    at += length;
    group += groups;
    phase = 0;
  }
}

template <class Rule>
void decode_rows(executor_ref const& threads, decode_args const& a, code_rows const& rows) {
  vector_rule<Rule> const rule{a.how, {a.y.type}};
  visit_compute(a.y.type, [&]<class T>(T) {
    rows.visit(threads, [&](code_stretch const& upper, code_stretch const& lower) {
      decode_stretch<Rule, T>(rule, a, rows, upper);
      if (lower.length != 0) decode_stretch<Rule, T>(rule, a, rows, lower);
    }, [] {});
  });
}

#endif

inline void decode(executor_ref const& threads, decode_args const& a) {
#if MIXBIT_SIMD_VECTORS
  if (has_row_codes(a.how, a.y)) {
    code_rows const rows{a.how.layout, a.y, a.groups};
    bool const answered = rows.usable() && formats::visit_rule(a.how, {a.y.type}, [&]<class Rule>(Rule const&) {
      if constexpr (has_vector_form<Rule>) decode_rows<Rule>(threads, a, rows);
      return has_vector_form<Rule>;
    });
    if (answered) return;
  }
#endif
  scalar_kernels::decode(threads, a);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
