// CUDA's errors as mixbit::error.
// needs: <cuda_runtime_api.h>
#pragma once

#include <cuda_runtime_api.h>

#include "mixbit/core/error.hpp"

namespace mixbit::cuda {

/// Throws `device_failure`, or `memory_exhausted` where that is the reason, with the call and CUDA's words for it.
inline void require(cudaError_t result, char const* call) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();  // a refused call leaves its error behind for the next one to find
  fail(result == cudaErrorMemoryAllocation ? error_id::memory_exhausted : error_id::device_failure, call, ": ",
       cudaGetErrorName(result), ": ", cudaGetErrorString(result));
}

/// Devices that can be used; 0 also where there is no driver.
inline int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

}  // namespace mixbit::cuda
