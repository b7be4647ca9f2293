// gpu::encode and gpu::decode, compiled once for this project's own programs.
#define MIXBIT_CUDA_NO_BASE
#define MIXBIT_CUDA_KERNELS MIXBIT_KERNEL(encode) MIXBIT_KERNEL(decode)
#include "mixbit/cuda/gpu_impl.cuh"
