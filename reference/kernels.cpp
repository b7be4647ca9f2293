// The kernels of the CPU backend, compiled once for this project's own programs (MIXBIT_SEPARATE_COMPILATION).
#include "mixbit/reference/scalar_impl.hpp"
