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
HWY_INLINE ints slots_of(floats x, floats bins, floats top) {
  floats const m = as_floats(magnitude_of(x));
  floats const place = hn::Div(hn::Mul(m, bins), top);
  floats const last = hn::Sub(bins, splat(1.0f));
  floats const inside = hn::IfThenElse(hn::Lt(place, bins), place, last);
  floats const bin = hn::IfThenElseZero(hn::Gt(top, splat(0.0f)), inside);
  ints const slot = hn::Add(hn::ConvertTo(int_tag{}, bin), splat(1));
  return hn::IfThenElseZero(hn::Lt(magnitude_of(x), splat(0x7f800000)), slot);
}

struct slot_vectors {
  HWY_NOINLINE void operator()(float const* x, std::int64_t n, float bins, float top, std::int32_t* slots) const {
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(slots_of(load(x + i), splat(bins), splat(top)), int_tag{}, slots + i);
    if (i < n) scalar_kernels::slot_rule{}(x + i, n - i, bins, top, slots + i);
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

 private:
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
    if (!hn::AllTrue(int_tag{}, hn::Lt(top, splat(0x7f800000)))) return false;
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
  scalar_kernels::histogram_by(threads, a, slot_vectors{});
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

inline void extremes(executor_ref const& threads, extremes_args const& a) { scalar_kernels::extremes(threads, a); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
