// The CUDA kernels on the CPU: a context that steps through every block and thread, a launcher, and a backend of them,
// so that the tests of all backends run over the device's kernels without a device.
#pragma once

#include <cstring>
#include <vector>

#include <doctest/doctest.h>

#include "cuda/guarded.hpp"
#include "mixbit/core/backend.hpp"
#include "mixbit/core/thread_pool.hpp"
#include "mixbit/cuda/plan.hpp"
#include "mixbit/cuda/scratch.hpp"
#include "mixbit/cuda/tuning/tuning.hpp"

namespace cuda_tests {

using namespace mixbit;
namespace plan = mixbit::cuda::plan;

/// One block of a grid. Steps run for all threads, one after the other; what threads exchange is complete then.
template <int Octets>
class stepping_context {
 public:
  static constexpr int octets = Octets;
  template <class T>
  class per_thread {
   public:
    T& operator[](int thread) {
      if (values_.empty()) values_.resize(mixbit::cuda::largest_block);
      return values_[static_cast<std::size_t>(thread)];
    }

   private:
    std::vector<T> values_;
  };

  stepping_context(std::int64_t block, std::int64_t blocks, int threads, void* shared)
      : block_{block}, blocks_{blocks}, threads_{threads}, shared_{shared} {}

  std::int64_t block() const { return block_; }
  std::int64_t blocks() const { return blocks_; }
  int threads() const { return threads_; }

  template <class F>
  void each(F&& f) {
    for (int t = 0; t < threads_; ++t) f(t);
  }
  void max_over(per_thread<std::uint32_t>& v, int width) {
    require_width(width, threads_);
    for (int first = 0; first < threads_; first += width) {
      std::uint32_t top = 0;
      for (int t = first; t < first + width; ++t) top = std::max(top, v[t]);
      for (int t = first; t < first + width; ++t) v[t] = top;
    }
  }
  template <class T>
  void take(per_thread<T>& v, int lane, int width) {
    require_width(width, 32);
    for (int first = 0; first < threads_; first += width) {
      T const handed = v[first + lane];
      for (int t = first; t < first + width; ++t) v[t] = handed;
    }
  }
  void raise(float* p, std::uint32_t magnitude) {
    if (fp::bits(*p) < magnitude) *p = fp::from_bits(magnitude);
  }
  void add(std::uint64_t* p, std::uint64_t n) { *p += n; }
  void widen(float* p, float v, bool high) {
    bool const above = v > *p || (v == *p && fp::bits(v) == 0), below = v < *p || (v == *p && fp::bits(*p) == 0);
    if (high ? above : below) *p = v;
  }
  void* shared() { return shared_; }
  void add_shared(std::uint32_t* p) { ++*p; }
  void wait() {}

 private:
  void require_width(int width, int most) const {
    bool const power = width > 0 && (width & (width - 1)) == 0;
    REQUIRE((power && width <= most && threads_ % width == 0 && (width <= 32 || width == threads_)));
  }
  std::int64_t block_, blocks_;
  int threads_;
  void* shared_;
};

/// One for all backends here, as the copies of a gpu have it.
inline mixbit::cuda::scratch_memory& shared_scratch() {
  static mixbit::cuda::scratch_memory all{std::shared_ptr<double>{new double[plan::scratch_sums],
                                                                  std::default_delete<double[]>{}}, {}};
  return all;
}

/// A launcher of few small blocks, so that every stride over the grid is taken.
template <int Octets = 2>
class stepping_launcher {
 public:
  stepping_launcher(int threads, std::int64_t most_blocks) : threads_{threads}, most_blocks_{most_blocks} {
    REQUIRE((threads >= 32 && threads <= mixbit::cuda::largest_block && (threads & (threads - 1)) == 0));
  }
  int threads() const { return threads_; }
  double* scratch() { return scratch_.get(); }

  template <class Kernel>
  void launch(Kernel const& kernel, std::int64_t threads, std::size_t shared = 0) {
    static_assert(std::is_trivially_copyable_v<Kernel> && sizeof(Kernel) <= 4096, "what a launch can take");
    REQUIRE(threads > 0);
    std::int64_t const blocks = std::min((threads + threads_ - 1) / threads_, most_blocks_);
    for (std::int64_t b = 0; b < blocks; ++b) {
      guarded memory{shared};
      stepping_context<Octets> at{b, blocks, threads_, memory.data()};
      kernel(at);
      REQUIRE(memory.intact());
    }
  }

 private:
  int threads_;
  std::int64_t most_blocks_;
  mixbit::cuda::scratch_use scratch_{&shared_scratch()};
};

/// Models mixbit::backend over host memory. "Threads" choose the shape of the grid.
struct stepped {
  static constexpr device place = device::cpu;
  static constexpr bool exact_probe = true;
  static constexpr std::string_view name = "stepped";

  stepped() = default;
  explicit stepped(thread_pool& pool)
      : threads_{std::min(32 << pool.concurrency(), mixbit::cuda::largest_block)}, blocks_{pool.concurrency()} {}

  static memory_source memory() { return {}; }
  void copy_to_host(void* to, void const* from, std::size_t n) const { std::memmove(to, from, n); }
  void copy_from_host(void* to, void const* from, std::size_t n) const { std::memmove(to, from, n); }
  void zero(void* p, std::size_t n) const { std::memset(p, 0, n); }
  void synchronize() const {}

#define MIXBIT_KERNEL(kernel)                                       \
  void kernel(kernel##_args const& a) const {                       \
    stepping_launcher<> on{threads_, static_cast<int>(blocks_)};    \
    plan::kernel(on, a);                                            \
  }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

 private:
  int threads_ = 32;
  int blocks_ = 3;
};

static_assert(backend<stepped>);

}  // namespace cuda_tests
