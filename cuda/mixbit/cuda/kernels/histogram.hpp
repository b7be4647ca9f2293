// counts[g · bins + b] += elements of group g in bin b: integers, so the order of additions does not matter. One group
// is counted in each block's shared memory first; several, whose bins would not fit together, in the device's memory.
#pragma once

#include "mixbit/cuda/kernels/reduce.hpp"
#include "mixbit/formats/histogram.hpp"

namespace mixbit::cuda {

struct count_bins {
  nest<1> walk;
  const_tensor_data x;
  float const* top;
  std::int64_t bins;
  std::uint64_t *counts, *flag;
  bool shared;  ///< one group, and on.launch gave shared memory for its bins

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    auto* const own = static_cast<std::uint32_t*>(at.shared());
    if (shared) {
      at.each([&](int thread) {
        for (std::int64_t b = thread; b < bins; b += at.threads()) own[b] = 0;
      });
      at.wait();
    }
    at.each([&](int thread) {
      std::uint64_t nonfinite = 0;
      for_stretches(at, walk.units(), at.threads(), [&](std::int64_t first) {
        if (first + thread < walk.units()) count(at, walk.locate(first + thread), own, nonfinite);
      });
      note(at, flag, nonfinite);
    });
    if (!shared) return;
    at.wait();
    at.each([&](int thread) {
      for (std::int64_t b = thread; b < bins; b += at.threads())
        if (own[b] != 0) at.add(counts + b, own[b]);
    });
  }

 private:
  template <class Context>
  MIXBIT_HD void count(Context& at, place<1> const& p, std::uint32_t* own, std::uint64_t& nonfinite) const {
    float v[octet];
    load_octet(x.type, x.data, p.offset[0], walk.stride(0), static_cast<int>(p.count), v);
    for_groups(walk, p, [&](int i, std::int64_t group) {
      float const m = fp::abs(v[i]);
      if (!fp::is_finite(m)) {
        ++nonfinite;
        return;
      }
      std::int64_t const bin = formats::histogram_bin(m, static_cast<float>(bins), top[group]);
      if (shared) at.add_shared(own + bin);
      else at.add(counts + group * bins + bin, 1);
    });
  }
};

}  // namespace mixbit::cuda
