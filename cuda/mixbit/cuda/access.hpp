// Eight elements at a time between a tensor's memory and float32: what every kernel reads and writes.
//
// An octet is 16 bytes of float16 or bfloat16 and 32 of float32. It moves in 16-byte accesses where it is whole,
// contiguous and aligned; otherwise element by element. Which of the two is decided for each octet, so kernels have
// no alignment to ask for. The element type is a run-time value: one kernel serves all three.
#pragma once

#include <cassert>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "mixbit/core/dtype.hpp"

/// Loops over an octet are unrolled on the device: a register has no index at run time. Others are kept small.
#if defined(__CUDA_ARCH__)
#define MIXBIT_CUDA_UNROLL _Pragma("unroll")
#define MIXBIT_CUDA_ROLL _Pragma("unroll 1")
#else
#define MIXBIT_CUDA_UNROLL
#define MIXBIT_CUDA_ROLL
#endif

namespace mixbit::cuda {

inline constexpr int octet = 8;

/// A tensor as a kernel knows it; where its elements lie is a nest's matter.
struct const_tensor_data {
  void const* data = nullptr;
  dtype type = dtype::f32;
};
struct tensor_data {
  void* data = nullptr;
  dtype type = dtype::f32;
};

/// One 16-byte access.
struct alignas(16) quad {
  std::uint32_t word[4];
};

MIXBIT_HD inline bool is_aligned(void const* p, unsigned bytes) {
  return (reinterpret_cast<std::uintptr_t>(p) & (bytes - 1u)) == 0;
}

MIXBIT_HD inline quad load_quad(void const* p) {
#if defined(__CUDA_ARCH__)
  return *static_cast<quad const*>(p);
#else
  assert(is_aligned(p, 16));  // a device faults on it
  quad q;
  std::memcpy(&q, p, sizeof q);
  return q;
#endif
}

MIXBIT_HD inline void store_quad(void* p, quad const& q) {
#if defined(__CUDA_ARCH__)
  *static_cast<quad*>(p) = q;
#else
  assert(is_aligned(p, 16));
  std::memcpy(p, &q, sizeof q);
#endif
}

/// to_float by the device's own conversion. NaN may change its payload, as in all arithmetic of a device.
MIXBIT_HD inline float widen(float x) { return x; }
MIXBIT_HD inline float widen(bfloat16 x) { return to_float(x); }
MIXBIT_HD inline float widen(half x) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  return to_float(x);
#endif
}

/// from_float<T> by the device's own conversion, which rounds to nearest even and keeps subnormals.
template <class T>
MIXBIT_HD T narrow(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (!std::is_same_v<T, float>) {
    T result;
    if constexpr (std::is_same_v<T, half>) asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    else asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
  }
#endif
  return from_float<T>(x);
}

namespace detail {

template <class T>
MIXBIT_HD void read_octet(T const* in, std::int64_t stride, int n, float (&v)[octet]) {
  if (n == octet && stride == 1 && is_aligned(in, 16)) {
    constexpr int a_quad = 16 / sizeof(T);
    MIXBIT_CUDA_UNROLL
    for (int q = 0; q < octet / a_quad; ++q) {
      quad const loaded = load_quad(in + q * a_quad);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < a_quad; ++i) {
        if constexpr (sizeof(T) == 4) v[q * a_quad + i] = fp::from_bits(loaded.word[i]);
        else v[q * a_quad + i] = widen(T{static_cast<std::uint16_t>(loaded.word[i / 2] >> (16 * (i % 2)))});
      }
    }
    return;
  }
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) v[i] = i < n ? widen(in[i * stride]) : 0.0f;
}

template <class T>
MIXBIT_HD void write_octet(T* out, std::int64_t stride, int n, float const (&v)[octet]) {
  if (n == octet && stride == 1 && is_aligned(out, 16)) {
    constexpr int a_quad = 16 / sizeof(T);
    MIXBIT_CUDA_UNROLL
    for (int q = 0; q < octet / a_quad; ++q) {
      quad stored{};
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < a_quad; ++i) {
        float const x = v[q * a_quad + i];
        if constexpr (sizeof(T) == 4) stored.word[i] = fp::bits(x);
        else stored.word[i / 2] |= static_cast<std::uint32_t>(narrow<T>(x).bits) << (16 * (i % 2));
      }
      store_quad(out + q * a_quad, stored);
    }
    return;
  }
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i)
    if (i < n) out[i * stride] = narrow<T>(v[i]);
}

}  // namespace detail

/// v = n elements of `data` from `offset` on, the rest 0.
MIXBIT_HD inline void load_octet(dtype type, void const* data, std::int64_t offset, std::int64_t stride, int n,
                                 float (&v)[octet]) {
  switch (type) {
    case dtype::f32: return detail::read_octet(static_cast<float const*>(data) + offset, stride, n, v);
    case dtype::f16: return detail::read_octet(static_cast<half const*>(data) + offset, stride, n, v);
    default: return detail::read_octet(static_cast<bfloat16 const*>(data) + offset, stride, n, v);
  }
}

/// n elements from `offset` on = v, each rounded to the type once.
MIXBIT_HD inline void store_octet(dtype type, void* data, std::int64_t offset, std::int64_t stride, int n,
                                  float const (&v)[octet]) {
  switch (type) {
    case dtype::f32: return detail::write_octet(static_cast<float*>(data) + offset, stride, n, v);
    case dtype::f16: return detail::write_octet(static_cast<half*>(data) + offset, stride, n, v);
    default: return detail::write_octet(static_cast<bfloat16*>(data) + offset, stride, n, v);
  }
}

MIXBIT_HD inline float load_one(dtype type, void const* data, std::int64_t offset) {
  switch (type) {
    case dtype::f32: return static_cast<float const*>(data)[offset];
    case dtype::f16: return widen(static_cast<half const*>(data)[offset]);
    default: return widen(static_cast<bfloat16 const*>(data)[offset]);
  }
}

MIXBIT_HD inline void store_one(dtype type, void* data, std::int64_t offset, float value) {
  switch (type) {
    case dtype::f32: static_cast<float*>(data)[offset] = value; return;
    case dtype::f16: static_cast<half*>(data)[offset] = narrow<half>(value); return;
    default: static_cast<bfloat16*>(data)[offset] = narrow<bfloat16>(value);
  }
}

MIXBIT_HD inline void store_zero(dtype type, void* data, std::int64_t offset) {
  if (type == dtype::f32) static_cast<float*>(data)[offset] = 0.0f;
  else static_cast<half*>(data)[offset] = half{};
}

}  // namespace mixbit::cuda
