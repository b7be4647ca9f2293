// reference::simd in the tests of all kernels, on every instruction set of this machine.
#include "kernels/kernel_tests.hpp"
#include "kernels/simd_targets.hpp"

using namespace kernel_tests;

#define MIXBIT_KERNEL(name)                                                               \
  TEST_CASE("reference::simd " #name) {                                                   \
    on_every_instruction_set([] { run_kernel_test<reference::simd, kernel_##name>(); });  \
  }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

TEST_CASE("the machine's vectors are used, where the kernels are compiled for several instruction sets") {
  int sets = 0;
  on_every_instruction_set([&] { ++sets; });
  CHECK(sets >= (hwy::SupportedTargets() & HWY_AVX2 ? 3 : 1));
}
