// y = Q(x), a vector at a time and in one pass over memory. Contiguous rows of rules that have a vector form are done
// here; the scalar kernel does the rest.
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/fake_quantize.hpp"
#include "mixbit/reference/simd/blocks-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_FAKE_QUANTIZE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_FAKE_QUANTIZE_INL
#undef MIXBIT_REFERENCE_SIMD_FAKE_QUANTIZE_INL
#else
#define MIXBIT_REFERENCE_SIMD_FAKE_QUANTIZE_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

/// Elements that share a scaling. With `Stream`, y is aligned to row_alignment<T>.
template <bool Stream, class Rule, class Scaling, class T>
HWY_INLINE void quantize_run(Rule const& rule, Scaling const& s, T const* x, T* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    floats const v = rule.fake_quantize(s, load(x + i));
    if constexpr (Stream) stream(v, y + i);
    else store(v, y + i);
  }
  if (i < n) store_some(rule.fake_quantize(s, load_some(x + i, n - i)), y + i, n - i);
}

/// How many of n elements lie before the first address that is aligned to a vector's; n where none is.
template <class T>
HWY_INLINE std::int64_t before_aligned(T const* y, std::int64_t n) {
  std::size_t const past = reinterpret_cast<std::uintptr_t>(y) % row_alignment<T>;
  if (past % sizeof(T) != 0) return n;
  return std::min(n, static_cast<std::int64_t>((row_alignment<T> - past) % row_alignment<T> / sizeof(T)));
}

/// The same past the caches, from whatever address: what lies before an aligned one is stored as usual.
template <class Rule, class Scaling, class T>
HWY_INLINE void stream_run(Rule const& rule, Scaling const& s, T const* x, T* y, std::int64_t n) {
  std::int64_t const before = before_aligned(y, n);
  quantize_run<false>(rule, s, x, y, before);
  quantize_run<true>(rule, s, x + before, y + before, n - before);
}

/// +0 in the place of NaN, of whole vectors.
template <class T>
HWY_NOINLINE void without_nan(T* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += lanes) {
    floats const v = load(y + i);
    store(hn::IfThenElseZero(hn::Eq(v, v), v), y + i);
  }
}

/// Groups of whole vectors, with `Number` without NaN. With `Stream`, y is aligned to row_alignment<T>, and the next
/// batch is fetched meanwhile: its amax comes before its first store, when memory would else be idle.
template <bool Stream, bool Number, int Vectors, class Rule, class T>
HWY_INLINE void quantize_whole(Rule const& rule, scale_batch const& b, T const* x, T* y, std::int64_t block,
                               std::int64_t groups) {
  std::int64_t const size = Vectors == 0 ? block : Vectors * lanes;
  for (std::int64_t i = 0; i < groups; ++i) {
    vector_scaling const s = b.of(i);
    for (std::int64_t k = i * size; k < (i + 1) * size; k += lanes) {
      if constexpr (Stream) hwy::Prefetch(x + groups * size + k);
      floats const v = quantized<Number>(rule, s, load(x + k));
      if constexpr (Stream) stream(v, y + k);
      else store(v, y + k);
    }
  }
}

/// Groups of `block` elements, of which the last may be ragged. With `Number` whole groups have no NaN.
template <bool Stream, bool Number, class Rule, class T>
HWY_INLINE void quantize_groups(Rule const& rule, scale_batch const& b, T const* x, T* y, std::int64_t block,
                                std::int64_t length) {
  if constexpr (Stream)
    if (block >= batch_elements) return stream_run(rule, b.of(0), x, y, length);
  std::int64_t whole = block % lanes == 0 ? length / block : 0;
  with_vectors(block, [&]<int Vectors>() HWY_ATTR {
    if (Stream && reinterpret_cast<std::uintptr_t>(y) % row_alignment<T> == 0)
      quantize_whole<Stream, Number, Vectors>(rule, b, x, y, block, whole);
    else
      quantize_whole<false, Number, Vectors>(rule, b, x, y, block, whole);
  });
  for (std::int64_t first = whole * block; first < length; first += block)
    quantize_run<false>(rule, b.of(whole++), x + first, y + first, std::min(block, length - first));
}

/// One group of a rule that divides by_products. In the caches NaN is looked for by a sum, on pipes that have time, and
/// stores are aligned: one that lies in two lines takes twice as long.
template <bool Stream, class Rule, class T>
HWY_INLINE void quantize_long(Rule const& rule, scale_batch const& b, T const* x, T* y, std::int64_t length) {
  auto const s = scaling_of(rule, b, 0);
  if constexpr (Stream) return stream_run(rule, s, x, y, length);
  std::int64_t const before = before_aligned(y, length);
  quantize_run<false>(rule, s, x, y, before);
  x += before;
  y += before;
  length -= before;
  floats seen[2] = {hn::Zero(float_tag{}), hn::Zero(float_tag{})};
  auto const one = [&](std::int64_t i, floats& sum) HWY_ATTR {
    floats const v = load(x + i);
    sum = hn::Add(sum, v);
    store(rule.fake_quantize_number(s, v), y + i);
  };
  std::int64_t i = 0;
  for (; i + 2 * lanes <= length; i += 2 * lanes) {
    one(i, seen[0]);
    one(i + lanes, seen[1]);
  }
  if (hn::CountTrue(float_tag{}, hn::IsNaN(hn::Add(seen[0], seen[1]))) != 0) without_nan(y, i);
  quantize_run<false>(rule, s, x + i, y + i, length - i);
}

/// One row of a piece: batches of groups.
template <bool Stream, class Rule, class T>
HWY_NOINLINE void quantize_row(vector_rule<Rule> const& given_rule, fake_quantize_args const& a,
                               segment<2> const& s, nest_axis<2> const& in) {
  vector_rule<Rule> const rule = given_rule;  // a copy, that stores cannot change
  T const* x = a.x.as<T>() + s.offset[0];
  T* y = a.y.as<T>() + s.offset[1];
  std::int64_t group = s.group, phase = s.phase;
  scale_batch b;
  for (std::int64_t rest = s.length; rest > 0;) {
    std::int64_t const length = batch_length(in.block, phase, rest), block = std::min(in.block, length);
    std::int64_t const groups = (length + block - 1) / block;
    bool strange = true;
    if (a.use == amax_use::data) {
      strange = amax_of_groups(x, block, length, !formats::block_scaled<Rule>, b.amax);
      prepare_batch(rule, x, block, length, b);
    } else if (a.amax) {
      for (std::int64_t i = 0; i < groups; ++i) b.amax[i] = a.amax[group + i * in.group_stride];
      prepare_batch(rule, x, block, length, b);
    } else {
      b.set(0, formats::scaling{});
    }
    if (divides_by_products(rule, b, block)) {
      if constexpr (has_products<Rule>) quantize_long<Stream>(by_products<Rule>{rule}, b, x, y, length);
    } else if (strange || !has_number_form<vector_rule<Rule>> || !have_scales(b, groups)) {
      quantize_groups<Stream, false>(rule, b, x, y, block, length);
    } else {
      quantize_groups<Stream, has_number_form<vector_rule<Rule>>>(rule, b, x, y, block, length);
    }
    x += length;
    y += length;
    rest -= length;
    group += groups * in.group_stride;
    phase = 0;
  }
}

/// Can `vector_rule` rows answer the call? `cast`: without a scale.
inline bool has_vector_rows(fake_quantize_args const& a, loop_nest<2> const& nest) {
  if (nest.one_group_an_element() || !nest.unit_stride()) return false;
  bool const seen_whole = a.use == amax_use::data || a.how.scaling == scale_rule::four_over_six;
  return !seen_whole || (line_axis(a.groups) && nest.runs_are_groups());
}

template <class Rule>
void fake_quantize_rows(executor_ref const& threads, fake_quantize_args const& a, loop_nest<2> const& nest) {
  vector_rule<Rule> const rule{a.how, scalar_kernels::rule_inputs_of(a)};
  visit_compute(a.x.type, [&]<class T>(T) {
    // stores past the caches are of 16 bytes and more
    bool const streams = a.x.data != a.y.data && exceeds_caches(a.y) && row_alignment<T> >= 16;
    auto const row = streams ? quantize_row<row_alignment<T> >= 16, Rule, T> : quantize_row<false, Rule, T>;
    for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
      nest.rows_of(piece, [&](segment<2> const& s) { row(rule, a, s, nest.inner()); });
      if (streams) hwy::FlushStream();
    });
  });
}

#endif

inline void fake_quantize(executor_ref const& threads, fake_quantize_args const& a) {
#if MIXBIT_SIMD_VECTORS
  bool const cast = a.amax == nullptr && a.use == amax_use::given;
  loop_nest<2> const nest{{&a.x, &a.y}, cast ? per_tensor(a.x) : a.groups};
  bool const answered =
      has_vector_rows(a, nest) &&
      formats::visit_rule(a.how, scalar_kernels::rule_inputs_of(a), [&]<class Rule>(Rule const&) {
        if constexpr (has_vector_form<Rule>) {
          if (a.how.element.is_unsigned) scalar_kernels::count_negative(threads, a.x, a.flags);
          fake_quantize_rows<Rule>(threads, a, nest);
        }
        return has_vector_form<Rule>;
      });
  if (answered) return;
#endif
  scalar_kernels::fake_quantize(threads, a);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
