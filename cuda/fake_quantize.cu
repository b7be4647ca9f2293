// gpu::fake_quantize, compiled once for this project's own programs.
#define MIXBIT_CUDA_NO_BASE
#define MIXBIT_CUDA_KERNELS MIXBIT_KERNEL(fake_quantize)
#include "mixbit/cuda/gpu_impl.cuh"
