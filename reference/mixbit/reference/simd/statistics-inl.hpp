// What calibrators ask of data: histograms, sums, extremes. The order of summation is that of formats/summation.hpp.
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/extremes.hpp"
#include "mixbit/reference/scalar/histogram.hpp"
#include "mixbit/reference/scalar/sum.hpp"
#include "mixbit/reference/simd/rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_STATISTICS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_STATISTICS_INL
#undef MIXBIT_REFERENCE_SIMD_STATISTICS_INL
#else
#define MIXBIT_REFERENCE_SIMD_STATISTICS_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

/// formats::histogram_bin + 1 of finite magnitudes, 0 of the others.
class slot_maker {
 public:
  HWY_INLINE slot_maker(float bins, float top)
      : bins_{splat(top > 0.0f ? bins : 0.0f)},  // without a range all are in the first bin
        top_{splat(top > 0.0f ? top : 1.0f)},
        last_{splat(bins - 1.0f)} {}

  HWY_INLINE ints operator()(floats x) const {
    floats const m = as_floats(magnitude_of(x)), place = hn::Div(hn::Mul(m, bins_), top_);
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    // minps gives its second operand where the first is NaN; Highway's conversion adds four instructions for what is
    // not in range
    ints const bin{_mm512_cvttps_epi32(_mm512_min_ps(place.raw, last_.raw))};
#else
    ints const bin = hn::ConvertTo(int_tag{}, hn::IfThenElse(hn::Lt(place, last_), place, last_));
#endif
    return hn::IfThenElseZero(hn::Lt(magnitude_of(x), splat(0x7f800000)), hn::Add(bin, splat(1)));
  }

 private:
  floats bins_, top_, last_;
};

struct slot_vectors : vector_rows {
  HWY_NOINLINE static void slots(float const* x, std::int64_t n, float bins, float top, std::int32_t* slots) {
    slot_maker const slot{bins, top};
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(slot(load(x + i)), int_tag{}, slots + i);
    if (i < n) scalar_kernels::slot_rows::slots(x + i, n - i, bins, top, slots + i);
  }

  /// Counts x in two tables, `step` apart. While a vector's slots are counted those of the eighth behind it are
  /// computed: vectors and memory, at which the processor works at once, and far enough from each other that a slot is
  /// no longer being stored when it is loaded.
  HWY_NOINLINE static void count(float const* x, std::int64_t n, float bins, float top, std::uint32_t* counts,
                                 std::int64_t step) {
    static_assert(scalar_kernels::tables == 2);
    constexpr std::int64_t ahead = 8 * lanes;
    HWY_ALIGN std::int32_t slots[static_cast<std::size_t>(2 * ahead)];
    slot_maker const slot{bins, top};
    std::int64_t const whole = n / lanes * lanes;
    auto const compute = [&](std::int64_t i) HWY_ATTR {
      if (i < whole) hn::Store(slot(load(x + i)), int_tag{}, slots + i % (2 * ahead));
    };
    for (std::int64_t i = 0; i < ahead; i += lanes) compute(i);
    for (std::int64_t i = 0; i < whole; i += lanes) {
      compute(i + ahead);
      count_vector(slots + i % (2 * ahead), counts, counts + step);
    }
    if (whole == n) return;
    scalar_kernels::slot_rows::slots(x + whole, n - whole, bins, top, slots);
    for (std::int64_t i = 0; i < n - whole; ++i) ++counts[slots[i]];
  }

 private:
  /// A vector's slots, which are loaded two at a time.
  HWY_INLINE static void count_vector(std::int32_t const* slots, std::uint32_t* even, std::uint32_t* odd) {
    auto const count_two = [&](std::int64_t k) HWY_ATTR {
      std::uint64_t pair;
      std::memcpy(&pair, slots + k, sizeof pair);
      ++even[static_cast<std::uint32_t>(pair)];
      ++odd[pair >> 32];
    };
    for (std::int64_t k = 0; k < lanes; k += 4) {
      count_two(k);
      count_two(k + 2);
    }
  }
};

using double_tag = hn::Repartition<double, float_tag>;
using half_float_tag = hn::Half<float_tag>;
using doubles = hn::Vec<double_tag>;
inline constexpr std::int64_t double_lanes = lanes / 2, lane_vectors = formats::sum_lanes / double_lanes;

template <sum_of What>
HWY_INLINE doubles term_of(hn::Vec<half_float_tag> x) {
  doubles const v = hn::PromoteTo(double_tag{}, x);
  if constexpr (What == sum_of::squares) return hn::Mul(v, v);
  else if constexpr (What == sum_of::magnitudes) return hn::Abs(v);
  else return v;
}

/// scalar_kernels::order_of.
HWY_INLINE ints order_of(floats x) {
  ints const bits = as_ints(x);
  return hn::Xor(bits, as_ints(hn::ShiftRight<1>(as_words(hn::ShiftRight<31>(bits)))));
}

struct extreme_vectors : vector_rows {
  HWY_NOINLINE static std::uint64_t widen(float const* x, std::int64_t n, scalar_kernels::extreme_pair& found) {
    std::int64_t i = 0;
    ints low = splat(found.low), high = splat(found.high), top = hn::Zero(int_tag{});
    for (; i + lanes <= n; i += lanes) {
      floats const v = load(x + i);
      top = hn::Max(top, magnitude_of(v));
      low = hn::Min(low, order_of(v));
      high = hn::Max(high, order_of(v));
    }
    if (!hn::AllTrue(int_tag{}, hn::Lt(top, splat(0x7f800000)))) i = 0;  // rare: the scalar loop looks at each
    else if (i > 0) found = {hn::GetLane(hn::MinOfLanes(int_tag{}, low)), hn::GetLane(hn::MaxOfLanes(int_tag{}, high))};
    return scalar_kernels::extreme_rows::widen(x + i, n - i, found);
  }
};

/// scalar_kernels::lane_rows, sum_lanes contiguous elements at a time. Batches with NaN or infinities are left to it.
struct lane_vector_rows {
  template <sum_of What, class T>
  HWY_NOINLINE static std::int64_t add(double* sums, std::int64_t first, T const* x, std::int64_t stride,
                                       std::int64_t n) {
    constexpr std::int64_t batch = formats::sum_lanes;
    using scalar_kernels::lane_rows;
    std::int64_t const head = std::min(n, (batch - first % batch) % batch);
    if (stride != 1 || n - head < batch) return lane_rows::add<What>(sums, first, x, stride, n);
    std::int64_t strange = lane_rows::add<What>(sums, first, x, 1, head);
    std::int64_t i = head;
    doubles lane[lane_vectors];
    for (std::int64_t k = 0; k < lane_vectors; ++k) lane[k] = hn::LoadU(double_tag{}, sums + k * double_lanes);
    for (; i + batch <= n; i += batch)
      if (!add_batch<What>(lane, x + i)) {
        for (std::int64_t k = 0; k < lane_vectors; ++k) hn::StoreU(lane[k], double_tag{}, sums + k * double_lanes);
        strange += lane_rows::add<What>(sums, 0, x + i, 1, batch);
        for (std::int64_t k = 0; k < lane_vectors; ++k) lane[k] = hn::LoadU(double_tag{}, sums + k * double_lanes);
      }
    for (std::int64_t k = 0; k < lane_vectors; ++k) hn::StoreU(lane[k], double_tag{}, sums + k * double_lanes);
    return strange + lane_rows::add<What>(sums, 0, x + i, 1, n - i);
  }

  template <sum_of What, class T>
  HWY_NOINLINE static std::int64_t add_columns(double* lane, T const* row, std::int64_t step, std::int64_t width) {
    std::int64_t strange = 0, c = 0;
    if (step == 1)
      for (; c + lanes <= width; c += lanes) {
        floats const v = load(row + c);
        if (!all_finite(magnitude_of(v))) {
          strange += scalar_kernels::lane_rows::add_columns<What>(lane + c, row + c, 1, lanes);
          continue;
        }
        add_to<What>(lane + c, hn::LowerHalf(half_float_tag{}, v));
        add_to<What>(lane + c + double_lanes, hn::UpperHalf(half_float_tag{}, v));
      }
    return strange + scalar_kernels::lane_rows::add_columns<What>(lane + c, row + c * step, step, width - c);
  }

 private:
  HWY_INLINE static bool all_finite(ints magnitude) {
    return hn::AllTrue(int_tag{}, hn::Lt(magnitude, splat(0x7f800000)));
  }
  template <sum_of What>
  HWY_INLINE static void add_to(double* lane, hn::Vec<half_float_tag> v) {
    hn::StoreU(hn::Add(hn::LoadU(double_tag{}, lane), term_of<What>(v)), double_tag{}, lane);
  }

  /// False, and nothing added, where an element is not finite.
  template <sum_of What, class T>
  HWY_INLINE static bool add_batch(doubles* lane, T const* x) {
    constexpr std::int64_t count = formats::sum_lanes / lanes;
    floats v[count];
    ints top = hn::Zero(int_tag{});
    for (std::int64_t k = 0; k < count; ++k) {
      v[k] = load(x + k * lanes);
      top = hn::Max(top, magnitude_of(v[k]));
    }
    if (!all_finite(top)) return false;
    for (std::int64_t k = 0; k < count; ++k) {
      lane[2 * k] = hn::Add(lane[2 * k], term_of<What>(hn::LowerHalf(half_float_tag{}, v[k])));
      lane[2 * k + 1] = hn::Add(lane[2 * k + 1], term_of<What>(hn::UpperHalf(half_float_tag{}, v[k])));
    }
    return true;
  }
};

#endif

inline void histogram(executor_ref const& threads, histogram_args const& a) {
#if MIXBIT_SIMD_VECTORS
  scalar_kernels::histogram_by<slot_vectors>(threads, a);
#else
  scalar_kernels::histogram(threads, a);
#endif
}

inline void sum(executor_ref const& threads, sum_args const& a) {
#if MIXBIT_SIMD_VECTORS
  scalar_kernels::sum_by<lane_vector_rows>(threads, a);
#else
  scalar_kernels::sum(threads, a);
#endif
}

inline void extremes(executor_ref const& threads, extremes_args const& a) {
#if MIXBIT_SIMD_VECTORS
  scalar_kernels::extremes_by<extreme_vectors>(threads, a);
#else
  scalar_kernels::extremes(threads, a);
#endif
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
