// Times every kernel of kernels.inc, on reference::simd beside reference::scalar, in elements a second and relative to
// a copy past the caches in the same run, in bytes a second.
//
//   bench_kernels [--json] [--quick] [--filter REGEX]
//
// Two sizes: 64 Mi elements, which memory bounds, and 96 Ki, which stay in the second-level cache. --quick: 16 Mi
// elements, float32, fake_quantize, encode and amax, 5 rounds. A line's name is KERNEL/FORMAT/BACKEND/DTYPE/ELEMENTS;
// --filter picks lines by it. The peer of simd is scalar as this build compiles it: with the preset `release`, -O3
// for the same instruction set.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <regex>
#include <string>
#include <string_view>

#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "mixbit/reference/simd.hpp"
#include "timing.hpp"

namespace {

using namespace mixbit;

struct options {
  bool json = false, quick = false, filtered = false;
  std::regex filter;
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
    double const moved = bytes * static_cast<double>(t_.size());
    // a copy reads and writes as many bytes
    std::size_t const copied = std::min(static_cast<std::size_t>(t_.size()) * sizeof(T),
                                        static_cast<std::size_t>(moved / 2)) / 64 * 64;
    auto const copy = [&] {
      bool const large = copied > (std::size_t{4} << 20);
      for (std::int64_t i = 0; i < repeats_; ++i)
        if (large) bench::copy_past_caches(t_.y().data, t_.x().data, copied);
        else std::memcpy(t_.y().data, t_.x().data, copied);
    };
    auto const simd = [&] { for (std::int64_t i = 0; i < repeats_; ++i) f(reference::simd{}); };
    auto const scalar = [&] { for (std::int64_t i = 0; i < repeats_; ++i) f(reference::scalar{}); };
    int const rounds = options_.quick ? 5 : 21;
    auto const c = bench::compare(rounds, options_.quick ? 0.3 : 6, copy, simd, scalar);
    double const copy_factor = moved / (2.0 * static_cast<double>(copied));
    if (with_simd) print(kernel, format, "simd", bytes, c.kernel, c.copy_to_kernel * copy_factor, c.peer_to_kernel);
    if (with_scalar && c.peer > 0)
      print(kernel, format, "scalar", bytes, c.peer, c.copy_to_kernel * copy_factor * c.kernel / c.peer, 0);
  }

 private:
  bool wanted(std::string const& name) const { return !options_.filtered || std::regex_search(name, options_.filter); }

  void print(char const* kernel, std::string_view format, char const* backend, double bytes, double seconds,
             double to_copy, double to_peer) const {
    double const elements = static_cast<double>(t_.size() * repeats_) / seconds / 1e9;
    std::string const type{name_of(dtype_of<T>::value)};
    char peer[64] = "\"peer\":null,\"ratio_to_peer\":null";
    if (to_peer > 0)
      std::snprintf(peer, sizeof peer, "\"peer\":\"reference::scalar\",\"ratio_to_peer\":%.4g", to_peer);
    if (options_.json)
      std::printf("{\"kernel\":\"%s\",\"format\":\"%.*s\",\"backend\":\"reference::%s\",\"dtype\":\"%s\","
                  "\"elements\":%lld,\"gelem_s\":%.4g,\"gb_s\":%.4g,\"ratio_to_copy\":%.4g,%s}\n",
                  kernel, static_cast<int>(format.size()), format.data(), backend, type.c_str(),
                  static_cast<long long>(t_.size()), elements, elements * bytes, to_copy, peer);
    else
      std::printf("%-14s %-13.*s %-6s %-8s %9lld  %7.3f Gelem/s %7.2f GB/s  %6.3f of a copy  %6.2f x scalar\n", kernel,
                  static_cast<int>(format.size()), format.data(), backend, type.c_str(),
                  static_cast<long long>(t_.size()), elements, elements * bytes, to_copy, to_peer > 0 ? to_peer : 1.0);
    std::fflush(stdout);
  }

  options const& options_;
  tensors<T> t_;
  std::int64_t repeats_;
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
  return std::fprintf(stderr, "bench_kernels: '%s' %s; bench_kernels [--json] [--quick] [--filter REGEX]\n", what, why),
         2;
}

int run(int count, char** arguments) {
  options o;
  for (int i = 1; i < count; ++i) {
    std::string_view const option = arguments[i];
    bool* const flag = option == "--json" ? &o.json : option == "--quick" ? &o.quick
                       : option == "--filter" ? &o.filtered : nullptr;
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
  if (o.quick) return time_quick(o), 0;
  time_all<float>(o);
  time_all<half>(o);
  time_all<bfloat16>(o);
  return 0;
}

}  // namespace

int main(int count, char** arguments) { return run(count, arguments); }
