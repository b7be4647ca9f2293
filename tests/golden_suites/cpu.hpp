// The backend of the suites that compare kernels: either of the CPU's, as is said at run time, so that a suite is
// compiled once and holds both to the same files.
#pragma once

#include "mixbit/core/backend.hpp"
#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/simd.hpp"

namespace golden {

/// Models mixbit::backend.
struct cpu : mixbit::reference::host {
  static constexpr std::string_view name = "golden::cpu";
  bool vectors = false;  ///< reference::simd, else reference::scalar

#define MIXBIT_KERNEL(kernel)                           \
  void kernel(mixbit::kernel##_args const& a) const {   \
    if (vectors) mixbit::reference::simd{}.kernel(a);   \
    else mixbit::reference::scalar{}.kernel(a);         \
  }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
};

static_assert(mixbit::backend<cpu>);

}  // namespace golden
