// Which kernels this program quantizes with.
#pragma once

#include "mixbit/reference/scalar.hpp"

namespace byte_lm {

using backend = mixbit::reference::scalar;

}  // namespace byte_lm

#if defined(MIXBIT_SEPARATE_COMPILATION)
#include "../../instances.hpp"
#endif
