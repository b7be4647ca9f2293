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
    std::uint32_t* const counts = tables_of(group);
    if (!counts) {
      for (std::int64_t i = 0; i < n; ++i) put(group, slots[i], 1);
      return;
    }
    std::int64_t i = 0;
    for (; i + tables <= n; i += tables)
      for (std::int64_t t = 0; t < tables; ++t) ++counts[t * step() + slots[i + t]];
    for (; i < n; ++i) ++counts[slots[i]];
  }

  /// Where to count a group's elements: `tables` tables, `step()` apart, in whichever of which; null: by add() alone.
  std::uint32_t* tables_of(std::int64_t group) {
    if (!local_) return nullptr;
    if (group != group_) flush();
    group_ = group;
    return slots_;
  }
  std::int64_t step() const { return args_.bins + 1; }

 private:
  void put(std::int64_t group, std::int64_t slot, std::uint64_t n) {
    if (slot > 0) add_flag(args_.counts[group * args_.bins + slot - 1], n);
    else if (args_.flags) add_flag(args_.flags->nonfinite, n);
  }
  void flush() {
    if (group_ < 0) return;
    for (std::int64_t s = 0; s < step(); ++s) {
      std::uint64_t n = 0;
      for (std::int64_t t = 0; t < tables; ++t) n += slots_[t * step() + s];
      put(group_, s, n);
    }
    std::fill_n(slots_, tables * step(), 0u);
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

/// One row: counted as its slots are computed, where there is a way to do both at once.
template <class Rows>
void count_row(bin_counter& counter, float const* x, std::int64_t n, float bins, float top, std::int64_t group) {
  if constexpr (requires { &Rows::count; })
    if (std::uint32_t* const counts = counter.tables_of(group))
      return Rows::count(x, n, bins, top, counts, counter.step());
  std::int32_t slots[tile_width];
  Rows::slots(x, n, bins, top, slots);
  counter.add(group, slots, n);
}

/// The kernel over any way to load rows and to compute their slots.
template <class Rows>
void histogram_by(executor_ref const& threads, histogram_args const& a) {
  assert(a.bins > 0 && a.bins <= formats::most_bins);
  loop_nest<1> const nest{{&a.x}, a.groups, histogram_piece};
  std::int64_t const stride = nest.inner().stride[0];
  for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
    bin_counter counter{a};
    float row[tile_width];
    nest.rows_of(piece, [&](segment<1> const& s) {
      for_runs(s, nest.inner(), [&](auto const& at, std::int64_t length, std::int64_t group) {
        for_tiles(length, [&](std::int64_t first, std::int64_t n) {
          float const* const x = Rows::row_of(a.x, at[0] + first * stride, stride, n, row);
          count_row<Rows>(counter, x, n, static_cast<float>(a.bins), a.top[group], group);
        });
      });
    });
  });
}

inline void histogram(executor_ref const& threads, histogram_args const& a) { histogram_by<slot_rows>(threads, a); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
