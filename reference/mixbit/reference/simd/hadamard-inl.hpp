// Butterflies in vectors. Those within a vector swap neighbours, then pairs, halves and so on: s + v in the lower and
// s - v in the upper one of each pair, which are the sums and differences of the scalar kernel.
// needs: <hwy/highway.h>
#include <bit>

#include "mixbit/reference/scalar/hadamard.hpp"
#include "mixbit/reference/simd/rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_HADAMARD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_HADAMARD_INL
#undef MIXBIT_REFERENCE_SIMD_HADAMARD_INL
#else
#define MIXBIT_REFERENCE_SIMD_HADAMARD_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

/// Lane i of the result is lane i ^ Distance of v.
template <int Distance>
HWY_INLINE floats across(floats v) {
  if constexpr (Distance == 1) return hn::Shuffle2301(v);
  else if constexpr (Distance == 2) return hn::Shuffle1032(v);
  else if constexpr (Distance == 4) return hn::SwapAdjacentBlocks(v);
  else return hn::SwapAdjacentBlocks(hn::ReverseBlocks(float_tag{}, v));
}

/// All distances within a vector, of a block of at least one vector.
template <int Distance = 1>
HWY_INLINE floats within(floats v) {
  if constexpr (Distance >= lanes) {
    return v;
  } else {
    constexpr int bit = std::countr_zero(static_cast<unsigned>(Distance));
    ints const flip = hn::And(hn::ShiftLeft<31 - bit>(hn::Iota(int_tag{}, 0)), splat(INT32_MIN));
    return within<2 * Distance>(hn::Add(across<Distance>(v), as_floats(hn::Xor(as_ints(v), flip))));
  }
}

struct butterfly_vectors : vector_rows {
  HWY_NOINLINE static void transform(float* v, std::int64_t block) {
    if (block < lanes) return scalar_kernels::butterflies::transform(v, block);
    for (std::int64_t i = 0; i < block; i += lanes) store(within(load(v + i)), v + i);
    for (std::int64_t distance = lanes; distance < block; distance *= 2)
      for (std::int64_t first = 0; first < block; first += 2 * distance)
        for (std::int64_t i = first; i < first + distance; i += lanes) {
          floats const a = load(v + i), b = load(v + i + distance);
          store(hn::Add(a, b), v + i);
          store(hn::Sub(a, b), v + i + distance);
        }
    floats const scale = splat(formats::hadamard_scale(block));
    for (std::int64_t i = 0; i < block; i += lanes) store(hn::Mul(load(v + i), scale), v + i);
  }
};

#endif

inline void hadamard(executor_ref const& threads, hadamard_args const& a) {
#if MIXBIT_SIMD_VECTORS
  scalar_kernels::hadamard_by<butterfly_vectors>(threads, a);
#else
  scalar_kernels::hadamard(threads, a);
#endif
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
