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
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>

#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/simd.hpp"
#include "peer_process.hpp"
#include "timing.hpp"

namespace {

using namespace mixbit;

struct options {
  bool json = false, quick = false, peers = false, filtered = false;
  std::regex filter;
  bench::peer_process* libraries = nullptr;  ///< with `peers`
};

/// A kernel by name; one overload of `time_kernel` for each, so that none is left out.
#define MIXBIT_KERNEL(name) struct kernel_##name { static constexpr char const* text = #name; };
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

struct named_format {
  char const* name;
  format how;
  std::vector<axis_block> blocks;
  amax_use use = amax_use::given;
};

std::vector<named_format> const all_formats{
    {"int8", {integer_element(8), policy::stored, dtype::f32, packing::bytes}, {}},
    {"int8_channel", {integer_element(8), policy::stored, dtype::f32, packing::bytes}, {{-1, std::nullopt}}},
    {"int4_b32", {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}, {{-1, 32}}},
    {"int4_b128", {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}, {{-1, 128}}},
    {"fp8", {e4m3_element}, {}},
    {"fp8_2d", {e4m3_element}, {{-1, 128}, {-2, 128}}},
    {"mxfp8", {e4m3_element, policy::stored, dtype::f8_e8m0, packing::bytes, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"mxfp6", {e3m2_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"mxfp4", {e2m1_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv}, {{-1, 32}},
     amax_use::data},
    {"nvfp4", {e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level}, {{-1, 16}},
     amax_use::data},
    {"int8_modelopt", {integer_element(8), policy::modelopt}, {}},
    {"fp8_modelopt", {e4m3_element, policy::modelopt}, {}}};

/// One size of one element type: the tensors and what the kernels are given beside them.
template <class T>
class tensors {
 public:
  static constexpr std::int64_t columns = 4096;

  explicit tensors(std::int64_t rows) : rows_{rows}, x_{allocate(size())}, y_{allocate(size())}, z_{allocate(size())} {
    std::uint32_t state = 1;
    for (std::int64_t i = 0; i < size(); ++i) {
      state = state * 1664525u + 1013904223u;
      float const v = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-30f;
      x_[i] = from_float<T>(v);
      z_[i] = from_float<T>(v * 0.5f);
    }
    amax_.assign(static_cast<std::size_t>(size() / 16), 2.0f);
    codes_.resize(static_cast<std::size_t>(size()));
    scales_.resize(amax_.size());
    scale_.assign(static_cast<std::size_t>(columns), 1.5f);
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t size() const { return rows_ * columns; }
  const_tensor_ref x() const { return dense_view(static_cast<T const*>(x_.get()), {rows_, columns}); }
  const_tensor_ref z() const { return dense_view(static_cast<T const*>(z_.get()), {rows_, columns}); }
  tensor_ref y() const { return dense_view(y_.get(), {rows_, columns}); }
  partition groups(named_format const& f) const {
    return f.blocks.empty() ? per_tensor(x()) : blocks_of(x(), f.blocks);
  }
  float* amax() { return amax_.data(); }
  float const* given(named_format const& f) { return f.use == amax_use::data ? nullptr : amax_.data(); }
  float const* scale() const { return scale_.data(); }
  std::uint8_t* codes() { return codes_.data(); }
  void* scales() { return scales_.data(); }
  /// Bytes an element of codes and scales.
  double payload(named_format const& f) const {
    return static_cast<double>(storage_size_of(f.how, x(), groups(f)).bytes()) / static_cast<double>(size());
  }

 private:
  struct release {
    void operator()(T* p) const { std::free(p); }
  };
  using memory = std::unique_ptr<T[], release>;
  static memory allocate(std::int64_t n) {
    return memory{static_cast<T*>(std::aligned_alloc(4096, static_cast<std::size_t>(n) * sizeof(T)))};
  }

  std::int64_t rows_;
  memory x_, y_, z_;
  std::vector<float> amax_, scales_, scale_;
  std::vector<std::uint8_t> codes_;
};

float const tensor_amax = 2.0f;

template <class T>
class bench_run {
 public:
  bench_run(options const& o, std::int64_t rows)
      : options_{o}, t_{rows}, repeats_{std::max<std::int64_t>(1, 1024 / rows)} {}

  tensors<T>& data() { return t_; }
  static constexpr double width = sizeof(T);

  /// Times f(backend), which moves `bytes` an element, on both backends, and prints a line for each.
  template <class F>
  void report(char const* kernel, std::string_view format, double bytes, F f) {
    auto const name = [&](std::string_view backend) {
      return std::string{kernel}.append("/").append(format).append("/").append(backend).append("/")
          .append(name_of(dtype_of<T>::value)).append("/").append(std::to_string(t_.size()));
    };
    bool const with_simd = wanted(name("simd")), with_scalar = !options_.quick && wanted(name("scalar"));
    if (!with_simd && !with_scalar) return;
    line const l{kernel, format, bytes};
    auto const simd = [&] { for (std::int64_t i = 0; i < repeats_; ++i) f(reference::simd{}); };
    auto const scalar = [&] { for (std::int64_t i = 0; i < repeats_; ++i) f(reference::scalar{}); };
    auto const c = timed(l, simd, [&] { return bench::seconds_of(scalar); });
    if (with_simd) print(l, "simd", c, "reference::scalar");
    if (with_simd && l.kernel == std::string_view{kernel_amax::text})
      print(l, "simd", timed(l, simd, [&] { return bench::seconds_of([&] { read_x(); }); }), "read");
    if (with_scalar && c.peer > 0)
      print(l, "scalar", {c.peer, 0, c.copy_to_kernel * c.kernel / c.peer, 0}, nullptr);
    if (!with_simd || !options_.libraries) return;
    std::string const what = std::string{kernel}.append(" ").append(format).append(" ").append(type_name());
    for (std::string const& peer : options_.libraries->peers_of(what)) {
      auto const time = [&] { return options_.libraries->seconds(peer, what, t_.rows(), t_.columns, repeats_); };
      print(l, "simd", timed(l, simd, time), peer.c_str());
    }
  }

 private:
  struct line {
    char const* kernel;
    std::string_view format;
    double bytes;  ///< an element
  };
  static std::string_view type_name() { return name_of(dtype_of<T>::value); }

  /// Ratios of bytes a second: a copy reads and writes as many bytes as the kernel moves, or all there are.
  bench::comparison timed(line const& l, std::function<void()> const& kernel, std::function<double()> const& peer) {
    double const moved = l.bytes * static_cast<double>(t_.size());
    std::size_t const copied = std::min(static_cast<std::size_t>(t_.size()) * sizeof(T),
                                        static_cast<std::size_t>(moved / 2)) / 64 * 64;
    auto const copy = [&] {
      bool const large = copied > (std::size_t{4} << 20);
      for (std::int64_t i = 0; i < repeats_; ++i)
        if (large) bench::copy_past_caches(t_.y().data, t_.x().data, copied);
        else std::memcpy(t_.y().data, t_.x().data, copied);
    };
    auto c = bench::compare(options_.quick ? 5 : 21, options_.quick ? 0.1 : 6, copy, kernel, peer);
    c.copy_to_kernel *= moved / (2.0 * static_cast<double>(copied));
    return c;
  }

  void read_x() {
    for (std::int64_t i = 0; i < repeats_; ++i)
      sink_ = sink_ | bench::read_bytes(t_.x().data, static_cast<std::size_t>(t_.size()) * sizeof(T));
  }

  bool wanted(std::string const& name) const { return !options_.filtered || std::regex_search(name, options_.filter); }

  void print(line const& l, char const* backend, bench::comparison const& c, char const* peer) const {
    double const elements = static_cast<double>(t_.size() * repeats_) / c.kernel / 1e9;
    auto const format = std::string{l.format}, type = std::string{type_name()};
    auto const size = static_cast<long long>(t_.size());
    bool const compared = peer && c.peer_to_kernel > 0;
    if (options_.json) {
      char text[96] = "null,\"ratio_to_peer\":null";
      if (compared) std::snprintf(text, sizeof text, "\"%s\",\"ratio_to_peer\":%.4g", peer, c.peer_to_kernel);
      std::printf("{\"kernel\":\"%s\",\"format\":\"%s\",\"backend\":\"reference::%s\",\"dtype\":\"%s\","
                  "\"elements\":%lld,\"gelem_s\":%.4g,\"gb_s\":%.4g,\"ratio_to_copy\":%.4g,\"peer\":%s}\n",
                  l.kernel, format.c_str(), backend, type.c_str(), size, elements, elements * l.bytes,
                  c.copy_to_kernel, text);
    } else {
      std::printf("%-14s %-13s %-6s %-8s %9lld  %7.3f Gelem/s %7.2f GB/s  %6.3f of a copy", l.kernel, format.c_str(),
                  backend, type.c_str(), size, elements, elements * l.bytes, c.copy_to_kernel);
      std::printf(compared ? "  %6.2f x %s\n" : "\n", c.peer_to_kernel, peer);
    }
    std::fflush(stdout);
  }

  options const& options_;
  tensors<T> t_;
  std::int64_t repeats_;
  int volatile sink_ = 0;
};

template <class T>
void time_kernel(kernel_amax k, bench_run<T>& b) {
  auto& t = b.data();
  for (auto const& f : all_formats)
    b.report(k.text, f.name, b.width, [&, g = t.groups(f)](auto cpu) { cpu.amax({t.x(), g, t.amax(), nullptr}); });
}
template <class T>
void time_kernel(kernel_fake_quantize k, bench_run<T>& b) {
  auto& t = b.data();
  for (auto const& f : all_formats)
    b.report(k.text, f.name, 2 * b.width, [&, g = t.groups(f)](auto cpu) {
      cpu.fake_quantize({t.x(), t.y(), g, t.given(f), f.how, nullptr, &tensor_amax, f.use});
    });
}
template <class T>
void time_kernel(kernel_encode k, bench_run<T>& b) {
  auto& t = b.data();
  for (auto const& f : all_formats)
    b.report(k.text, f.name, b.width + t.payload(f), [&, g = t.groups(f)](auto cpu) {
      cpu.encode({t.x(), g, t.given(f), f.how, t.codes(), t.scales(), nullptr, &tensor_amax, nullptr, f.use});
    });
}
template <class T>
void time_kernel(kernel_decode k, bench_run<T>& b) {
  auto& t = b.data();
  for (auto const& f : all_formats)
    b.report(k.text, f.name, b.width + t.payload(f), [&, g = t.groups(f)](auto cpu) {
      cpu.decode({t.codes(), t.scales(), g, f.how, t.y()});
    });
}
template <class T>
void time_kernel(kernel_backward_mask k, bench_run<T>& b) {
  auto& t = b.data();
  b.report(k.text, "tensor", 3 * b.width, [&, g = per_tensor(t.x())](auto cpu) {
    cpu.backward_mask({t.x(), t.y(), g, t.amax()});
  });
}
template <class T>
void time_kernel(kernel_subtract k, bench_run<T>& b) {
  auto& t = b.data();
  b.report(k.text, "", 3 * b.width, [&](auto cpu) { cpu.subtract({t.x(), t.z(), t.y()}); });
}
template <class T>
void time_kernel(kernel_gradient_score k, bench_run<T>& b) {
  auto& t = b.data();
  double sum = 0;
  b.report(k.text, "", 2 * b.width, [&](auto cpu) { cpu.gradient_score({t.x(), t.z(), &sum}); });
}
template <class T>
void time_kernel(kernel_scale_channels k, bench_run<T>& b) {
  auto& t = b.data();
  b.report(k.text, "axis -1", 2 * b.width, [&](auto cpu) { cpu.scale_channels({t.x(), t.y(), 1, 4096, t.scale()}); });
}

template <class T>
void time_kernel(kernel_histogram k, bench_run<T>& b) {
  auto& t = b.data();
  std::vector<std::uint64_t> counts(2048);
  b.report(k.text, "2048 bins", b.width, [&, g = per_tensor(t.x())](auto cpu) {
    cpu.histogram({t.x(), g, t.amax(), 2048, counts.data(), nullptr});
  });
}
template <class T>
void time_kernel(kernel_sum k, bench_run<T>& b) {
  auto& t = b.data();
  std::vector<double> sums(static_cast<std::size_t>(tensors<T>::columns));
  int const last = -1;
  b.report(k.text, "tensor", b.width, [&, g = per_tensor(t.x())](auto cpu) {
    cpu.sum({t.x(), g, sum_of::squares, sums.data(), nullptr});
  });
  b.report(k.text, "axis -1", b.width, [&, g = per_axes(t.x(), std::span{&last, 1})](auto cpu) {
    cpu.sum({t.x(), g, sum_of::magnitudes, sums.data(), nullptr});
  });
}
template <class T>
void time_kernel(kernel_extremes k, bench_run<T>& b) {
  auto& t = b.data();
  float low = 0, high = 0;
  b.report(k.text, "tensor", b.width, [&, g = per_tensor(t.x())](auto cpu) {
    cpu.extremes({t.x(), g, &low, &high, nullptr});
  });
}
template <class T>
void time_kernel(kernel_shift k, bench_run<T>& b) {
  auto& t = b.data();
  named_format const tokens{"token", {}, {{-1, std::nullopt}}};
  b.report(k.text, tokens.name, 2 * b.width, [&, g = t.groups(tokens)](auto cpu) {
    cpu.shift({t.x(), t.y(), g, t.amax(), true});
  });
}
template <class T>
void time_kernel(kernel_hadamard k, bench_run<T>& b) {
  auto& t = b.data();
  for (auto const& [name, block] : {std::pair{"block 128", 128}, std::pair{"block 4096", 4096}})
    b.report(k.text, name, 2 * b.width, [&, n = block](auto cpu) { cpu.hadamard({t.x(), t.y(), n}); });
}

template <class T>
void time_all(options const& o) {
  for (std::int64_t const rows : {16384, 24}) {
    bench_run<T> b{o, rows};
#define MIXBIT_KERNEL(name) time_kernel(kernel_##name{}, b);
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
  }
}

void time_quick(options const& o) {
  bench_run<float> b{o, 4096};
  time_kernel(kernel_fake_quantize{}, b);
  time_kernel(kernel_encode{}, b);
  time_kernel(kernel_amax{}, b);
}

int usage(char const* what, char const* why) {
  std::fprintf(stderr, "bench_kernels: '%s' %s; ", what, why);
  std::fprintf(stderr, "bench_kernels [--json] [--quick] [--peers] [--filter REGEX]\n");
  return 2;
}

int run(int count, char** arguments) {
  options o;
  for (int i = 1; i < count; ++i) {
    std::string_view const option = arguments[i];
    bool* const flag = option == "--json" ? &o.json : option == "--quick" ? &o.quick
                       : option == "--peers" ? &o.peers : option == "--filter" ? &o.filtered : nullptr;
    if (flag == nullptr || *flag)
      return usage(arguments[i], flag == nullptr ? "is an unknown option" : "is given twice");
    *flag = true;
    if (flag != &o.filtered) continue;
    if (++i == count) return usage("--filter", "is given without its regular expression");
    try {
      o.filter = arguments[i];
    } catch (std::regex_error const&) {
      return usage(arguments[i], "is no regular expression");
    }
  }
  std::optional<bench::peer_process> libraries;
  if (o.peers) o.libraries = &libraries.emplace(MIXBIT_BENCH_DIR "/peers/peers.py");
  if (o.quick) return time_quick(o), 0;
  time_all<float>(o);
  time_all<half>(o);
  time_all<bfloat16>(o);
  return 0;
}

}  // namespace

int main(int count, char** arguments) { return run(count, arguments); }
