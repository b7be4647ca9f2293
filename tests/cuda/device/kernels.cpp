// The CUDA backend on a device, in the tests of all kernels, and its formats against reference::scalar.
#include "cuda/format_cases.hpp"
#include "cuda/staging.hpp"
#include "kernels/kernel_tests.hpp"

using namespace cuda_tests;
using namespace kernel_tests;

#define MIXBIT_KERNEL(name)                                             \
  TEST_CASE("cuda " #name) {                                            \
    if (skipped_without_device("cuda " #name)) return;                  \
    run_kernel_test<staged, kernel_##name>();                           \
  }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

TEST_CASE("cuda: the device computes as IEEE 754 says") {
  if (skipped_without_device("cuda self_test")) return;
  the_gpu().self_test();
}

TEST_CASE("cuda: formats, the bits of reference::scalar") {
  if (skipped_without_device("cuda formats")) return;
  ratio_formats_agree<staged>();
  block_formats_agree<staged>();
  partitions_agree<staged>();
  long_rows_agree<staged>();
}
