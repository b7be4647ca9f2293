// amax[g] = max(amax[g], max |x|), in three ways of walking; magnitudes are compared as the bits of float32. Groups
// that lie in one line are the fourth, in lines.hpp.
#pragma once

#include "mixbit/cuda/kernels/sweep.hpp"

namespace mixbit::cuda {

inline constexpr std::uint32_t infinity_bits = 0x7f800000u;

/// The largest finite magnitude of an octet; NaN and infinities are counted.
MIXBIT_HD inline std::uint32_t octet_amax(float const (&v)[octet], std::uint64_t& nonfinite) {
  std::uint32_t top = 0;
  int strange = 0;
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) {
    std::uint32_t const m = fp::bits(v[i]) & 0x7fffffffu;
    bool const finite = m < infinity_bits;
    top = finite && m > top ? m : top;
    strange += finite ? 0 : 1;
  }
  nonfinite += static_cast<std::uint64_t>(strange);
  return top;
}

/// Groups of any shape. A block takes a stretch of neighbouring units, so that its threads stay within few groups.
struct amax_of_runs {
  nest<1> walk;
  const_tensor_data x;
  float* amax;
  std::uint64_t* flag;
  bool one_group;  ///< the whole tensor: blocks find their maximum before they touch memory

  static constexpr int stretch = 8;  ///< octets a thread takes at a time

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    typename Context::template per_thread<std::uint32_t> top;
    at.each([&](int thread) {
      std::uint64_t nonfinite = 0;
      std::int64_t group = -1;
      top[thread] = 0;
      for_stretches(at, walk.units(), std::int64_t{at.threads()} * stretch, [&](std::int64_t first) {
        take_stretch(at, first + thread, group, top[thread], nonfinite);
      });
      if (!one_group && group >= 0) at.raise(amax + group, top[thread]);
      note(at, flag, nonfinite);
    });
    if (!one_group) return;
    at.max_over(top, at.threads());
    at.each([&](int thread) {
      if (thread == 0) at.raise(amax, top[thread]);
    });
  }

 private:
  template <class Context>
  MIXBIT_HD void take_stretch(Context& at, std::int64_t unit, std::int64_t& group, std::uint32_t& top,
                              std::uint64_t& nonfinite) const {
    constexpr int octets = Context::octets;
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
        if (places[u].count > 0) take_octet(at, places[u], v[u], group, top, nonfinite);
    }
  }

  template <class Context>
  MIXBIT_HD void take_octet(Context& at, place<1> const& p, float const (&v)[octet], std::int64_t& group,
                            std::uint32_t& top, std::uint64_t& nonfinite) const {
    if (in_one_group(walk, p)) {
      std::uint32_t const found = octet_amax(v, nonfinite);
      if (p.group != group) {
        if (group >= 0) at.raise(amax + group, top);
        group = p.group;
        top = 0;
      }
      top = found > top ? found : top;
      return;
    }
    for_groups(walk, p, [&](int i, std::int64_t own) {
      std::uint32_t const m = fp::bits(v[i]) & 0x7fffffffu;
      if (m < infinity_bits) at.raise(amax + own, m);
      else ++nonfinite;
    });
  }
};

/// Every element of the innermost axis has its own group: a thread carries eight maxima down a slice of rows.
struct amax_of_columns {
  nest<1> walk;
  const_tensor_data x;
  float* amax;
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
    std::uint32_t top[octet] = {};
    place<1> at_last;
    at_last.group = -1;
    for (std::int64_t row = first; row < end; ++row) {
      auto const p = walk.locate(row * across.divisor() + column);
      if (p.group != at_last.group) flush(at, at_last, top);
      at_last = p;
      float v[octet];
      load_octet(x.type, x.data, p.offset[0], walk.stride(0), static_cast<int>(p.count), v);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i) {
        std::uint32_t const m = fp::bits(v[i]) & 0x7fffffffu;
        if (m < infinity_bits) top[i] = m > top[i] ? m : top[i];
        else ++nonfinite;
      }
    }
    flush(at, at_last, top);
  }

  template <class Context>
  MIXBIT_HD void flush(Context& at, place<1> const& p, std::uint32_t (&top)[octet]) const {
    MIXBIT_CUDA_UNROLL
    for (int i = 0; i < octet; ++i) {
      if (i < p.count) at.raise(amax + p.group + i * walk.group_stride(), top[i]);
      top[i] = 0;
    }
  }
};

}  // namespace mixbit::cuda
