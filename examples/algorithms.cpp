// The calibration algorithms for the CPU backend, compiled once for this project's own programs
// (MIXBIT_SEPARATE_COMPILATION).
#include "mixbit/calib/default_algorithms.hpp"
#include "mixbit/reference/scalar.hpp"

template mixbit::algorithm_registry<mixbit::reference::scalar> mixbit::default_algorithms<mixbit::reference::scalar>();
