// One test for every kernel of kernels.inc, for any backend B. Every kernel is compared with its definition, element by
// element, in awkward shapes, layouts and partitions, and its results must not depend on the number of threads.
#pragma once

#include "kernels/calibration_kernel_tests.hpp"
#include "kernels/quantize_kernel_tests.hpp"

namespace kernel_tests {

template <class B, class Kernel>
void run_kernel_test() {
  for_shapes([](auto const& shape, layout l, unsigned seed) {
    kernel_test<Kernel>::template run<B, float>(shape, l, seed);
    kernel_test<Kernel>::template run<B, half>(shape, l, seed);
    kernel_test<Kernel>::template run<B, bfloat16>(shape, l, seed);
  });
}

}  // namespace kernel_tests
