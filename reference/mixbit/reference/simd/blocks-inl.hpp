// Groups in a batch: their amax from the data or from an array, the scalings of a vector of groups at a time, and then
// their elements while those are still in the first-level cache.
// needs: <hwy/highway.h>
#include <bit>

#include "mixbit/reference/scalar/blocks.hpp"
#include "mixbit/reference/simd/rules-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_BLOCKS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_BLOCKS_INL
#undef MIXBIT_REFERENCE_SIMD_BLOCKS_INL
#else
#define MIXBIT_REFERENCE_SIMD_BLOCKS_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

/// A tensor of this size passes through the caches without staying there, so its stores go around them: the last-level
/// cache that one core sees is 32 MiB on AMD's Zen 3 to 5 (Software Optimization Guide for the Zen 5
/// Microarchitecture, 2.6.4), and of that order on Intel's servers.
inline constexpr std::int64_t last_level_cache = std::int64_t{32} << 20;

inline bool exceeds_caches(geometry const& g) { return g.bytes() > last_level_cache; }

#if MIXBIT_SIMD_VECTORS

/// The groups that are prepared together, and the elements that they have at most (if more than one): few enough that
/// one batch is read from memory while the one before it is computed and stored.
inline constexpr std::int64_t batch_groups = 64, batch_elements = 1024;

struct scale_batch {
  HWY_ALIGN float amax[batch_groups] = {};
  HWY_ALIGN float file[batch_groups];
  HWY_ALIGN float forward[batch_groups];
  HWY_ALIGN float backward[batch_groups];
  HWY_ALIGN std::uint32_t keep[batch_groups];

  HWY_INLINE void set(std::int64_t i, vector_scaling const& s) {
    hn::Store(s.forward, float_tag{}, forward + i);
    hn::Store(s.backward, float_tag{}, backward + i);
    hn::Store(s.keep, word_tag{}, keep + i);
  }
  void set(std::int64_t i, formats::scaling const& s) {
    forward[i] = s.forward;
    backward[i] = s.backward;
    keep[i] = s.keep;
  }
  /// Of group i, for all lanes.
  HWY_INLINE vector_scaling of(std::int64_t i) const { return {splat(forward[i]), splat(backward[i]), splat(keep[i])}; }
};

/// What the groups' amax make of their elements.
template <class Rule>
HWY_INLINE void prepare(vector_rule<Rule> const& rule, scale_batch& b, std::int64_t n) {
  if constexpr (requires(floats v) { rule.prepare(v); }) {
    for (std::int64_t i = 0; i < n; i += lanes) b.set(i, rule.prepare(hn::Load(float_tag{}, b.amax + i)));
  } else {
    for (std::int64_t i = 0; i < n; ++i) b.set(i, rule.scalar.prepare(b.amax[i]));
  }
}

/// The scales of the groups as the file holds them.
template <class Rule>
HWY_INLINE void make_file_scales(vector_rule<Rule> const& rule, scale_batch& b, std::int64_t n) {
  if constexpr (requires(floats v) { rule.file_scale(v); }) {
    for (std::int64_t i = 0; i < n; i += lanes)
      hn::Store(rule.file_scale(hn::Load(float_tag{}, b.amax + i)), float_tag{}, b.file + i);
  } else {
    for (std::int64_t i = 0; i < n; ++i) b.file[i] = rule.scalar.file_scale(b.amax[i]);
  }
}

/// What scales of the file make of the elements.
template <class Rule>
HWY_INLINE void prepare_of_file(vector_rule<Rule> const& rule, scale_batch& b, std::int64_t n) {
  if constexpr (requires(floats v) { rule.of_scale(v); }) {
    for (std::int64_t i = 0; i < n; i += lanes) b.set(i, rule.of_scale(hn::Load(float_tag{}, b.file + i)));
  } else {
    for (std::int64_t i = 0; i < n; ++i) b.set(i, rule.scalar.of_scale(b.file[i]));
  }
}

/// The largest magnitude of n elements, NaN and infinities included.
template <class T>
HWY_INLINE float top_of(T const* x, std::int64_t n) {
  ints top = hn::Zero(int_tag{});
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) top = hn::Max(top, magnitude_of(load(x + i)));
  if (i < n) top = hn::Max(top, magnitude_of(load_some(x + i, n - i)));
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(int_tag{}, top)));
}

/// scalar_kernels::amax_of_line for n elements that are not all finite: NaN is skipped, and so are infinities, or they
/// count as the largest finite number.
template <class T>
HWY_NOINLINE float finite_amax_of(T const* x, std::int64_t n, bool skips_infinity) {
  std::uint32_t const infinity = 0x7f800000u;
  std::uint32_t top = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t const m = fp::bits(to_float(x[i])) & 0x7fffffffu;
    if (m < infinity || (m == infinity && !skips_infinity)) top = std::max(top, std::min(m, infinity - 1));
  }
  return fp::from_bits(top);
}

/// The larger lanes of a vector's halves, until four lanes are left.
template <class D, class V>
HWY_INLINE auto fold_to_four(D, V v) {
  if constexpr (hn::MaxLanes(D{}) == 4) {
    return v;
  } else {
    hn::Half<D> const half_tag;
    return fold_to_four(half_tag, hn::Max(hn::LowerHalf(half_tag, v), hn::UpperHalf(half_tag, v)));
  }
}

/// The largest magnitudes of four groups of whole vectors, NaN and infinities included; the groups share the steps
/// between lanes.
template <class T>
HWY_INLINE void tops_of_four(T const* x, std::int64_t block, float* tops) {
  ints top[4];
  for (int g = 0; g < 4; ++g) {
    top[g] = magnitude_of(load(x + g * block));
    for (std::int64_t k = lanes; k < block; k += lanes)
      top[g] = hn::Max(top[g], magnitude_of(load(x + g * block + k)));
  }
  // in each 128 bits: [a b a b], [c d c d], and then [a b c d]
  int_tag const d32;
  hn::RepartitionToWide<int_tag> const d64;
  ints const ab = hn::Max(hn::InterleaveLower(d32, top[0], top[1]), hn::InterleaveUpper(d32, top[0], top[1]));
  ints const cd = hn::Max(hn::InterleaveLower(d32, top[2], top[3]), hn::InterleaveUpper(d32, top[2], top[3]));
  auto const lower = hn::InterleaveLower(d64, hn::BitCast(d64, ab), hn::BitCast(d64, cd));
  auto const upper = hn::InterleaveUpper(d64, hn::BitCast(d64, ab), hn::BitCast(d64, cd));
  ints const all = hn::Max(hn::BitCast(d32, lower), hn::BitCast(d32, upper));
  auto const four = fold_to_four(d32, all);
  hn::StoreU(hn::BitCast(hn::CappedTag<float, 4>{}, four), hn::CappedTag<float, 4>{}, tops);
}

/// Groups of whole vectors, as many as are a multiple of four: tops_of_four, and how many elements that was.
template <class T>
HWY_INLINE std::int64_t tops_of_groups(T const* x, std::int64_t block, std::int64_t length, float* tops) {
  std::int64_t first = 0;
  if (block % lanes != 0) return first;
  for (; first + 4 * block <= length; first += 4 * block, tops += 4) tops_of_four(x + first, block, tops);
  return first;
}

/// The amax of each group of a stretch, as finite_amax_of takes it; the last may be ragged. Returns whether anything
/// was not finite, which is rare: such a group is done twice.
template <class T>
HWY_INLINE bool amax_of_groups(T const* x, std::int64_t block, std::int64_t length, bool skips_infinity, float* amax) {
  std::int64_t const whole = tops_of_groups(x, block, length, amax);
  bool strange = false;
  for (std::int64_t g = 0, first = 0; first < length; ++g, first += block) {
    std::int64_t const n = std::min(block, length - first);
    if (first >= whole) amax[g] = top_of(x + first, n);
    if (fp::is_finite(amax[g])) continue;
    amax[g] = finite_amax_of(x + first, n, skips_infinity);
    strange = true;
  }
  return strange;
}

/// Calls f.operator()<Vectors>() with how many vectors make a block, where those are one or two and the rule is one for
/// small blocks, else with 0.
template <class VectorRule, class F>
HWY_INLINE void with_vectors(std::int64_t block, F&& f) {
  if constexpr (has_number_form<VectorRule>) {
    if (block == lanes) return f.template operator()<1>();
    if (block == 2 * lanes) return f.template operator()<2>();
  }
  f.template operator()<0>();
}

/// How many elements of a stretch make the next batch. The first lies `phase` elements into its block.
inline std::int64_t batch_length(std::int64_t block, std::int64_t phase, std::int64_t rest) {
  if (phase != 0 || block >= batch_elements) return std::min(block - phase, rest);
  std::int64_t const groups = std::min(batch_groups, batch_elements / block);
  return std::min(groups * block, rest);
}

#endif

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
