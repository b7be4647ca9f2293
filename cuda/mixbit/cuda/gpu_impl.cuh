// What is behind gpu.hpp: compiled by nvcc. With MIXBIT_SEPARATE_COMPILATION each kernel may have a source file of its
// own, so that a build takes several at a time: MIXBIT_CUDA_KERNELS then lists those of this file,
//   #define MIXBIT_CUDA_KERNELS MIXBIT_KERNEL(encode) MIXBIT_KERNEL(decode)
// and MIXBIT_CUDA_NO_BASE leaves the rest of the backend to another file.
#pragma once

#include <array>

#include "mixbit/cuda/gpu.hpp"
#include "mixbit/cuda/kernels/arithmetic_probe.hpp"
#include "mixbit/cuda/launch.cuh"

#if defined(MIXBIT_SEPARATE_COMPILATION)
#define MIXBIT_CUDA_INLINE
#else
#define MIXBIT_CUDA_INLINE inline
#endif

namespace mixbit::cuda::inline MIXBIT_CUDA_TARGET {

#define MIXBIT_KERNEL(kernel)                                                                        \
  MIXBIT_CUDA_INLINE void gpu::kernel(kernel##_args const& a) const {                                \
    stream_launcher on{stream_, tuning_for(capability_), multiprocessors_, scratch_.get()};          \
    plan::kernel(on, a);                                                                             \
  }
#if defined(MIXBIT_CUDA_KERNELS)
MIXBIT_CUDA_KERNELS
#else
#include "mixbit/core/kernels.inc"
#endif
#undef MIXBIT_KERNEL

#if !defined(MIXBIT_CUDA_NO_BASE)

MIXBIT_CUDA_INLINE gpu::gpu(cudaStream_t stream) : stream_{stream} {
  int id = 0, major = 0, minor = 0;
  require(cudaGetDevice(&id), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id), "cudaDeviceGetAttribute");
  require(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, id), "cudaDeviceGetAttribute");
  require(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, id), "cudaDeviceGetAttribute");
  capability_ = 10 * major + minor;
  auto const source = memory();
  scratch_ = std::make_shared<scratch_memory>();
  scratch_->sums = {static_cast<double*>(source.allocate(plan::scratch_sums * sizeof(double))), source.release};
}

MIXBIT_CUDA_INLINE memory_source gpu::memory() {
  memory_source source;
  source.allocate = [](std::size_t bytes) {
    void* p = nullptr;
    require(cudaMalloc(&p, bytes), "cudaMalloc");
    return p;
  };
  source.release = [](void* p) { (void)cudaFree(p); };  // also at exit, when the driver may be gone
  return source;
}

MIXBIT_CUDA_INLINE void gpu::copy_to_host(void* to, void const* from, std::size_t bytes) const {
  if (bytes == 0) return;
  require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync to the host");
  synchronize();
}

MIXBIT_CUDA_INLINE void gpu::copy_from_host(void* to, void const* from, std::size_t bytes) const {
  if (bytes == 0) return;
  require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync from the host");
  synchronize();
}

MIXBIT_CUDA_INLINE void gpu::zero(void* p, std::size_t bytes) const {
  if (bytes != 0) require(cudaMemsetAsync(p, 0, bytes, stream_), "cudaMemsetAsync");
}

MIXBIT_CUDA_INLINE void gpu::synchronize() const {
  require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

MIXBIT_CUDA_INLINE void gpu::check(data_flags const* flags, const_tensor_ref x, format const& how,
                                   std::string_view where) const {
  gpu self = *this;
  check_flags(self, flags, x, how, where);
}

MIXBIT_CUDA_INLINE void gpu::self_test() const {
  gpu self = *this;
  buffer<gpu, std::uint32_t> found{self, arithmetic_probe::results};
  auto const probe = arithmetic_probe::into(found.data());
  stream_launcher{stream_, tuning_for(capability_), multiprocessors_, nullptr}.launch(probe, probe.results);
  std::array<std::uint32_t, arithmetic_probe::results> results{};
  copy_to_host(results.data(), found.data(), sizeof results);
  for (int i = 0; i < probe.results; ++i) {
    std::uint32_t const expected = probe.compute(i), is = results[static_cast<std::size_t>(i)];
    bool const both_nan = fp::is_nan(fp::from_bits(expected)) && fp::is_nan(fp::from_bits(is));
    if (is != expected && !both_nan)
      fail(error_id::device_failure, "the device computes ", fp::from_bits(is), " where IEEE 754 has ",
           fp::from_bits(expected), ": compile the kernels without --use_fast_math and -ftz=true");
  }
}

#endif

}  // namespace mixbit::cuda::inline MIXBIT_CUDA_TARGET

#undef MIXBIT_CUDA_INLINE
