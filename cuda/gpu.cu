// The rest of mixbit::cuda::gpu, compiled once for this project's own programs. A kernel that is not named in a file of
// cuda/ does not link: add it here.
#define MIXBIT_CUDA_KERNELS                                                                             \
  MIXBIT_KERNEL(amax) MIXBIT_KERNEL(backward_mask) MIXBIT_KERNEL(subtract) MIXBIT_KERNEL(gradient_score) \
  MIXBIT_KERNEL(scale_channels) MIXBIT_KERNEL(histogram) MIXBIT_KERNEL(sum) MIXBIT_KERNEL(extremes)       \
  MIXBIT_KERNEL(shift) MIXBIT_KERNEL(hadamard)
#include "mixbit/cuda/gpu_impl.cuh"
