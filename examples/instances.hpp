// For source files of reference::scalar that are linked with examples/algorithms.cpp: what it has compiled.
#pragma once

#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/calib/shared_state.hpp"
#include "mixbit/quantizer/probe.hpp"
#include "mixbit/reference/scalar.hpp"

namespace mixbit {
#define MIXBIT_INSTANCE extern template
#include "instances.inc"
#undef MIXBIT_INSTANCE
}  // namespace mixbit
