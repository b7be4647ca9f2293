// counts[g · bins + b] += elements of group g in bin b. A piece of work counts a group's elements on its own stack
// where that pays, and adds them up once; counts are integers, so the order does not matter.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/histogram.hpp"
#include "mixbit/reference/scalar/flags.hpp"
#include "mixbit/reference/scalar/rows.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

inline constexpr std::int64_t local_bins = 4096;
// counters of a bin, in turn: an element waits less often for the sum before it
inline constexpr std::int64_t tables = 2;
inline constexpr std::int64_t histogram_piece = 8 * piece_elements;  // fewer pieces: each adds up all its bins

/// Counts of one group at a time. Slot 0 is for what is not finite, slot b + 1 for bin b.
class bin_counter {
 public:
  explicit bin_counter(histogram_args const& a) : args_{a} {
    std::int64_t in_group = 1;
    for (int axis = 0; axis < a.groups.rank; ++axis) in_group *= a.groups.block[axis];
    local_ = a.bins < local_bins && in_group >= a.bins;
    if (local_) std::fill_n(slots_, tables * (a.bins + 1), 0u);
  }
  bin_counter(bin_counter const&) = delete;
  bin_counter& operator=(bin_counter const&) = delete;
  ~bin_counter() { flush(); }

  void add(std::int64_t group, std::int32_t const* slots, std::int64_t n) {
    if (!local_) {
      for (std::int64_t i = 0; i < n; ++i) put(group, slots[i], 1);
      return;
    }
    if (group != group_) flush();
    group_ = group;
    std::int64_t const step = args_.bins + 1;
    std::int64_t i = 0;
    for (; i + tables <= n; i += tables)
      for (std::int64_t t = 0; t < tables; ++t) ++slots_[t * step + slots[i + t]];
    for (; i < n; ++i) ++slots_[slots[i]];
  }

 private:
  void put(std::int64_t group, std::int64_t slot, std::uint64_t n) {
    if (slot > 0) add_flag(args_.counts[group * args_.bins + slot - 1], n);
    else if (args_.flags) add_flag(args_.flags->nonfinite, n);
  }
  void flush() {
    if (group_ < 0) return;
    std::int64_t const step = args_.bins + 1;
    for (std::int64_t s = 0; s < step; ++s) {
      std::uint64_t n = 0;
      for (std::int64_t t = 0; t < tables; ++t) n += slots_[t * step + s];
      put(group_, s, n);
    }
    std::fill_n(slots_, tables * step, 0u);
    group_ = -1;
  }

  histogram_args const& args_;
  bool local_ = false;
  std::int64_t group_ = -1;
  std::uint32_t slots_[tables * local_bins];
};

/// Rows of values to slots.
struct slot_rows : plain_rows {
  static void slots(float const* x, std::int64_t n, float bins, float top, std::int32_t* slots) {
    for (std::int64_t i = 0; i < n; ++i) {
      float const m = fp::abs(x[i]);
      slots[i] = fp::is_finite(m) ? formats::histogram_bin(m, bins, top) + 1 : 0;
    }
  }
};

/// The kernel over any way to load rows and to compute their slots.
template <class Rows>
void histogram_by(executor_ref const& threads, histogram_args const& a) {
  assert(a.bins > 0 && a.bins <= formats::most_bins);
  loop_nest<1> const nest{{&a.x}, a.groups, histogram_piece};
  std::int64_t const stride = nest.inner().stride[0];
  for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
    bin_counter counter{a};
    float row[tile_width];
    std::int32_t slots[tile_width];
    nest.rows_of(piece, [&](segment<1> const& s) {
      for_runs(s, nest.inner(), [&](auto const& at, std::int64_t length, std::int64_t group) {
        for_tiles(length, [&](std::int64_t first, std::int64_t n) {
          float const* const x = Rows::row_of(a.x, at[0] + first * stride, stride, n, row);
          Rows::slots(x, n, static_cast<float>(a.bins), a.top[group], slots);
          counter.add(group, slots, n);
        });
      });
    });
  });
}

inline void histogram(executor_ref const& threads, histogram_args const& a) { histogram_by<slot_rows>(threads, a); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
