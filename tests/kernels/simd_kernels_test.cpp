// reference::simd in the tests of all kernels, on every instruction set of this machine.
#include "mixbit/reference/scalar.hpp"
#include "kernels/kernel_tests.hpp"
#include "kernels/simd_targets.hpp"

using namespace kernel_tests;

#define MIXBIT_KERNEL(name) \
  TEST_CASE("reference::simd " #name) { run_kernel_test<reference::simd, kernel_##name>(); }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

TEST_CASE("reference::simd sum: rows of a group that start in the middle of a round of lanes") {
  tensor<float> x{make_geometry<float>({5, 3, 100}, layout::row_major)};
  fill(x, 3);
  int const middle[] = {1};
  partition const groups = per_axes(x.g, middle);
  std::vector<double> expected(3);
  reference::scalar{}.sum({x.view(), groups, sum_of::squares, expected.data(), nullptr});
  on_every_instruction_set([&] {
    std::vector<double> found(3);
    reference::simd{}.sum({x.view(), groups, sum_of::squares, found.data(), nullptr});
    CHECK(found == expected);
  });
}

TEST_CASE("reference::simd extremes: of negative values alone") {
  tensor<float> x{make_geometry<float>({100}, layout::row_major)};
  for (std::int64_t i = 0; i < 100; ++i) x[i] = -1.0f - static_cast<float>(i * 37 % 100);
  float const infinity = std::numeric_limits<float>::infinity();
  on_every_instruction_set([&] {
    float low = infinity, high = -infinity;
    reference::simd{}.extremes({x.view(), per_tensor(x.g), &low, &high, nullptr});
    CHECK(low == -100.0f);
    CHECK(high == -1.0f);
  });
}

TEST_CASE("the machine's vectors are used, where the kernels are compiled for several instruction sets") {
  int sets = 0;
  on_every_instruction_set([&] { ++sets; });
  CHECK(sets >= (hwy::SupportedTargets() & HWY_AVX2 ? 3 : 1));
}
