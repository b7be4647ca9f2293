// The calibration algorithms and calibrators for the CPU backend, and what others use of them, compiled once for this
// project's own programs (MIXBIT_SEPARATE_COMPILATION).
#include "mixbit/calib/default_algorithms.hpp"
#include "mixbit/calib/default_calibrators.hpp"
#include "mixbit/reference/scalar.hpp"

namespace mixbit {
template algorithm_registry<reference::scalar> default_algorithms<reference::scalar>();
template std::unique_ptr<calibrator<reference::scalar>> make_built_in_calibrator<reference::scalar>(
    calibrator_request const&);
#define MIXBIT_INSTANCE template
#include "instances.inc"
#undef MIXBIT_INSTANCE
}  // namespace mixbit
