// Reductions of groups to their largest key, in two ways of walking. What is reduced is a target:
//
//   values                       keys it keeps of a group, each a maximum of unsigned integers; 0 is that of nothing
//   take(v, keys)                widens the keys by a finite value
//   push(at, group, keys)        widens what the group has in memory
//
// Groups that lie in one line have a third way in lines.hpp, for amax.
#pragma once

#include "mixbit/cuda/kernels/sweep.hpp"

namespace mixbit::cuda {

inline constexpr std::uint32_t infinity_bits = 0x7f800000u;

/// amax[g] = max(amax[g], max |x|); the bits of magnitudes are in the order of the magnitudes.
struct amax_target {
  static constexpr int values = 1;
  float* amax;

  MIXBIT_HD static void take(float v, std::uint32_t (&key)[values]) {
    std::uint32_t const m = fp::bits(v) & 0x7fffffffu;
    key[0] = m > key[0] ? m : key[0];
  }
  template <class Context>
  MIXBIT_HD void push(Context& at, std::int64_t group, std::uint32_t const (&key)[values]) const {
    if (key[0] != 0) at.raise(amax + group, key[0]);
  }
};

/// low[g] = min(low[g], x), high[g] = max(high[g], x). Keys keep the order of floats, with -0 below +0.
struct extremes_target {
  static constexpr int values = 2;
  float *low, *high;

  /// Negative numbers with all bits turned, others above them.
  MIXBIT_HD static std::uint32_t key_of(float v) {
    return fp::bits(v) ^ (fp::bits(v) >> 31 ? 0xffffffffu : 0x80000000u);
  }
  MIXBIT_HD static float value_of(std::uint32_t key) {
    return fp::from_bits(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
  }
  MIXBIT_HD static void take(float v, std::uint32_t (&key)[values]) {
    std::uint32_t const k = key_of(v);
    key[0] = k > key[0] ? k : key[0];
    key[1] = ~k > key[1] ? ~k : key[1];
  }
  template <class Context>
  MIXBIT_HD void push(Context& at, std::int64_t group, std::uint32_t const (&key)[values]) const {
    if (key[0] == 0) return;
    at.widen(high + group, value_of(key[0]), true);
    at.widen(low + group, value_of(~key[1]), false);
  }
};

/// Takes an octet whose elements are of one group. Returns how many were not finite.
template <class Target>
MIXBIT_HD int take_octet(float const (&v)[octet], std::int64_t count, std::uint32_t (&key)[Target::values]) {
  int strange = 0;
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) {
    if (i >= count) continue;
    if (fp::is_finite(v[i])) Target::take(v[i], key);
    else ++strange;
  }
  return strange;
}

/// Groups of any shape. A block takes a stretch of neighbouring units, so that its threads stay within few groups.
template <class Target>
struct reduce_runs {
  static constexpr int stretch = 8;  ///< octets a thread takes at a time

  nest<1> walk;
  const_tensor_data x;
  Target target;
  std::uint64_t* flag;
  bool one_group;  ///< the whole tensor: blocks find their maximum before they touch memory

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    typename Context::template per_thread<std::uint32_t> top[Target::values];
    at.each([&](int thread) {
      state own;
      for_stretches(at, walk.units(), std::int64_t{at.threads()} * stretch,
                    [&](std::int64_t first) { take_stretch(at, first + thread, own); });
      if (!one_group && own.group >= 0) target.push(at, own.group, own.key);
      for (int k = 0; k < Target::values; ++k) top[k][thread] = own.key[k];
      note(at, flag, own.strange);
    });
    if (!one_group) return;
    for (int k = 0; k < Target::values; ++k) at.max_over(top[k], at.threads());
    at.each([&](int thread) {
      std::uint32_t key[Target::values];
      for (int k = 0; k < Target::values; ++k) key[k] = top[k][thread];
      if (thread == 0) target.push(at, 0, key);
    });
  }

 private:
  struct state {
    std::int64_t group = -1;
    std::uint32_t key[Target::values]{};
    std::uint64_t strange = 0;
  };

  template <class Context>
  MIXBIT_HD void take_stretch(Context& at, std::int64_t unit, state& own) const {
    constexpr int octets = Context::octets;
    static_assert(stretch % octets == 0);
    MIXBIT_CUDA_ROLL
    for (int done = 0; done < stretch; done += octets) {
      place<1> places[octets];
      float v[octets][octet];
      MIXBIT_CUDA_UNROLL
      for (int u = 0; u < octets; ++u, unit += at.threads()) {
        if (unit >= walk.units()) continue;
        places[u] = walk.locate(unit);
        load_octet(x.type, x.data, places[u].offset[0], walk.stride(0), static_cast<int>(places[u].count), v[u]);
      }
      MIXBIT_CUDA_UNROLL
      for (int u = 0; u < octets; ++u)
        if (places[u].count > 0) take(at, places[u], v[u], own);
    }
  }

  template <class Context>
  MIXBIT_HD void take(Context& at, place<1> const& p, float const (&v)[octet], state& own) const {
    if (in_one_group(walk, p)) {
      if (p.group != own.group) turn(at, p.group, own);
      own.strange += static_cast<std::uint64_t>(take_octet<Target>(v, p.count, own.key));
      return;
    }
    for_groups(walk, p, [&](int i, std::int64_t group) {
      std::uint32_t key[Target::values]{};
      if (fp::is_finite(v[i])) Target::take(v[i], key);
      else ++own.strange;
      target.push(at, group, key);
    });
  }

  template <class Context>
  MIXBIT_HD void turn(Context& at, std::int64_t group, state& own) const {
    if (own.group >= 0) target.push(at, own.group, own.key);
    own.group = group;
    for (int k = 0; k < Target::values; ++k) own.key[k] = 0;
  }
};

/// Every element of the innermost axis has its own group: a thread carries eight of them down a slice of rows.
template <class Target>
struct reduce_columns {
  nest<1> walk;
  const_tensor_data x;
  Target target;
  std::uint64_t* flag;
  std::int64_t rows = 0, rows_a_slice = 1;
  divider across;  ///< by walk.units_a_row()

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    std::int64_t const slices = (rows + rows_a_slice - 1) / rows_a_slice;
    at.each([&](int thread) {
      std::uint64_t nonfinite = 0;
      for_stretches(at, slices * across.divisor(), at.threads(), [&](std::int64_t first) {
        if (first + thread < slices * across.divisor()) take_slice(at, first + thread, nonfinite);
      });
      note(at, flag, nonfinite);
    });
  }

 private:
  template <class Context>
  MIXBIT_HD void take_slice(Context& at, std::int64_t item, std::uint64_t& nonfinite) const {
    std::int64_t const slice = across.quotient(item), column = item - slice * across.divisor();
    std::int64_t const first = slice * rows_a_slice, end = first + rows_a_slice < rows ? first + rows_a_slice : rows;
    std::uint32_t key[octet][Target::values]{};
    place<1> last;
    last.group = -1;
    for (std::int64_t row = first; row < end; ++row) {
      auto const p = walk.locate(row * across.divisor() + column);
      if (p.group != last.group) flush(at, last, key);
      last = p;
      float v[octet];
      load_octet(x.type, x.data, p.offset[0], walk.stride(0), static_cast<int>(p.count), v);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i) {
        if (i >= p.count) continue;
        if (fp::is_finite(v[i])) Target::take(v[i], key[i]);
        else ++nonfinite;
      }
    }
    flush(at, last, key);
  }

  template <class Context>
  MIXBIT_HD void flush(Context& at, place<1> const& p, std::uint32_t (&key)[octet][Target::values]) const {
    MIXBIT_CUDA_UNROLL
    for (int i = 0; i < octet; ++i) {
      if (i < p.count) target.push(at, p.group + i * walk.group_stride(), key[i]);
      for (int k = 0; k < Target::values; ++k) key[i][k] = 0;
    }
  }
};

}  // namespace mixbit::cuda
