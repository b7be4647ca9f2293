// Codes of elements whose scales are known, one a byte: of a run, and of groups of whole vectors, four at a time.
// needs: <hwy/highway.h>
#include "mixbit/reference/simd/blocks-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_CODES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_CODES_INL
#undef MIXBIT_REFERENCE_SIMD_CODES_INL
#else
#define MIXBIT_REFERENCE_SIMD_CODES_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

HWY_INLINE bytes low_bytes(ints codes) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return bytes{_mm512_cvtepi32_epi8(codes.raw)};  // Highway 1.0.3 takes five instructions
#else
  return hn::TruncateTo(byte_tag{}, as_words(codes));
#endif
}

using four_bytes_tag = hn::Repartition<std::uint8_t, float_tag>;
inline constexpr std::int64_t four_codes = 4 * lanes;  // of four vectors, a vector of bytes

/// The codes of four vectors, one a byte; `past` the caches where `to` is aligned to as many bytes.
HWY_INLINE void store_four(ints const (&codes)[4], std::uint8_t* to, bool past) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  // saturation changes nothing: codes are from 0 to 255; the steps leave the vectors' quarters in turn
  __m512i const ab = _mm512_packs_epi32(codes[0].raw, codes[1].raw);
  __m512i const cd = _mm512_packs_epi32(codes[2].raw, codes[3].raw);
  __m512i const order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  hn::Vec<four_bytes_tag> const all{_mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd))};
  if (past) hn::Stream(all, four_bytes_tag{}, to);
  else hn::StoreU(all, four_bytes_tag{}, to);
#else
  HWY_ALIGN std::uint8_t all[static_cast<std::size_t>(four_codes)];
  std::uint8_t* const target = past ? all : to;
  for (int k = 0; k < 4; ++k) hn::StoreU(low_bytes(codes[k]), byte_tag{}, target + k * lanes);
  if (past) hn::Stream(hn::Load(four_bytes_tag{}, all), four_bytes_tag{}, to);
#endif
}

/// The codes of elements that share a scaling, one a byte. `seen` becomes NaN where one of them is.
template <class Rule, class T>
HWY_INLINE void encode_run(Rule const& rule, vector_scaling const& s, T const* x, std::int64_t n, std::uint8_t* codes,
                           floats& seen) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    floats const v = load(x + i);
    seen = hn::Add(seen, v);
    hn::StoreU(low_bytes(rule.encode(s, v)), byte_tag{}, codes + i);
  }
  if (i == n) return;
  HWY_ALIGN std::uint8_t some[static_cast<std::size_t>(lanes)];
  floats const v = load_some(x + i, n - i);
  seen = hn::Add(seen, v);
  hn::Store(low_bytes(rule.encode(s, v)), byte_tag{}, some);
  std::memcpy(codes + i, some, static_cast<std::size_t>(n - i));
}

/// Is NaN looked for while codes are made? Where the groups are blocks, their largest magnitudes have told of it.
template <class VectorRule>
inline constexpr bool looks_for_nan = !formats::block_scaled<decltype(VectorRule::scalar)>;

/// The codes of numbers in four vectors with a scaling each; `past` the caches where `codes` is aligned to four_codes.
/// Blocks are read twice, so what is needed three batches later is fetched from memory meanwhile; a single pass over
/// memory is quicker as the processor itself fetches it.
template <class Rule, class Scaling, class T>
HWY_INLINE void encode_four(Rule const& rule, Scaling const (&s)[4], T const* x, std::uint8_t* codes, bool past,
                            floats (&seen)[4]) {
  // written out: in a loop that a compiler does not unroll the four vectors go through memory
  auto const one = [&](int j) HWY_ATTR {
    if constexpr (!looks_for_nan<Rule>) hwy::Prefetch(x + j * lanes + 3 * batch_elements);
    floats const v = load(x + j * lanes);
    if constexpr (looks_for_nan<Rule>) seen[j] = hn::Add(seen[j], v);
    return rule.encode_number(s[j], v);
  };
  ints const four[4] = {one(0), one(1), one(2), one(3)};
  store_four(four, codes, past);
}

/// The codes of groups of whole vectors that have a scale, right where no element is NaN. `past`: encode_four.
template <int Vectors, class Rule, class T>
HWY_INLINE void encode_whole(Rule const& given_rule, scale_batch const& b, T const* x, std::int64_t block,
                             std::int64_t groups, std::uint8_t* codes, bool past, floats& seen) {
  Rule const rule = given_rule;  // a copy, that stores cannot change
  using scaling = decltype(scaling_of(rule, b, 0));
  std::int64_t const all = groups * block;
  floats sums[4] = {seen, hn::Zero(float_tag{}), hn::Zero(float_tag{}), hn::Zero(float_tag{})};
  std::int64_t k = 0;
  if constexpr (Vectors > 0) {
    for (std::int64_t i = 0; k + 4 * lanes <= all; k += 4 * lanes, i += 4 / Vectors) {
      scaling const s[4] = {scaling_of(rule, b, i), scaling_of(rule, b, i + 1 / Vectors),
                            scaling_of(rule, b, i + 2 / Vectors), scaling_of(rule, b, i + 3 / Vectors)};
      encode_four(rule, s, x + k, codes + k, past, sums);
    }
  }
  for (std::int64_t i = k / block; k < all; ++i) {
    scaling const one = scaling_of(rule, b, i), s[4] = {one, one, one, one};
    std::int64_t const end = (i + 1) * block;
    for (; k + 4 * lanes <= end; k += 4 * lanes) encode_four(rule, s, x + k, codes + k, past, sums);
    for (; k < end; k += lanes) {
      floats const v = load(x + k);
      sums[0] = hn::Add(sums[0], v);
      hn::StoreU(low_bytes(rule.encode_number(one, v)), byte_tag{}, codes + k);
    }
  }
  seen = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
