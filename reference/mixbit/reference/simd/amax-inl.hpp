// amax[g] = max(amax[g], max |x|) of contiguous runs, as integers (scalar/amax.hpp says why).
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/amax.hpp"
#include "mixbit/reference/simd/blocks-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_AMAX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_AMAX_INL
#undef MIXBIT_REFERENCE_SIMD_AMAX_INL
#else
#define MIXBIT_REFERENCE_SIMD_AMAX_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

/// The largest of n magnitudes, of all lanes: four vectors in flight, since each waits for its predecessor.
template <class T>
HWY_INLINE floats largest_of_run(T const* x, std::int64_t n) {
  ints a = hn::Zero(int_tag{}), b = a, c = a, d = a;  // no array: a loop over it may go through memory
  std::int64_t i = 0;
  auto const at = [&](int k) HWY_ATTR { return magnitude_of(load(x + i + k * lanes)); };
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::Max(a, at(0));
    b = hn::Max(b, at(1));
    c = hn::Max(c, at(2));
    d = hn::Max(d, at(3));
  }
  for (; i + lanes <= n; i += lanes) a = hn::Max(a, at(0));
  if (i < n) b = hn::Max(b, magnitude_of(load_some(x + i, n - i)));
  return as_floats(hn::MaxOfLanes(int_tag{}, hn::Max(hn::Max(a, b), hn::Max(c, d))));
}

/// Groups of few whole vectors, a vector of groups at a time; returns how many elements that was. Each of its loads
/// goes on by a vector of groups, a stride that a processor's prefetcher does not follow: from memory, groups of more
/// than a line of the cache are left to amax_row, whose results are the same.
template <class T>
HWY_INLINE std::int64_t amax_of_small(amax_args const& a, T const* x, std::int64_t length, std::int64_t block,
                                      std::int64_t group, bool shared, std::uint64_t& nonfinite) {
  using bits = scalar_kernels::magnitude_bits<T>;
  std::int64_t const line = 64 / static_cast<std::int64_t>(sizeof(T));
  if (block > 4 * lanes || (block > line && exceeds_caches(a.x))) return 0;
  HWY_ALIGN float tops[batch_groups];
  std::int64_t first = 0;
  while (length - first >= lanes * block) {
    std::int64_t const most = std::min(batch_groups * block, length - first);
    ints top = hn::Zero(int_tag{});
    std::int64_t const n = tops_of_groups(x + first, block, most, tops, top);
    if (n == 0) break;
    if (!shared && hn::GetLane(hn::MaxOfLanes(int_tag{}, top)) < 0x7f800000) {
      for (std::int64_t g = 0; g < n / block; g += lanes, group += lanes)
        store(hn::Max(hn::Load(float_tag{}, tops + g), load(a.amax + group)), a.amax + group);
    } else {
      for (std::int64_t g = 0; g < n / block; ++g, ++group) {
        if (!fp::is_finite(tops[g]))
          tops[g] = bits::value(scalar_kernels::run_amax<T, true>(x + first + g * block, 1, block, nonfinite));
        scalar_kernels::raise(a.amax[group], tops[g], shared);
      }
    }
    first += n;
  }
  return first;
}

/// One row of a piece. NaN and infinities are rare: a run that has one is done again by the scalar kernel.
template <class T>
HWY_NOINLINE void amax_row(amax_args const& a, segment<1> s, nest_axis<1> const& in, bool shared,
                           std::uint64_t& nonfinite) {
  using bits = scalar_kernels::magnitude_bits<T>;
  T const* x = a.x.as<T>() + s.offset[0];
  if (s.phase == 0 && in.group_stride == 1) {
    std::int64_t const done = amax_of_small(a, x, s.length, in.block, s.group, shared, nonfinite);
    x += done;
    s.group += done / in.block;
    s.length -= done;
  }
  while (s.length > 0) {
    std::int64_t const n = std::min(s.length, in.block - s.phase);
    float top = hn::GetLane(largest_of_run(x, n));
    if (!fp::is_finite(top)) top = bits::value(scalar_kernels::run_amax<T, true>(x, 1, n, nonfinite));
    scalar_kernels::raise(a.amax[s.group], top, shared);
    x += n;
    s.group += in.group_stride;
    s.length -= n;
    s.phase = 0;
  }
}

#endif

inline void amax(executor_ref const& threads, amax_args const& a) {
#if MIXBIT_SIMD_VECTORS
  loop_nest<1> const nest{{&a.x}, a.groups};
  if (nest.unit_stride() && !nest.one_group_an_element()) {
    bool const shared = !nest.runs_are_groups();
    visit_compute(a.x.type, [&]<class T>(T) {
      for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
        std::uint64_t nonfinite = 0;
        nest.rows_of(piece, [&](segment<1> const& s) { amax_row<T>(a, s, nest.inner(), shared, nonfinite); });
        if (a.flags) scalar_kernels::add_flag(a.flags->nonfinite, nonfinite);
      });
    });
    return;
  }
#endif
  scalar_kernels::amax(threads, a);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
