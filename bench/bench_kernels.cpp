// Times every kernel of kernels.inc, on reference::simd beside reference::scalar, in elements a second and relative to
// a copy past the caches in the same run, in bytes a second.
//
//   bench_kernels [--json] [--quick] [--peers] [--filter REGEX]
//
// Two sizes: 64 Mi elements, which memory bounds, and 96 Ki, which stay in the second-level cache. --quick: 16 Mi
// elements, float32, simd, fake_quantize, encode and amax, 5 rounds. A line's name is
// KERNEL/FORMAT/BACKEND/DTYPE/ELEMENTS; --filter picks lines by it. The peer of simd is scalar as this build compiles
// it (with the preset `release`, -O3 for the same instruction set), and of amax a pass that only reads. --peers adds a
// line for each library of bench/peers/peers.py that has the kernel: torch, FBGEMM and ml_dtypes, where python3
// ($MIXBIT_PYTHON) has them.
#include <functional>
#include <optional>

#include "kernel_report.hpp"
#include "kernel_tensors.hpp"
#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/simd.hpp"
#include "peer_process.hpp"

namespace {

using namespace bench;

struct options : kernel_options {
  peer_process* libraries = nullptr;  ///< with `peers`
};

template <class T>
class cpu_bench {
 public:
  cpu_bench(options const& o, std::int64_t rows)
      : options_{o}, t_{host_, rows}, repeats_{std::max<std::int64_t>(1, 1024 / rows)} {}

  tensors<reference::scalar, T>& data() { return t_; }
  static constexpr double width = sizeof(T);
  std::vector<named_format> const& formats() const { return all_formats; }

  /// Times f(backend), which moves `bytes` an element, on both backends, and prints a line for each.
  template <class F>
  void report(char const* kernel, std::string_view format, double bytes, F f) {
    kernel_line const l{kernel, format, bytes, dtype_of<T>::value, t_.size(), repeats_};
    bool const with_simd = options_.filter.matches(l.name(simd_name));
    bool const with_scalar = !options_.quick && options_.filter.matches(l.name(scalar_name));
    if (!with_simd && !with_scalar) return;
    auto const simd = [&] { for (std::int64_t i = 0; i < repeats_; ++i) f(reference::simd{}); };
    auto const scalar = [&] { for (std::int64_t i = 0; i < repeats_; ++i) f(reference::scalar{}); };
    auto const c = timed(l, simd, [&] { return seconds_of(scalar); });
    if (with_simd) print(options_, l, simd_name, c, scalar_name);
    if (with_simd && l.kernel == kernel_amax::text)
      print(options_, l, simd_name, timed(l, simd, [&] { return seconds_of([&] { read_x(); }); }), "read");
    if (with_scalar && c.peer > 0)
      print(options_, l, scalar_name, {c.peer, 0, c.copy_to_kernel * c.kernel / c.peer, 0}, nullptr);
    if (with_simd && options_.libraries) report_libraries(l, simd);
  }

 private:
  static constexpr char const *simd_name = "reference::simd", *scalar_name = "reference::scalar";

  void report_libraries(kernel_line const& l, std::function<void()> const& simd) {
    std::string const what = std::string{l.kernel}.append(" ").append(l.format).append(" ").append(name_of(l.type));
    for (std::string const& peer : options_.libraries->peers_of(what)) {
      auto const time = [&] { return options_.libraries->seconds(peer, what, t_.rows(), t_.columns, repeats_); };
      print(options_, l, simd_name, timed(l, simd, time), peer.c_str());
    }
  }

  /// Ratios of bytes a second: a copy reads and writes as many bytes as the kernel moves, or all there are.
  comparison timed(kernel_line const& l, std::function<void()> const& kernel, std::function<double()> const& peer) {
    double const moved = l.bytes * static_cast<double>(t_.size());
    std::size_t const copied = copied_bytes(moved, static_cast<std::size_t>(t_.size()) * sizeof(T));
    auto const copy = [&] {
      bool const large = copied > (std::size_t{4} << 20);
      for (std::int64_t i = 0; i < repeats_; ++i)
        if (large) copy_past_caches(t_.y().data, t_.x().data, copied);
        else std::memcpy(t_.y().data, t_.x().data, copied);
    };
    auto c = compare(options_.quick ? 5 : 21, options_.quick ? 0.1 : 6, copy, kernel, peer);
    c.copy_to_kernel *= moved / (2.0 * static_cast<double>(copied));
    return c;
  }

  void read_x() {
    for (std::int64_t i = 0; i < repeats_; ++i)
      sink_ = sink_ | read_bytes(t_.x().data, static_cast<std::size_t>(t_.size()) * sizeof(T));
  }

  options const& options_;
  reference::scalar host_;
  tensors<reference::scalar, T> t_;
  std::int64_t repeats_;
  int volatile sink_ = 0;
};

template <class T>
void time_all(options const& o) {
  for (std::int64_t const rows : {16384, 24}) {
    cpu_bench<T> b{o, rows};
#define MIXBIT_KERNEL(name) time_kernel(kernel_##name{}, b);
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
  }
}

void time_quick(options const& o) {
  cpu_bench<float> b{o, 4096};
  time_kernel(kernel_fake_quantize{}, b);
  time_kernel(kernel_encode{}, b);
  time_kernel(kernel_amax{}, b);
}

}  // namespace

int main(int count, char** arguments) {
  options o;
  if (int const status = parse(o, "bench_kernels", true, count, arguments); status >= 0) return status;
  std::optional<peer_process> libraries;
  if (o.peers) o.libraries = &libraries.emplace(MIXBIT_BENCH_DIR "/peers/peers.py");
  if (o.quick) {
    time_quick(o);
  } else {
    time_all<float>(o);
    time_all<half>(o);
    time_all<bfloat16>(o);
  }
  return finish(o, "bench_kernels");
}
