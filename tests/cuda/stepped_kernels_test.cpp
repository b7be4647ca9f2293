// The CUDA kernels, stepped through on the CPU, in the tests of all kernels.
#include "cuda/stepping.hpp"
#include "kernels/kernel_tests.hpp"

using namespace kernel_tests;

#define MIXBIT_KERNEL(name) \
  TEST_CASE("stepped CUDA kernel " #name) { run_kernel_test<cuda_tests::stepped, kernel_##name>(); }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
