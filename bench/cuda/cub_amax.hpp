// The peer of amax on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/// The largest magnitude of x[n] by cub::DeviceReduce; without scratch memory it only says how much it needs. All
/// pointers are in the device's memory.
cudaError_t cub_amax(void* scratch, std::size_t& bytes, float const* x, std::int64_t n, float* amax,
                     cudaStream_t stream);
