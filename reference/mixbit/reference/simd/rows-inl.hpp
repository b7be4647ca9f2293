// Elements of a tensor as vectors of float32, and back. The conversions are those of core/dtype.hpp.
//
// The kernels need vectors of a fixed size, which can be members of a struct. On other targets (SVE, RVV, and Highway's
// emulations for machines without vectors) MIXBIT_SIMD_VECTORS is 0, and every kernel is the scalar one.
// needs: <hwy/highway.h>
#include <cstring>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "mixbit/core/dtype.hpp"
#include "mixbit/reference/scalar/rows.hpp"
#include "mixbit/reference/target.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_ROWS_INL
#undef MIXBIT_REFERENCE_SIMD_ROWS_INL
#else
#define MIXBIT_REFERENCE_SIMD_ROWS_INL
#endif

#undef MIXBIT_SIMD_VECTORS
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128 || HWY_HAVE_SCALABLE
#define MIXBIT_SIMD_VECTORS 0
#else
#define MIXBIT_SIMD_VECTORS 1
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using float_tag = hn::ScalableTag<float>;
using int_tag = hn::RebindToSigned<float_tag>;
using word_tag = hn::RebindToUnsigned<float_tag>;
using short_tag = hn::Rebind<std::uint16_t, float_tag>;  // half a vector
using byte_tag = hn::Rebind<std::uint8_t, float_tag>;    // a quarter
using floats = hn::Vec<float_tag>;
using ints = hn::Vec<int_tag>;
using words = hn::Vec<word_tag>;
using shorts = hn::Vec<short_tag>;
using bytes = hn::Vec<byte_tag>;

inline constexpr std::int64_t lanes = hn::MaxLanes(float_tag{});

HWY_INLINE floats splat(float v) { return hn::Set(float_tag{}, v); }
HWY_INLINE ints splat(std::int32_t v) { return hn::Set(int_tag{}, v); }
HWY_INLINE words splat(std::uint32_t v) { return hn::Set(word_tag{}, v); }
HWY_INLINE ints as_ints(floats v) { return hn::BitCast(int_tag{}, v); }
HWY_INLINE ints as_ints(words v) { return hn::BitCast(int_tag{}, v); }
HWY_INLINE words as_words(floats v) { return hn::BitCast(word_tag{}, v); }
HWY_INLINE words as_words(ints v) { return hn::BitCast(word_tag{}, v); }
HWY_INLINE floats as_floats(ints v) { return hn::BitCast(float_tag{}, v); }
HWY_INLINE floats as_floats(words v) { return hn::BitCast(float_tag{}, v); }
HWY_INLINE ints magnitude_of(floats v) { return hn::And(as_ints(v), splat(0x7fffffff)); }

// to_float

HWY_INLINE floats widen(float, floats v) { return v; }

HWY_INLINE floats widen(bfloat16, shorts v) {
  return as_floats(hn::ShiftLeft<16>(hn::PromoteTo(word_tag{}, v)));
}

HWY_INLINE floats widen(half, shorts v) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86  // F16C
  using half_tag = hn::Rebind<hwy::float16_t, float_tag>;
  return hn::PromoteTo(float_tag{}, hn::BitCast(half_tag{}, v));
#else
  ints const all = as_ints(hn::PromoteTo(word_tag{}, v));
  ints const fields = hn::And(all, splat(0x7fff));
  ints const normal = hn::Add(hn::ShiftLeft<13>(fields), splat(112 << 23));
  ints const special = hn::Or(hn::ShiftLeft<13>(fields), splat(0x7f800000));
  // a mantissa times 2^-24, exactly
  ints const subnormal = as_ints(hn::Mul(hn::ConvertTo(float_tag{}, fields), splat(0x1p-24f)));
  ints const finite = hn::IfThenElse(hn::Lt(fields, splat(0x400)), subnormal, normal);
  ints const magnitude = hn::IfThenElse(hn::Gt(fields, splat(0x7bff)), special, finite);
  return as_floats(hn::Or(magnitude, hn::ShiftLeft<16>(hn::And(all, splat(0x8000)))));
#endif
}

// from_float

HWY_INLINE shorts narrow_words(words v) { return hn::DemoteTo(short_tag{}, as_ints(v)); }

HWY_INLINE floats narrow(float, floats v) { return v; }

HWY_INLINE shorts narrow(bfloat16, floats v) {
  words const b = as_words(v), upper = hn::ShiftRight<16>(b);
  words const even = hn::Add(hn::And(upper, splat(1u)), splat(0x7fffu));
  words const rounded = hn::ShiftRight<16>(hn::Add(b, even));
  words const nan = hn::Or(upper, splat(0x40u));
  return narrow_words(as_words(hn::IfThenElse(hn::IsNaN(v), as_floats(nan), as_floats(rounded))));
}

HWY_INLINE shorts narrow(half, floats v) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86  // F16C
  using half_tag = hn::Rebind<hwy::float16_t, float_tag>;
  return hn::BitCast(short_tag{}, hn::DemoteTo(half_tag{}, v));
#else
  ints const magnitude = magnitude_of(v);
  ints const odd = hn::And(hn::ShiftRight<13>(magnitude), splat(1));
  ints const normal = hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, splat(0x38000000 - 0xfff)), odd));
  // units of 2^-24, which the sum rounds half to even
  ints const subnormal = hn::Sub(as_ints(hn::Add(as_floats(magnitude), splat(0.5f))), splat(0x3f000000));
  ints const nan = hn::Or(splat(0x7e00), hn::And(hn::ShiftRight<13>(magnitude), splat(0x3ff)));
  ints const finite = hn::IfThenElse(hn::Lt(magnitude, splat(0x38800000)), subnormal, normal);
  ints const large = hn::IfThenElse(hn::Gt(magnitude, splat(0x7f800000)), nan, splat(0x7c00));
  ints const bits = hn::IfThenElse(hn::Lt(magnitude, splat(0x477ff000)), finite, large);
  words const sign = hn::And(hn::ShiftRight<16>(as_words(v)), splat(0x8000u));
  return narrow_words(hn::Or(as_words(bits), sign));
#endif
}

/// v rounded to T and back.
template <class T>
HWY_INLINE floats through(floats v) {
  return widen(T{}, narrow(T{}, v));
}

HWY_INLINE floats through(dtype type, floats v) {
  return type == dtype::f16 ? through<half>(v) : type == dtype::bf16 ? through<bfloat16>(v) : v;
}

// memory

HWY_INLINE floats load(float const* p) { return hn::LoadU(float_tag{}, p); }
HWY_INLINE floats load(half const* p) { return widen(half{}, hn::LoadU(short_tag{}, &p->bits)); }
HWY_INLINE floats load(bfloat16 const* p) { return widen(bfloat16{}, hn::LoadU(short_tag{}, &p->bits)); }

HWY_INLINE void store(floats v, float* p) { hn::StoreU(v, float_tag{}, p); }
HWY_INLINE void store(floats v, half* p) { hn::StoreU(narrow(half{}, v), short_tag{}, &p->bits); }
HWY_INLINE void store(floats v, bfloat16* p) { hn::StoreU(narrow(bfloat16{}, v), short_tag{}, &p->bits); }

/// The bytes that one vector of T takes in memory, to which non-temporal stores are aligned.
template <class T>
inline constexpr std::size_t row_alignment = static_cast<std::size_t>(lanes) * sizeof(T);

/// Past the caches. `p` is aligned to row_alignment<T>, of at least 16 bytes.
template <class T>
HWY_INLINE void stream(floats v, T* p) {
  if constexpr (std::is_same_v<T, float>) hn::Stream(v, float_tag{}, p);
  else hn::Stream(narrow(T{}, v), short_tag{}, &p->bits);
}

/// The first n < lanes elements of a vector; those behind them are zero when loaded, and left alone when stored.
template <class T>
HWY_INLINE floats load_some(T const* p, std::int64_t n) {
  HWY_ALIGN T buffer[static_cast<std::size_t>(lanes)] = {};
  std::memcpy(buffer, p, static_cast<std::size_t>(n) * sizeof(T));
  return load(buffer);
}

template <class T>
HWY_INLINE void store_some(floats v, T* p, std::int64_t n) {
  HWY_ALIGN T buffer[static_cast<std::size_t>(lanes)];
  store(v, buffer);
  std::memcpy(p, buffer, static_cast<std::size_t>(n) * sizeof(T));
}

/// scalar_kernels::plain_rows, in vectors where rows are contiguous.
struct vector_rows {
  HWY_NOINLINE static float const* row_of(const_tensor_ref const& t, std::int64_t offset, std::int64_t stride,
                                          std::int64_t n, float* buffer) {
    if (stride != 1 || t.type == dtype::f32) return scalar_kernels::load_row(t, offset, stride, n, buffer);
    if (t.type == dtype::f16) widen_row(t.as<half>() + offset, n, buffer);
    else widen_row(t.as<bfloat16>() + offset, n, buffer);
    return buffer;
  }
  HWY_NOINLINE static void put_row(tensor_ref const& t, std::int64_t offset, std::int64_t stride, std::int64_t n,
                                   float const* row) {
    if (stride != 1 || t.type == dtype::f32) return scalar_kernels::store_row(t, offset, stride, n, row);
    if (t.type == dtype::f16) narrow_row(row, n, t.as<half>() + offset);
    else narrow_row(row, n, t.as<bfloat16>() + offset);
  }

 private:
  template <class T>
  HWY_INLINE static void widen_row(T const* in, std::int64_t n, float* out) {
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(load(in + i), float_tag{}, out + i);
    for (; i < n; ++i) out[i] = to_float(in[i]);
  }
  template <class T>
  HWY_INLINE static void narrow_row(float const* in, std::int64_t n, T* out) {
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) store(hn::LoadU(float_tag{}, in + i), out + i);
    for (; i < n; ++i) out[i] = from_float<T>(in[i]);
  }
};

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
