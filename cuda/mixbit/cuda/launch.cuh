// The device's context (kernels/context.hpp) and how kernels are launched.
#pragma once

#include <cstdint>

#include "mixbit/cuda/failure.hpp"
#include "mixbit/cuda/target.hpp"
#include "mixbit/cuda/tuning/tuning.hpp"
#include "mixbit/cuda/plan.hpp"
#include "mixbit/cuda/scratch.hpp"

namespace mixbit::cuda::inline MIXBIT_CUDA_TARGET {

/// All members are for the device; they are host functions too only so that kernels, which also run on the host in
/// tests, may call them without a warning.
struct device_context {
#if defined(__CUDA_ARCH__)
  static constexpr int octets = tuning_for(__CUDA_ARCH__ / 10).octets;
#else
  static constexpr int octets = 1;
#endif

  template <class T>
  class per_thread {
   public:
    MIXBIT_HD T& operator[](int) { return value_; }

   private:
    T value_;
  };

  MIXBIT_HD std::int64_t block() const {
#if defined(__CUDA_ARCH__)
    return blockIdx.x;
#else
    return 0;
#endif
  }
  MIXBIT_HD std::int64_t blocks() const {
#if defined(__CUDA_ARCH__)
    return gridDim.x;
#else
    return 1;
#endif
  }
  MIXBIT_HD int threads() const {
#if defined(__CUDA_ARCH__)
    return static_cast<int>(blockDim.x);
#else
    return 1;
#endif
  }

  template <class F>
  MIXBIT_HD void each(F&& f) const {
#if defined(__CUDA_ARCH__)
    f(static_cast<int>(threadIdx.x));
#else
    (void)f;
#endif
  }

  MIXBIT_HD void max_over(per_thread<std::uint32_t>& v, int width) const {
#if defined(__CUDA_ARCH__)
    std::uint32_t top = v[0];
    for (int distance = 1; distance < width && distance < 32; distance *= 2) {
      std::uint32_t const other = __shfl_xor_sync(0xffffffffu, top, distance);
      top = other > top ? other : top;
    }
    if (width > 32) {
      __shared__ std::uint32_t of_warp[largest_block / 32];
      __syncthreads();  // what the last call left has been read
      if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = top;
      __syncthreads();
      for (unsigned w = 0; w < blockDim.x / 32; ++w) top = of_warp[w] > top ? of_warp[w] : top;
    }
    v[0] = top;
#else
    (void)v, (void)width;
#endif
  }

  template <class T>
  MIXBIT_HD void take(per_thread<T>& v, int lane, int width) const {
#if defined(__CUDA_ARCH__)
    v[0] = __shfl_sync(0xffffffffu, v[0], lane, width);
#else
    (void)v, (void)lane, (void)width;
#endif
  }

  /// As integers: for floats without a sign that is the same order. Most calls find a larger number there.
  MIXBIT_HD void raise(float* p, std::uint32_t magnitude) const {
#if defined(__CUDA_ARCH__)
    auto* const bits = reinterpret_cast<int*>(p);
    if (*const_cast<int volatile*>(bits) < static_cast<int>(magnitude)) atomicMax(bits, static_cast<int>(magnitude));
#else
    (void)p, (void)magnitude;
#endif
  }

  /// Floats of one sign are ordered as integers are, negative ones the other way round.
  MIXBIT_HD void widen(float* p, float v, bool high) const {
#if defined(__CUDA_ARCH__)
    auto const bits = __float_as_uint(v);
    auto* const raw = reinterpret_cast<unsigned*>(p);
    auto* const with_sign = reinterpret_cast<int*>(p);
    if (high && bits >> 31) atomicMin(raw, bits);
    else if (high) atomicMax(with_sign, static_cast<int>(bits));
    else if (bits >> 31) atomicMax(raw, bits);
    else atomicMin(with_sign, static_cast<int>(bits));
#else
    (void)p, (void)v, (void)high;
#endif
  }

  MIXBIT_HD void* shared() const {
#if defined(__CUDA_ARCH__)
    extern __shared__ uint4 memory_of_block[];
    return memory_of_block;
#else
    return nullptr;
#endif
  }

  MIXBIT_HD void add_shared(std::uint32_t* p) const {
#if defined(__CUDA_ARCH__)
    atomicAdd(p, 1u);
#else
    (void)p;
#endif
  }

  MIXBIT_HD void wait() const {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }

  MIXBIT_HD void add(std::uint64_t* p, std::uint64_t n) const {
#if defined(__CUDA_ARCH__)
    static_assert(sizeof(unsigned long long) == sizeof *p);
    atomicAdd(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(n));
#else
    (void)p, (void)n;
#endif
  }
};

/// The one __global__ function. Hidden, and a template, so that libraries which both hold it keep their own.
template <class Kernel>
__global__ void __launch_bounds__(largest_block) __attribute__((visibility("hidden")))
run_kernel(__grid_constant__ Kernel const kernel) {
  device_context at;
  kernel(at);
}

/// See plan.hpp. Allocates nothing and does not wait for the device.
class stream_launcher {
 public:
  stream_launcher(cudaStream_t stream, tuning const& how, int multiprocessors, scratch_memory* scratch)
      : stream_{stream}, threads_{how.threads},
        most_blocks_{std::int64_t{how.blocks_a_multiprocessor} * multiprocessors}, scratch_{scratch} {}

  int threads() const { return threads_; }
  double* scratch() { return scratch_.get(); }

  template <class Kernel>
  void launch(Kernel const& kernel, std::int64_t threads, std::size_t shared = 0) const {
    static_assert(std::is_trivially_copyable_v<Kernel> && sizeof(Kernel) <= 4096, "what a launch can take");
    auto const blocks = static_cast<unsigned>(std::min((threads + threads_ - 1) / threads_, most_blocks_));
    if (shared > 48 * 1024)  // more than that has to be asked for
      require(cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
    run_kernel<Kernel><<<blocks, static_cast<unsigned>(threads_), shared, stream_>>>(kernel);
    require(cudaPeekAtLastError(), "kernel launch");
  }

 private:
  cudaStream_t stream_;
  int threads_;
  std::int64_t most_blocks_;
  scratch_use scratch_;
};

}  // namespace mixbit::cuda::inline MIXBIT_CUDA_TARGET
