// Codes and scales of a tensor, in one pass over it where groups lie within rows: amax, scales, codes, bits.
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/encode.hpp"
#include "mixbit/reference/simd/code_rows-inl.hpp"
#include "mixbit/reference/simd/codes-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_ENCODE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_ENCODE_INL
#undef MIXBIT_REFERENCE_SIMD_ENCODE_INL
#else
#define MIXBIT_REFERENCE_SIMD_ENCODE_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

/// Scales of `n` groups from `group` on, in the type of the file.
HWY_INLINE void write_file_scales(encode_args const& a, std::int64_t group, scale_batch const& b, std::int64_t n) {
  if (a.how.scale_type == dtype::f32) {
    std::memcpy(static_cast<float*>(a.scales) + group, b.file, static_cast<std::size_t>(n) * sizeof(float));
  } else if (a.how.scale_type == dtype::f8_e4m3 || a.how.scale_type == dtype::f8_e8m0) {
    HWY_ALIGN std::uint8_t codes[batch_groups];
    minifloat_codec const codec{e4m3_element};
    bool const exponents = a.how.scale_type == dtype::f8_e8m0;
    for (std::int64_t i = 0; i < n; i += lanes) {
      floats const scale = hn::Load(float_tag{}, b.file + i);
      hn::Store(low_bytes(exponents ? hn::ShiftRight<23>(as_ints(scale)) : codec.code(scale)), byte_tag{}, codes + i);
    }
    std::memcpy(static_cast<std::uint8_t*>(a.scales) + group, codes, static_cast<std::size_t>(n));
  } else {
    visit_compute(a.how.scale_type, [&]<class S>(S) {
      for (std::int64_t i = 0; i < n; ++i) static_cast<S*>(a.scales)[group + i] = from_float<S>(b.file[i]);
    });
  }
}

/// May a group have one of two scales?
template <class Rule>
bool has_alternative(Rule const& rule) {
  if constexpr (has_choice<Rule>) return rule.has_alternative();
  return false;
}

/// The scalings of a batch, and with `writes` the scales of the file. `x` is the batch's first element. Returns whether
/// blocks have NaN or infinities in them.
template <class Rule, class T>
HWY_INLINE bool encode_scales(vector_rule<Rule> const& rule, encode_args const& a, bool writes, T const* x,
                              std::int64_t block, std::int64_t length, std::int64_t group, scale_batch& b) {
  std::int64_t const groups = (length + block - 1) / block;
  bool strange = false;
  if constexpr (formats::block_scaled<Rule>) strange = amax_of_groups(x, block, length, false, b.amax);
  if (a.amax && a.use == amax_use::given) {
    std::copy_n(a.amax + group, groups, b.amax);
  } else if (a.use == amax_use::given) {
    for (std::int64_t i = 0; i < groups; ++i) b.set(i, formats::scaling{});  // a cast: no group has a scale
    return strange;
  }
  bool const chosen = has_alternative(rule.scalar);
  if constexpr (has_choice<Rule>)
    if (chosen) choose_file_scales(rule, x, block, length, b);
  if (writes) {
    if (!chosen) make_file_scales(rule, b, groups);
    write_file_scales(a, group, b, groups);
  }
  bool const of_file = formats::block_scaled<Rule> && (chosen || a.use == amax_use::data);
  if constexpr (formats::block_scaled<Rule>)
    if (of_file) prepare_of_file(rule, b, groups);
  if (!of_file) prepare(rule, b, groups);
  return strange;
}

/// Groups in a row, and how they are scaled.
struct group_batch {
  scale_batch scales;
  std::int64_t at = 0, length = 0;  ///< elements of the stretch
  std::int64_t block = 0, groups = 0;
  bool numbers = true;  ///< may NaN be left to the sum that looks for it?
};

/// Do four vectors of groups of `block` elements lie at addresses to which stores past the caches are aligned?
inline bool stores_fours(std::uint8_t const* codes, std::int64_t block) {
  bool const together = block == lanes || block == 2 * lanes || block % four_codes == 0;
  return together && reinterpret_cast<std::uintptr_t>(codes) % static_cast<std::size_t>(four_codes) == 0;
}

/// The codes of a batch, one a byte; `streams`: past the caches where their places allow it.
template <class Rule, class T>
HWY_INLINE void encode_batch(vector_rule<Rule> const& rule, group_batch const& b, T const* x, std::uint8_t* codes,
                             bool streams, floats& seen) {
  x += b.at;
  codes += b.at;
  bool const past = streams && stores_fours(codes, b.block);
  std::int64_t i = 0;
  if (b.numbers && b.block % lanes == 0 && have_scales(b.scales, b.groups)) {
    i = b.length / b.block;
    if (!streams && divides_by_products(rule, b.scales, b.block)) {  // a division hides behind memory
      if constexpr (has_products<Rule>)
        encode_whole<0>(by_products<Rule>{rule}, b.scales, x, b.block, i, codes, past, seen);
    } else {
      with_vectors(b.block, [&]<int Vectors>() HWY_ATTR {
        encode_whole<Vectors>(rule, b.scales, x, b.block, i, codes, past, seen);
      });
    }
  }
  for (std::int64_t first = i * b.block; first < b.length; ++i, first += b.block)
    encode_run(rule, b.scales.of(i), x + first, std::min(b.block, b.length - first), codes + first, seen);
}

/// The codes of one stretch, one a byte. Returns whether there may be NaN in it; with `numbers` the codes are right
/// only if there is none. The scales of a batch are made before the codes of the one before it, whose operations do not
/// wait for them: they fill the processor while it goes through one long chain.
template <class Rule, class T>
HWY_NOINLINE bool encode_stretch(vector_rule<Rule> const& given_rule, encode_args const& a, bool writes, bool numbers,
                                 std::int64_t whole_block, code_stretch const& s, std::uint8_t* codes, bool streams) {
  vector_rule<Rule> const rule = given_rule;  // a copy, that stores cannot change
  T const* const x = a.x.as<T>() + s.offset;
  std::int64_t group = s.group;
  floats seen = hn::Zero(float_tag{});  // a sum: NaN where an element is, or infinities of both signs are
  group_batch batches[2];
  auto const prepare_from = [&](std::int64_t at, group_batch& b) HWY_ATTR {
    b.at = at;
    b.length = batch_length(whole_block, at == 0 ? s.phase : 0, s.length - at);
    b.block = std::min(whole_block, b.length);
    b.groups = (b.length + b.block - 1) / b.block;
    b.numbers = !encode_scales(rule, a, writes, x + at, b.block, b.length, group, b.scales) && numbers;
    group += b.groups;
  };
  prepare_from(0, batches[0]);
  for (int now = 0;; now = 1 - now) {
    group_batch const& b = batches[now];
    std::int64_t const next = b.at + b.length;
    if (next < s.length) prepare_from(next, batches[1 - now]);
    encode_batch(rule, b, x, codes, streams, seen);
    if (next >= s.length) break;
  }
  return hn::CountTrue(float_tag{}, hn::IsNaN(seen)) != 0;
}

/// The same for good. Returns how many elements were NaN, which is rare: then all is done twice.
template <class Rule, class T>
HWY_INLINE std::uint64_t encode_values(vector_rule<Rule> const& rule, encode_args const& a, bool writes,
                                       std::int64_t block, code_stretch const& s, std::uint8_t* codes, bool streams) {
  std::uint64_t nan = 0;
  if (!encode_stretch<Rule, T>(rule, a, writes, true, block, s, codes, streams)) return nan;
  encode_stretch<Rule, T>(rule, a, writes, false, block, s, codes, false);
  T const* const x = a.x.as<T>() + s.offset;
  for (std::int64_t i = 0; i < s.length; ++i) nan += fp::is_nan(to_float(x[i]));
  return nan;
}

/// Bytes past the caches; what lies before an aligned address and behind the last one is stored as usual.
HWY_INLINE void stream_bytes(std::uint8_t const* from, std::int64_t n, std::uint8_t* to) {
  using tag = hn::Repartition<std::uint8_t, float_tag>;
  std::int64_t const width = 4 * lanes;
  auto const past = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % static_cast<std::size_t>(width));
  std::int64_t i = std::min(n, (width - past) % width);
  std::memcpy(to, from, static_cast<std::size_t>(i));
  for (; i + width <= n; i += width) hn::Stream(hn::LoadU(tag{}, from + i), tag{}, to + i);
  std::memcpy(to + i, from + i, static_cast<std::size_t>(n - i));
}

/// Puts the codes of one or two rows where they belong. `packed` has space for a stretch.
HWY_NOINLINE inline void pack_stretch(encode_args const& a, formats::code_matrix const& m, code_stretch const& s,
                                      std::uint8_t const* codes, std::uint8_t const* below, bool streams,
                                      std::uint8_t* packed) {
  int const bits = a.how.element.bits;
  std::uint8_t* const out = a.codes + formats::place_of(a.how.layout, bits, m, s.row, s.column).byte;
  if (holds_bytes(a.how)) return stream_bytes(codes, s.length, out);
  std::uint8_t* const target = streams ? packed : out;
  bool const pairs = a.how.layout == packing::nibbles_row_pairs;
  if (pairs) pack_rows(codes, below, s.length, target);
  else if (a.how.layout == packing::nibbles_high_first) pack_nibbles<true>(codes, s.length, target);
  else if (bits == 4) pack_nibbles<false>(codes, s.length, target);
  else pack_bits(codes, s.length, bits, target);
  if (streams) stream_bytes(packed, pairs ? s.length : (s.length * bits + 7) / 8, out);
}

template <class Rule>
void encode_rows(executor_ref const& threads, encode_args const& a, code_rows const& rows, bool writes) {
  vector_rule<Rule> const rule{a.how, scalar_kernels::rule_inputs_of(a)};
  auto const& m = rows.matrix();
  bool const streams = exceeds_caches(a.x) && lanes >= 4, whole_bytes = holds_bytes(a.how);
  visit_compute(a.x.type, [&]<class T>(T) {
    auto const flush = [&] {
      if (streams) hwy::FlushStream();
    };
    rows.visit(threads, [&](code_stretch const& upper, code_stretch const& lower) {
      HWY_ALIGN std::uint8_t codes[2][stretch_columns], packed[stretch_columns];
      std::uint8_t* const own = whole_bytes ? a.codes + upper.row * m.columns + upper.column : codes[0];
      bool const direct = whole_bytes && (!streams || stores_fours(own, rows.block()));
      std::uint64_t nan = encode_values<Rule, T>(rule, a, writes, rows.block(), upper, direct ? own : codes[0],
                                                 direct && streams);
      if (lower.length != 0) nan += encode_values<Rule, T>(rule, a, writes, rows.block(), lower, codes[1], false);
      if (!direct) pack_stretch(a, m, upper, codes[0], lower.length != 0 ? codes[1] : nullptr, streams, packed);
      if (a.flags) scalar_kernels::add_flag(a.flags->nonfinite, nan);
    }, flush);
  });
  if constexpr (requires { rule.scalar.tensor_scale(); })
    if (a.tensor_scale && a.scales) *a.tensor_scale = rule.scalar.tensor_scale();
}

/// Encodes with the vector form of a rule; false where it has to be the scalar kernel.
template <class Rule>
bool encode_vectors(executor_ref const& threads, encode_args const& a, Rule const& rule, code_rows const& rows) {
  if constexpr (has_vector_form<Rule>) {
    bool const data = a.use == amax_use::data, writes = rows.whole_groups() && a.scales && (a.amax || data);
    if ((data && (!writes || !formats::block_scaled<Rule>)) || (has_alternative(rule) && !writes)) return false;
    if (a.how.element.is_unsigned) scalar_kernels::count_negative(threads, a.x, a.flags);
    if (a.amax && !writes) scalar_kernels::write_scales(threads, a, rule);
    encode_rows<Rule>(threads, a, rows, writes);
  }
  return has_vector_form<Rule>;
}

#endif

inline void encode(executor_ref const& threads, encode_args const& a) {
#if MIXBIT_SIMD_VECTORS
  if (has_row_codes(a.how, a.x)) {
    code_rows const rows{a.how.layout, a.x, a.groups};
    bool const answered = rows.usable() && formats::visit_rule(a.how, scalar_kernels::rule_inputs_of(a),
                                                               [&]<class Rule>(Rule const& rule) {
                                                                 return encode_vectors(threads, a, rule, rows);
                                                               });
    if (answered) return;
  }
#endif
  scalar_kernels::encode(threads, a);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
