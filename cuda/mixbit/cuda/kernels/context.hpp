// How a kernel is written: once, for the device and for a CPU test that steps through it.
//
// A kernel is a struct that holds its arguments, with a template over a context,
//   template <class Context> MIXBIT_HD void operator()(Context& at) const;
// called once a block. What threads do stands in steps:
//
//   at.each([&](int thread) { ... });     all threads of the block; on the device the calling thread, and no wait
//   typename Context::template per_thread<T> v;  one T a thread, v[thread]; on the device a register
//
// Between steps threads exchange. All threads of a block call these together, so what decides it may depend on the
// block alone:
//
//   at.max_over(v, width)     each of `width` threads in a row gets their largest v (unsigned); width is a power of two
//                             up to 32, or all threads
//   at.take(v, lane, width)   each of `width` threads in a row gets the v of the lane-th; width up to 32
//
// and memory that blocks share changes by at.raise(p, magnitude), which makes *p at least the float with those bits,
// and at.add(p, n).
//
// at.widen(p, v, high) makes *p at least (high) or at most v, with -0 below +0. A launch may give a block memory of its
// own, at.shared(): at.add_shared(p) counts in it, and at.wait() stands between a step that writes to it and one that
// reads what others wrote. A context also gives at.block(), at.blocks(), at.threads(), and how many octets a thread
// keeps in flight, Context::octets. A kernel takes any number of blocks: work is shared out by a stride over the grid.
//
// tests/cuda/stepping.hpp has the context of the CPU, mixbit/cuda/launch.cuh the device's.
#pragma once

#include <cstdint>

#include "mixbit/core/fp.hpp"
#include "mixbit/core/kernel_args.hpp"
#include "mixbit/cuda/access.hpp"

namespace mixbit::cuda {

/// Calls f(first) for each stretch of `width` items that this block treats, on all its threads alike.
template <class Context, class F>
MIXBIT_HD void for_stretches(Context const& at, std::int64_t items, std::int64_t width, F&& f) {
  for (std::int64_t first = at.block() * width; first < items; first += at.blocks() * width) f(first);
}

/// Elements of v that are below zero, of which -0 and NaN are none.
MIXBIT_HD inline std::uint64_t count_negative(float const (&v)[octet]) {
  int n = 0;
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) n += v[i] < 0.0f ? 1 : 0;
  return static_cast<std::uint64_t>(n);
}

MIXBIT_HD inline std::uint64_t count_nan(float const (&v)[octet]) {
  int n = 0;
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) n += fp::is_nan(v[i]) ? 1 : 0;
  return static_cast<std::uint64_t>(n);
}

/// Notes what was counted, where somebody asked for it.
template <class Context>
MIXBIT_HD void note(Context& at, std::uint64_t* counter, std::uint64_t n) {
  if (counter && n != 0) at.add(counter, n);
}

/// total = the sum of `own` over each `lanes` threads in a row, from +0 and the first of them on: the order that all
/// backends share. `lanes` as in at.take.
template <class Context>
MIXBIT_HD void fold_lanes(Context& at, typename Context::template per_thread<double> const& own,
                          typename Context::template per_thread<double>& total, int lanes) {
  at.each([&](int thread) { total[thread] = 0; });
  for (int lane = 0; lane < lanes; ++lane) {
    auto handed = own;
    at.take(handed, lane, lanes);
    at.each([&](int thread) { total[thread] += handed[thread]; });
  }
}

/// A rule for a tensor whose amax, if it has one, lies in the device's memory.
template <class Rule>
MIXBIT_HD Rule rule_for(Rule const& rule, float const* tensor_amax) {
  if constexpr (requires { rule.of_tensor(0.0f); }) return rule.of_tensor(tensor_amax ? *tensor_amax : 0.0f);
  else return rule;
}

}  // namespace mixbit::cuda
