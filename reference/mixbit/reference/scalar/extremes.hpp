// low[g] = min(low[g], x), high[g] = max(high[g], x), compared as integers: a map of bits that keeps the order of
// floats and puts -0 below +0, so that the result does not depend on who comes first.
#pragma once

#include <atomic>
#include <limits>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/scalar/flags.hpp"
#include "mixbit/reference/scalar/rows.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The place of a float in their order. Its own inverse, on bits.
constexpr std::int32_t order_of(float x) {
  auto const bits = static_cast<std::int32_t>(fp::bits(x));
  return bits ^ static_cast<std::int32_t>(static_cast<std::uint32_t>(bits >> 31) >> 1);
}
constexpr float in_order(std::int32_t place) {
  return fp::from_bits(
      static_cast<std::uint32_t>(place ^ static_cast<std::int32_t>(static_cast<std::uint32_t>(place >> 31) >> 1)));
}

struct extreme_pair {
  std::int32_t low = order_of(std::numeric_limits<float>::infinity());
  std::int32_t high = order_of(-std::numeric_limits<float>::infinity());
};

/// Puts `value` where there is a larger (Lower) or smaller one.
template <bool Lower>
void push(float& extreme, float value) {
  std::atomic_ref<float> target{extreme};
  float seen = target.load(std::memory_order_relaxed);
  while (Lower ? order_of(value) < order_of(seen) : order_of(value) > order_of(seen))
    if (target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) return;
}

inline void push(extremes_args const& a, std::int64_t group, extreme_pair const& found) {
  push<true>(a.low[group], in_order(found.low));
  push<false>(a.high[group], in_order(found.high));
}

/// Element i of a row widens pair (Own ? i : 0).
template <bool Own>
std::uint64_t widen_by_row(float const* x, std::int64_t n, std::int32_t* low, std::int32_t* high) {
  std::uint32_t strange = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    bool const finite = fp::is_finite(x[i]);
    std::int32_t const place = order_of(x[i]);
    std::int64_t const k = Own ? i : 0;
    low[k] = std::min(low[k], finite ? place : low[k]);
    high[k] = std::max(high[k], finite ? place : high[k]);
    strange += finite ? 0u : 1u;
  }
  return strange;
}

/// One piece in which every element has its own group: a tile of extremes is carried down the rows.
inline std::uint64_t extremes_of_tile(loop_nest<1> const& nest, std::int64_t piece, extremes_args const& a) {
  auto const& in = nest.inner();
  std::int32_t low[tile_width], high[tile_width];
  float buffer[tile_width];
  std::int64_t group = -1, length = 0;
  std::uint64_t strange = 0;
  auto const flush = [&] {
    for (std::int64_t i = 0; i < length; ++i) push(a, group + i * in.group_stride, {low[i], high[i]});
  };
  nest.rows_of(piece, [&](segment<1> const& s) {
    if (s.group != group) {
      flush();
      group = s.group;
      length = s.length;
      std::fill_n(low, length, extreme_pair{}.low);
      std::fill_n(high, length, extreme_pair{}.high);
    }
    strange += widen_by_row<true>(load_row(a.x, s.offset[0], in.stride[0], length, buffer), length, low, high);
  });
  flush();
  return strange;
}

/// Runs that share a group.
struct extreme_rows : plain_rows {
  static std::uint64_t widen(float const* x, std::int64_t n, extreme_pair& found) {
    return widen_by_row<false>(x, n, &found.low, &found.high);
  }
};

template <class Rows>
std::uint64_t extremes_of_runs(loop_nest<1> const& nest, std::int64_t piece, extremes_args const& a) {
  std::int64_t const stride = nest.inner().stride[0];
  std::uint64_t strange = 0;
  nest.rows_of(piece, [&](segment<1> const& s) {
    for_runs(s, nest.inner(), [&](auto const& at, std::int64_t length, std::int64_t group) {
      extreme_pair found;
      float buffer[tile_width];
      for_tiles(length, [&](std::int64_t first, std::int64_t n) {
        float const* const row = Rows::row_of(a.x, at[0] + first * stride, stride, n, buffer);
        strange += Rows::widen(row, n, found);
      });
      push(a, group, found);
    });
  });
  return strange;
}

/// The kernel over any way to load and compare rows.
template <class Rows>
void extremes_by(executor_ref const& threads, extremes_args const& a) {
  loop_nest<1> const nest{{&a.x}, a.groups};
  for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
    auto const strange =
        nest.one_group_an_element() ? extremes_of_tile(nest, piece, a) : extremes_of_runs<Rows>(nest, piece, a);
    if (a.flags) add_flag(a.flags->nonfinite, strange);
  });
}

inline void extremes(executor_ref const& threads, extremes_args const& a) { extremes_by<extreme_rows>(threads, a); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
