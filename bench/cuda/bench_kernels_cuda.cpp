// Times every kernel of kernels.inc on the current CUDA device, relative to a copy on the device in the same run.
//
//   bench_kernels_cuda [--json] [--quick] [--filter REGEX]
//
// Two sizes: 64 Mi elements, which memory bounds, and 1 Mi, which stay in the second-level cache. --quick: 16 Mi
// elements, float32, fake_quantize, encode and amax, 5 rounds. Of amax a tensor the peer is cub::DeviceReduce. Several
// calls are queued, and timed up to where the stream has done them all.
// Without a device it says `skipped: ...` and ends with status 0.
#include <cstdio>
#include <functional>

#include "cub_amax.hpp"
#include "kernel_report.hpp"
#include "kernel_tensors.hpp"
#include "mixbit/cuda/gpu.hpp"

namespace {

using namespace bench;

template <class T>
class gpu_bench {
 public:
  gpu_bench(kernel_options const& o, cuda::gpu& gpu, std::int64_t rows)
      : options_{o}, gpu_{gpu}, t_{gpu, rows}, repeats_{std::max<std::int64_t>(8, 131072 / rows)} {}

  tensors<cuda::gpu, T>& data() { return t_; }
  static constexpr double width = sizeof(T);
  std::vector<named_format> const& formats() const { return all_formats; }

  /// Times f(gpu), which moves `bytes` an element, and prints a line.
  template <class F>
  void report(char const* kernel, std::string_view format, double bytes, F f) {
    kernel_line const l{kernel, format, bytes, dtype_of<T>::value, t_.size(), repeats_};
    if (!options_.filter.matches(l.name(cuda::gpu::name))) return;
    std::string const name{cuda::gpu::name};
    auto const ours = [&] { repeat([&] { f(std::as_const(gpu_)); }); };
    if (l.kernel == kernel_amax::text && std::is_same_v<T, float> && format == all_formats.front().name)
      print(options_, l, name, timed(l, ours, [&] { return seconds_of([&] { cub(); }); }), "cub::DeviceReduce");
    else
      print(options_, l, name, timed(l, ours, nullptr), nullptr);
  }

 private:
  void repeat(std::function<void()> const& call) {
    for (std::int64_t i = 0; i < repeats_; ++i) call();
    gpu_.synchronize();
  }

  comparison timed(kernel_line const& l, std::function<void()> const& kernel, std::function<double()> const& peer) {
    double const moved = l.bytes * static_cast<double>(t_.size());
    std::size_t const copied = copied_bytes(moved, static_cast<std::size_t>(t_.size()) * sizeof(T));
    auto const copy = [&] {
      repeat([&] {
        cuda::require(cudaMemcpyAsync(t_.y().data, t_.x().data, copied, cudaMemcpyDeviceToDevice, gpu_.stream()),
                      "cudaMemcpyAsync on the device");
      });
    };
    auto c = compare(options_.quick ? 5 : 21, 6, copy, kernel, peer);
    c.copy_to_kernel *= moved / (2.0 * static_cast<double>(copied));
    return c;
  }

  void cub() {
    if constexpr (std::is_same_v<T, float>) {
      auto const* const x = static_cast<float const*>(t_.x().data);
      std::size_t needed = 0;
      cuda::require(cub_amax(nullptr, needed, x, t_.size(), t_.ends(), gpu_.stream()), "cub::DeviceReduce");
      if (scratch_.size() < needed) scratch_ = buffer<cuda::gpu, std::byte>{gpu_, needed};
      repeat([&] {
        cuda::require(cub_amax(scratch_.data(), needed, x, t_.size(), t_.ends(), gpu_.stream()), "cub::DeviceReduce");
      });
    }
  }

  kernel_options const& options_;
  cuda::gpu& gpu_;
  tensors<cuda::gpu, T> t_;
  std::int64_t repeats_;
  buffer<cuda::gpu, std::byte> scratch_;
};

template <class T>
void time_all(kernel_options const& o, cuda::gpu& gpu) {
  for (std::int64_t const rows : {16384, 256}) {
    gpu_bench<T> b{o, gpu, rows};
#define MIXBIT_KERNEL(name) time_kernel(kernel_##name{}, b);
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
  }
}

void time_quick(kernel_options const& o, cuda::gpu& gpu) {
  gpu_bench<float> b{o, gpu, 4096};
  time_kernel(kernel_fake_quantize{}, b);
  time_kernel(kernel_encode{}, b);
  time_kernel(kernel_amax{}, b);
}

int run(kernel_options const& o) {
  if (cuda::device_count() == 0) return std::puts("skipped: bench_kernels_cuda: no CUDA device"), 0;
  cudaStream_t stream = nullptr;
  cuda::require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  cuda::gpu gpu{stream};
  if (o.quick) {
    time_quick(o, gpu);
  } else {
    time_all<float>(o, gpu);
    time_all<half>(o, gpu);
    time_all<bfloat16>(o, gpu);
  }
  return finish(o, "bench_kernels_cuda");
}

}  // namespace

int main(int count, char** arguments) {
  kernel_options o;
  if (int const status = parse(o, "bench_kernels_cuda", false, count, arguments); status >= 0) return status;
  try {
    return run(o);
  } catch (error const& e) {
    std::fprintf(stderr, "bench_kernels_cuda: %s\n", e.what());
    return 2;
  }
}
