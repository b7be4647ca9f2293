// The vector kernels of the CPU backend, compiled once for this project's own programs, for every instruction set.
#include "mixbit/reference/simd_dispatch_impl.hpp"
