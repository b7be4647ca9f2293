#include "cub_amax.hpp"

#include <cub/device/device_reduce.cuh>

namespace {
struct larger_magnitude {
  __device__ float operator()(float a, float b) const { return fmaxf(fabsf(a), fabsf(b)); }
};
}  // namespace

cudaError_t cub_amax(void* scratch, std::size_t& bytes, float const* x, std::int64_t n, float* amax,
                     cudaStream_t stream) {
  return cub::DeviceReduce::Reduce(scratch, bytes, x, amax, n, larger_magnitude{}, 0.0f, stream);
}
