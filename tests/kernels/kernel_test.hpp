// What the tests of the kernels share: one is a specialisation of `kernel_test`, which is declared for every kernel of
// kernels.inc, so a kernel without a test does not compile (kernel_tests.hpp).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include <doctest/doctest.h>

#include "mixbit/core/thread_pool.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/scale_types.hpp"
#include "mixbit/formats/storage.hpp"
#include "support/kernel_data.hpp"

namespace kernel_tests {

using namespace mixbit;
using namespace test_data;

template <class Kernel>
struct kernel_test;  // specialised once a kernel

#define MIXBIT_KERNEL(name) struct kernel_##name {};
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

inline constexpr layout all_layouts[] = {layout::row_major, layout::column_major, layout::strided};

/// Calls f(shape, layout, seed) for all awkward shapes and some large enough to be cut into pieces.
template <class F>
void for_shapes(F f) {
  unsigned seed = 0;
  for (auto const& shape : awkward_shapes)
    for (layout const l : all_layouts) f(shape, l, ++seed);
  for (std::vector<std::int64_t> const& shape : {std::vector<std::int64_t>{33001}, {70, 600}, {300, 2, 70}})
    for (layout const l : {layout::row_major, layout::column_major}) f(shape, l, ++seed);
}

/// Calls f() for each instruction set that backend B may use here. Specialised for backends that have several, so that
/// what a test expects is computed once for all of them.
template <class B>
struct instruction_sets {
  template <class F>
  static void each(F f) {
    f();
  }
};

/// Runs a kernel of backend B with each instruction set on 1, 2 and 3 threads; f(backend) returns what it wrote.
template <class B, class F>
auto same_everywhere(F f) {
  static thread_pool two{2}, three{3};
  std::optional<decltype(f(B{}))> expected;
  instruction_sets<B>::each([&] {
    auto const found = f(B{});
    if (!expected) expected = found;
    if (found != *expected) FAIL_CHECK("another result than with the first instruction set");
    for (thread_pool* pool : {&two, &three})
      if (f(B{*pool}) != *expected) FAIL_CHECK("another result with ", pool->concurrency(), " threads");
  });
  return *std::move(expected);
}

template <class T>
bool margins_untouched(tensor<T>& t) {
  auto const pattern = bits_of(from_float<T>(-77.0f));
  for (std::size_t i = 0; i < tensor<T>::margin; ++i)
    if (bits_of(t.memory[i]) != pattern || bits_of(t.memory[t.memory.size() - 1 - i]) != pattern) return false;
  return true;
}

template <class T>
std::vector<std::uint32_t> all_bits(tensor<T>& t) {
  std::vector<std::uint32_t> bits;
  for (std::int64_t i = 0; i < t.g.size(); ++i) bits.push_back(bits_of(t[i]));
  return bits;
}

}  // namespace kernel_tests
