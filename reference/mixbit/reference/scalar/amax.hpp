// amax[g] = max(amax[g], max |x|). Magnitudes are compared as integers: for floats without their sign that is the
// same order, and it puts NaN and infinities above all others, where they are noticed for free.
#pragma once

#include <atomic>
#include <bit>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/scalar/flags.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Magnitudes of T as integers of its size.
template <class T>
struct magnitude_bits {
  using type = std::int16_t;
  static constexpr type infinity = dtype_of<T>::value == dtype::f16 ? 0x7c00 : 0x7f80;
  static type of(T x) { return static_cast<type>(x.bits & 0x7fff); }
  static float value(type bits) { return to_float(T{static_cast<std::uint16_t>(bits)}); }
};

template <>
struct magnitude_bits<float> {
  using type = std::int32_t;
  static constexpr type infinity = 0x7f800000;
  static type of(float x) { return std::bit_cast<type>(x) & 0x7fffffff; }
  static float value(type bits) { return std::bit_cast<float>(bits); }
};

/// The largest value wins, whoever comes first.
inline void raise(float& amax, float value, bool shared) {
  if (!shared) {
    if (amax < value) amax = value;
    return;
  }
  std::atomic_ref<float> target{amax};
  float seen = target.load(std::memory_order_relaxed);
  while (seen < value && !target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {}
}

/// The largest finite magnitude of a run; NaN and infinities are counted.
template <class T, bool Unit>
typename magnitude_bits<T>::type run_amax(T const* in, std::int64_t stride, std::int64_t n, std::uint64_t& nonfinite) {
  using bits = magnitude_bits<T>;
  typename bits::type top = 0;
  for (std::int64_t i = 0; i < n; ++i) top = std::max(top, bits::of(in[Unit ? i : i * stride]));
  if (top < bits::infinity) return top;
  top = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    auto const m = bits::of(in[i * stride]);
    if (m < bits::infinity) top = std::max(top, m);
    else ++nonfinite;
  }
  return top;
}

/// One piece in which every element has its own group: a tile of maxima is carried down the rows.
template <class T>
void amax_of_tile(loop_nest<1> const& nest, std::int64_t piece, T const* x, float* amax, std::uint64_t& nonfinite) {
  using bits = magnitude_bits<T>;
  auto const& in = nest.inner();
  typename bits::type tile[tile_width];
  std::int64_t group = -1, length = 0;
  auto const flush = [&] {
    for (std::int64_t i = 0; i < length; ++i) raise(amax[group + i * in.group_stride], bits::value(tile[i]), true);
  };
  nest.rows_of(piece, [&](segment<1> const& s) {
    if (s.group != group) {
      flush();
      group = s.group;
      length = s.length;
      std::fill_n(tile, length, typename bits::type{0});
    }
    T const* const row = x + s.offset[0];
    std::int64_t strange = 0;
    for (std::int64_t i = 0; i < length; ++i) {
      auto const m = bits::of(row[i * in.stride[0]]);
      bool const finite = m < bits::infinity;
      tile[i] = std::max(tile[i], finite ? m : tile[i]);
      strange += !finite;
    }
    nonfinite += static_cast<std::uint64_t>(strange);
  });
  flush();
}

template <class T, bool Unit>
void amax_of_piece(loop_nest<1> const& nest, std::int64_t piece, amax_args const& a) {
  std::uint64_t nonfinite = 0;
  T const* const x = a.x.as<T>();
  if (nest.one_group_an_element()) {
    amax_of_tile(nest, piece, x, a.amax, nonfinite);
  } else {
    bool const shared = !nest.runs_are_groups();
    nest.rows_of(piece, [&](segment<1> const& s) {
      for_runs(s, nest.inner(), [&](auto const& at, std::int64_t n, std::int64_t group) {
        auto const top = run_amax<T, Unit>(x + at[0], nest.inner().stride[0], n, nonfinite);
        raise(a.amax[group], magnitude_bits<T>::value(top), shared);
      });
    });
  }
  if (a.flags) add_flag(a.flags->nonfinite, nonfinite);
}

inline void amax(executor_ref const& threads, amax_args const& a) {
  loop_nest<1> const nest{{&a.x}, a.groups};
  visit_compute(a.x.type, [&]<class T>(T) {
    for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
      if (nest.unit_stride()) amax_of_piece<T, true>(nest, piece, a);
      else amax_of_piece<T, false>(nest, piece, a);
    });
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
