// Groups in a batch: their amax from the data or from an array, the scalings of a vector of groups at a time, and then
// their elements while those are still in the first-level cache.
// needs: <hwy/highway.h>
#include <bit>

#include "mixbit/reference/scalar/blocks.hpp"
#include "mixbit/reference/simd/scale_batch-inl.hpp"

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

/// Four vectors, one a group, become one: in each 128 bits [a b c d], each what `op` makes of the group's lanes there.
template <class D, class V, class Op>
HWY_INLINE V four_in_blocks(D d32, V a, V b, V c, V d, Op op) {
  hn::RepartitionToWide<D> const d64;
  // [a b a b] and [c d c d]
  auto const ab = hn::BitCast(d64, op(hn::InterleaveLower(d32, a, b), hn::InterleaveUpper(d32, a, b)));
  auto const cd = hn::BitCast(d64, op(hn::InterleaveLower(d32, c, d), hn::InterleaveUpper(d32, c, d)));
  return op(hn::BitCast(d32, hn::InterleaveLower(d64, ab, cd)), hn::BitCast(d32, hn::InterleaveUpper(d64, ab, cd)));
}

/// As many vectors as a vector has lanes, one a group: lane g becomes what `op` makes of the lanes of of_group(g).
template <class D, class F, class Op>
HWY_INLINE hn::Vec<D> across_groups(D d, F of_group, Op op) {
  auto const four = [&](int g) HWY_ATTR {
    return four_in_blocks(d, of_group(g), of_group(g + 1), of_group(g + 2), of_group(g + 3), op);
  };
  auto const first = four(0);
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  // 128 bits of two vectors at a time: the halves, and then the even and the odd ones
  auto const mix = [&]<int Even, int Odd>(hn::Vec<D> a, hn::Vec<D> b) HWY_ATTR {
    __m512i const i = hn::BitCast(int_tag{}, a).raw, j = hn::BitCast(int_tag{}, b).raw;
    ints const even{_mm512_shuffle_i32x4(i, j, Even)}, odd{_mm512_shuffle_i32x4(i, j, Odd)};
    return op(hn::BitCast(d, even), hn::BitCast(d, odd));
  };
  auto const low = mix.template operator()<0x44, 0xee>(first, four(4));
  auto const high = mix.template operator()<0x44, 0xee>(four(8), four(12));
  return mix.template operator()<0x88, 0xdd>(low, high);
#elif HWY_TARGET == HWY_AVX2
  auto const second = four(4);
  return op(hn::ConcatLowerLower(d, second, first), hn::ConcatUpperUpper(d, second, first));
#else
  static_assert(lanes == 4);
  return first;
#endif
}

/// The largest magnitudes of as many groups of whole vectors as a vector has lanes, NaN and infinities included.
/// `Vectors` make a group; 0: as many as `block` says.
template <int Vectors, class T>
HWY_INLINE ints tops_of_lanes(T const* x, std::int64_t block) {
  auto const top_of_group = [&](int g) HWY_ATTR {
    std::int64_t const size = Vectors == 0 ? block : Vectors * lanes;
    ints top = magnitude_of(load(x + g * size));
    for (std::int64_t k = lanes; k < size; k += lanes) top = hn::Max(top, magnitude_of(load(x + g * size + k)));
    return top;
  };
  return across_groups(int_tag{}, top_of_group, [](ints a, ints b) HWY_ATTR { return hn::Max(a, b); });
}

/// Calls f.operator()<Vectors>() with how many vectors make a block, where those are one or two, else with 0.
template <class F>
HWY_INLINE void with_vectors(std::int64_t block, F&& f) {
  if (block == lanes) f.template operator()<1>();
  else if (block == 2 * lanes) f.template operator()<2>();
  else f.template operator()<0>();
}

/// The largest magnitudes of groups of whole vectors, NaN and infinities included, a vector of groups at a time.
/// Returns how many elements those had; `top` is raised to the largest of all.
template <class T>
HWY_INLINE std::int64_t tops_of_groups(T const* x, std::int64_t block, std::int64_t length, float* tops, ints& top) {
  if (block % lanes != 0) return 0;
  std::int64_t const whole = length / (lanes * block) * (lanes * block);
  with_vectors(block, [&]<int Vectors>() HWY_ATTR {
    float* to = tops;
    for (std::int64_t first = 0; first < whole; first += lanes * block, to += lanes) {
      ints const some = tops_of_lanes<Vectors>(x + first, block);
      top = hn::Max(top, some);
      hn::StoreU(as_floats(some), float_tag{}, to);
    }
  });
  return whole;
}

/// The amax of each group of a stretch, as finite_amax_of takes it; the last may be ragged. Returns whether anything
/// was not finite, which is rare: such a group is done twice.
template <class T>
HWY_INLINE bool amax_of_groups(T const* x, std::int64_t block, std::int64_t length, bool skips_infinity, float* amax) {
  ints top = hn::Zero(int_tag{});
  std::int64_t const whole = tops_of_groups(x, block, length, amax, top);
  bool strange = hn::GetLane(hn::MaxOfLanes(int_tag{}, top)) >= 0x7f800000;
  std::int64_t const from = strange ? 0 : whole;
  for (std::int64_t g = from / block, first = from; first < length; ++g, first += block) {
    std::int64_t const n = std::min(block, length - first);
    if (first >= whole) amax[g] = top_of(x + first, n);
    if (fp::is_finite(amax[g])) continue;
    amax[g] = finite_amax_of(x + first, n, skips_infinity);
    strange = true;
  }
  return strange;
}

/// Is there a choice of scales in some format of the rule?
template <class Rule>
concept has_choice = requires(Rule const& r) { r.tensor_scale(); };

/// The sums of squared errors of a vector of groups under two scales: the second's less the first's, and both. Each
/// error is that of the definition, but the squares and sums are of float32, and in another order.
struct compared_errors {
  floats difference, total;
};

/// Of groups of whole vectors that have scales; what has NaN in it has NaN for a total.
template <class Rule, class T>
HWY_INLINE compared_errors compare_errors(vector_rule<Rule> const& rule, scale_batch const& first,
                                          scale_batch const& second, std::int64_t group, T const* x,
                                          std::int64_t block) {
  // the masks, which change nothing, keep a difference from being contracted with the product before it
  auto const error = [&](vector_scaling const& s, floats v) HWY_ATTR {
    return hn::Sub(masked(quantized<has_number_form<vector_rule<Rule>>>(rule, s, v), s.keep), v);
  };
  floats differences[lanes], totals[lanes];
  for (std::int64_t g = 0; g < lanes; ++g) {
    vector_scaling const s = first.of(group + g), t = second.of(group + g);
    floats a = hn::Zero(float_tag{}), b = a;
    for (std::int64_t k = g * block; k < (g + 1) * block; k += lanes) {
      floats const v = load(x + k), d = error(s, v), e = error(t, v);
      a = hn::MulAdd(d, d, a);
      b = hn::MulAdd(e, e, b);
    }
    differences[g] = hn::Sub(b, a);
    totals[g] = hn::Add(a, b);
  }
  auto const sum = [](floats a, floats b) HWY_ATTR { return hn::Add(a, b); };
  return {across_groups(float_tag{}, [&](int g) HWY_ATTR { return differences[g]; }, sum),
          across_groups(float_tag{}, [&](int g) HWY_ATTR { return totals[g]; }, sum)};
}

/// scalar_kernels::choose_scale of groups whose two scales are in `b` and `other`, where sums of float32 tell which one
/// errs less; `open` is set for the other groups. Sums of up to `batch_elements` squares are within 2^-13 of the true
/// ones where no square is subnormal or overflows, and the definition's are closer still.
template <class Rule, class T>
HWY_INLINE void choose_by_sums(vector_rule<Rule> const& rule, T const* x, std::int64_t block, std::int64_t group,
                               scale_batch& b, scale_batch const& other, std::uint32_t* open) {
  auto const e = compare_errors(rule, b, other, group, x + group * block, block);
  auto const apart = hn::Gt(hn::Abs(e.difference), hn::Mul(e.total, splat(0x1p-10f)));
  auto const usual = hn::And(hn::Gt(e.total, splat(0x1p-100f)), hn::Lt(e.total, splat(0x1p100f)));
  auto const known = hn::And(apart, usual), less = hn::Lt(e.difference, hn::Zero(float_tag{}));
  floats const first = hn::Load(float_tag{}, b.file + group), second = hn::Load(float_tag{}, other.file + group);
  hn::Store(hn::IfThenElse(hn::And(known, less), second, first), float_tag{}, b.file + group);
  auto const same = hn::Or(known, hn::Eq(first, second));
  hn::Store(as_words(hn::IfThenZeroElse(same, splat(1.0f))), word_tag{}, open + group);
}

/// scalar_kernels::choose_scale for the groups of a batch, whose last may be ragged: b.file from b.amax. What sums of
/// float32 cannot tell the scalar rule decides.
template <class Rule, class T>
HWY_NOINLINE void choose_file_scales(vector_rule<Rule> const& given_rule, T const* x, std::int64_t block,
                                     std::int64_t length, scale_batch& b) {
  vector_rule<Rule> const rule = given_rule;  // a copy, that stores cannot change
  std::int64_t const groups = (length + block - 1) / block, whole = block % lanes == 0 ? length / block : 0;
  scale_batch other;
  for (std::int64_t i = 0; i < groups; ++i) other.amax[i] = rule.scalar.alternative(b.amax[i]);
  for (scale_batch* const one : {&b, &other}) {
    make_file_scales(rule, *one, groups);
    prepare_of_file(rule, *one, groups);
  }
  HWY_ALIGN std::uint32_t open[batch_groups];
  std::int64_t told = 0;
  if (block <= batch_elements && have_scales(b, groups) && have_scales(other, groups))
    for (; told + lanes <= whole; told += lanes) choose_by_sums(rule, x, block, told, b, other, open);
  const_tensor_ref const all = dense_view(x, {length});
  for (std::int64_t i = 0; i < groups; ++i) {
    if (i < told && open[i] == 0) continue;
    scalar_kernels::line const group{all, i * block, 1, std::min(block, length - i * block)};
    b.file[i] = scalar_kernels::choose_scale(rule.scalar, b.amax[i], group);
  }
}

/// What the elements of a batch are scaled with, where the groups' amax are known: `file` is set only where they lie in
/// it or are chosen.
template <class Rule, class T>
HWY_INLINE void prepare_batch(vector_rule<Rule> const& rule, T const* x, std::int64_t block, std::int64_t length,
                              scale_batch& b) {
  std::int64_t const groups = (length + block - 1) / block;
  if constexpr (has_choice<Rule>)
    if (rule.scalar.has_alternative()) {
      choose_file_scales(rule, x, block, length, b);
      return prepare_of_file(rule, b, groups);
    }
  prepare(rule, b, groups);
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
