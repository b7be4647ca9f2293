// The CUDA backend: the kernels of core/kernels.inc on a stream, bit for bit those of reference::scalar.
//
//   cudaStream_t stream;                       // made by the host, which also chooses the device
//   mixbit::cuda::gpu gpu{stream};
//   mixbit::quantize(model, config, gpu, ...)  // tensors whose tensor_traits say device::cuda
//
// This header needs no nvcc. A program that defines MIXBIT_SEPARATE_COMPILATION has the kernels from one file of its
// own that includes mixbit/cuda/gpu_impl.cuh (cuda/*.cu do it for this project); without it, include
// mixbit/cuda/gpu_impl.cuh in each .cu that uses the backend.
// needs: <cuda_runtime_api.h>
#pragma once

#include <memory>

#include "mixbit/core/backend.hpp"
#include "mixbit/cuda/failure.hpp"
#include "mixbit/cuda/scratch.hpp"
#include "mixbit/cuda/target.hpp"
#include "mixbit/cuda/tuning/tuning.hpp"
#include "mixbit/formats/check.hpp"

namespace mixbit::cuda::inline MIXBIT_CUDA_TARGET {

/// Models mixbit::backend. Kernels and copies are ordered on the stream; kernels neither wait nor allocate. Copies of
/// an object share its stream and the few kilobytes that sums need, so they serve one stream's work one after the
/// other: another stream takes an object of its own. Several host threads may call copies, or the same object: a mutex
/// keeps the launches of one sum together. The device that is current when it is made must be so in calls.
class gpu {
 public:
  static constexpr device place = device::cuda;
  static constexpr std::string_view name = "cuda";
  static constexpr bool exact_probe = false;  ///< a BLAS may choose another algorithm for scaled operands

  gpu() : gpu{nullptr} {}  ///< on the default stream
  /// Allocates scratch memory and reads the device's properties. Throws `device_failure` where there is no device.
  explicit gpu(cudaStream_t stream);

  /// cudaMalloc and cudaFree on the current device. The latter waits for the device, so what uses the memory is done.
  static memory_source memory();

  /// Waits until the copy is there.
  void copy_to_host(void* to, void const* from, std::size_t bytes) const;
  /// Waits until `from` has been read.
  void copy_from_host(void* to, void const* from, std::size_t bytes) const;
  void zero(void* p, std::size_t bytes) const;
  /// Waits for the stream. Throws `device_failure` for work that failed.
  void synchronize() const;

  /// Waits for the stream and throws what kernels have noted in `flags`: `format_unsigned` for negative values under an
  /// unsigned format, with the least of them in `x`, which is as the kernel read it. `where` names the quantizer. Flags
  /// are in the device's memory; kernels never look at them. Allocates only where it throws.
  void check(data_flags const* flags, const_tensor_ref x, format const& how, std::string_view where) const;

  /// Computes what fast-math modes would change. Throws `device_failure` where kernels were compiled with -ftz=true or
  /// --use_fast_math, which no macro tells of. Once a program is enough.
  void self_test() const;

#define MIXBIT_KERNEL(kernel) void kernel(kernel##_args const& a) const;
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

  cudaStream_t stream() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
  int capability_ = 0, multiprocessors_ = 0;
  std::shared_ptr<scratch_memory> scratch_;
};

static_assert(backend<gpu>);

}  // namespace mixbit::cuda::inline MIXBIT_CUDA_TARGET
