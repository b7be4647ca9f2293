// Codes and scales of a tensor, in one pass over it where groups lie within rows: amax, scales, codes, bits.
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/encode.hpp"
#include "mixbit/reference/simd/code_rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_ENCODE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_ENCODE_INL
#undef MIXBIT_REFERENCE_SIMD_ENCODE_INL
#else
#define MIXBIT_REFERENCE_SIMD_ENCODE_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

HWY_INLINE bytes low_bytes(ints codes) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return bytes{_mm512_cvtepi32_epi8(codes.raw)};  // Highway 1.0.3 takes five instructions
#else
  return hn::TruncateTo(byte_tag{}, as_words(codes));
#endif
}

/// The codes of elements that share a scaling, one a byte. Returns the largest magnitude of each lane, `top` included.
template <class Rule, class T>
HWY_INLINE ints encode_run(Rule const& rule, vector_scaling const& s, T const* x, std::int64_t n, std::uint8_t* codes,
                           ints top) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    floats const v = load(x + i);
    top = hn::Max(top, magnitude_of(v));
    hn::StoreU(low_bytes(rule.encode(s, v)), byte_tag{}, codes + i);
  }
  if (i == n) return top;
  HWY_ALIGN std::uint8_t some[static_cast<std::size_t>(lanes)];
  floats const v = load_some(x + i, n - i);
  top = hn::Max(top, magnitude_of(v));
  hn::Store(low_bytes(rule.encode(s, v)), byte_tag{}, some);
  std::memcpy(codes + i, some, static_cast<std::size_t>(n - i));
  return top;
}

/// The same for groups of whole vectors without NaN. The next batch is fetched from memory meanwhile.
template <int Vectors, class Rule, class T>
HWY_INLINE void encode_whole(Rule const& rule, scale_batch const& b, T const* x, std::int64_t block,
                             std::int64_t groups, std::uint8_t* codes) {
  std::int64_t const size = Vectors == 0 ? block : Vectors * lanes;
  for (std::int64_t i = 0; i < groups; ++i) {
    vector_scaling const s = b.of(i);
    for (std::int64_t k = i * size; k < (i + 1) * size; k += lanes) {
      hwy::Prefetch(x + groups * size + k);
      hn::StoreU(low_bytes(rule.encode_number(s, load(x + k))), byte_tag{}, codes + k);
    }
  }
}

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

/// The scalings of a batch, and with `writes` the scales of the file. `x` is the batch's first element. Returns whether
/// there may be NaN or infinities in it; true where nothing is known.
template <class Rule, class T>
HWY_INLINE bool encode_scales(vector_rule<Rule> const& rule, encode_args const& a, bool writes, T const* x,
                              std::int64_t block, std::int64_t length, std::int64_t group, scale_batch& b) {
  std::int64_t const groups = (length + block - 1) / block;
  bool strange = true;
  if (a.use == amax_use::data) {
    strange = amax_of_groups(x, block, length, false, b.amax);
  } else if (a.amax) {
    std::copy_n(a.amax + group, groups, b.amax);
  } else {
    for (std::int64_t i = 0; i < groups; ++i) b.set(i, formats::scaling{});  // a cast: no group has a scale
    return strange;
  }
  if (writes) {
    make_file_scales(rule, b, groups);
    write_file_scales(a, group, b, groups);
  }
  bool const of_file = formats::block_scaled<Rule> && a.use == amax_use::data;
  if constexpr (formats::block_scaled<Rule>)
    if (of_file) prepare_of_file(rule, b, groups);
  if (!of_file) prepare(rule, b, groups);
  return strange;
}

/// The codes of a batch, one a byte. With `known` magnitudes whole groups have no NaN. Returns encode_run's maximum.
template <class Rule, class T>
HWY_INLINE ints encode_batch(Rule const& rule, scale_batch const& b, bool known, T const* x, std::int64_t block,
                             std::int64_t length, std::uint8_t* codes, ints top) {
  std::int64_t i = 0;
  if constexpr (has_number_form<Rule>) {
    i = known && block % lanes == 0 ? length / block : 0;
    with_vectors<Rule>(block, [&]<int Vectors>() HWY_ATTR { encode_whole<Vectors>(rule, b, x, block, i, codes); });
  }
  for (std::int64_t first = i * block; first < length; ++i, first += block)
    top = encode_run(rule, b.of(i), x + first, std::min(block, length - first), codes + first, top);
  return top;
}

/// The codes of one stretch, one a byte. Returns how many of its elements were NaN.
template <class Rule, class T>
HWY_NOINLINE std::uint64_t encode_stretch(vector_rule<Rule> const& given_rule, encode_args const& a, bool writes,
                                          std::int64_t whole_block, code_stretch const& s, std::uint8_t* codes) {
  vector_rule<Rule> const rule = given_rule;  // a copy, that stores cannot change
  T const* const x = a.x.as<T>() + s.offset;
  std::int64_t group = s.group, phase = s.phase;
  ints top = hn::Zero(int_tag{});
  scale_batch b;
  for (std::int64_t at = 0; at < s.length;) {
    std::int64_t const length = batch_length(whole_block, phase, s.length - at), block = std::min(whole_block, length);
    bool const strange = encode_scales(rule, a, writes, x + at, block, length, group, b);
    top = encode_batch(rule, b, !strange, x + at, block, length, codes + at, top);
    at += length;
    group += (length + block - 1) / block;
    phase = 0;
  }
  std::uint64_t nan = 0;
  if (hn::GetLane(hn::MaxOfLanes(int_tag{}, top)) > 0x7f800000)
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
  else if (bits == 4) pack_nibbles(codes, s.length, target);
  else pack_bits(codes, s.length, bits, target);
  if (streams) stream_bytes(packed, pairs ? s.length : (s.length * bits + 7) / 8, out);
}

template <class Rule>
void encode_rows(executor_ref const& threads, encode_args const& a, code_rows const& rows, bool writes) {
  vector_rule<Rule> const rule{a.how, scalar_kernels::rule_inputs_of(a)};
  auto const& m = rows.matrix();
  bool const streams = exceeds_caches(a.x) && lanes >= 4, direct = holds_bytes(a.how) && !streams;
  visit_compute(a.x.type, [&]<class T>(T) {
    auto const flush = [&] {
      if (streams) hwy::FlushStream();
    };
    rows.visit(threads, [&](code_stretch const& upper, code_stretch const& lower) {
      HWY_ALIGN std::uint8_t codes[2][stretch_columns], packed[stretch_columns];
      std::uint8_t* const target = direct ? a.codes + upper.row * m.columns + upper.column : codes[0];
      std::uint64_t nan = encode_stretch<Rule, T>(rule, a, writes, rows.block(), upper, target);
      if (lower.length != 0) nan += encode_stretch<Rule, T>(rule, a, writes, rows.block(), lower, codes[1]);
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
    if (data && (!writes || !formats::block_scaled<Rule>)) return false;
    if (a.how.element.is_unsigned) scalar_kernels::count_negative(threads, a.x, a.flags);
    if (a.amax && !writes) scalar_kernels::write_scales(threads, a, rule);
    encode_rows<Rule>(threads, a, rows, writes);
  }
  return has_vector_form<Rule>;
}

#endif

inline void encode(executor_ref const& threads, encode_args const& a) {
#if MIXBIT_SIMD_VECTORS
  if (has_row_codes(a.how, a.x) && a.how.scaling != scale_rule::four_over_six) {
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
