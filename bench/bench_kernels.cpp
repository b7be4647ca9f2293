// Times every kernel of kernels.inc on reference::scalar, in elements a second and relative to a copy in the same run.
//
//   bench_kernels [--json] [--quick]
//
// A kernel's rounds alternate with rounds of std::memcpy over as many bytes; the ratio is the median of the rounds'
// ratios of bytes a second, because absolute numbers drift more than that.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"

namespace {

using namespace mixbit;

struct options {
  bool json = false, quick = false;
};

/// A kernel by name; one overload of `time_kernel` for each, so that none is left out.
#define MIXBIT_KERNEL(name) struct kernel_##name { static constexpr char const* text = #name; };
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

struct named_format {
  char const* name;
  format how;
  std::vector<axis_block> blocks;
};

class bench {
 public:
  explicit bench(options o) : options_{o}, rows_{o.quick ? 1024 : 4096}, x_(size()), y_(size()), z_(size()) {
    std::uint32_t state = 1;
    for (std::size_t i = 0; i < x_.size(); ++i) {
      state = state * 1664525u + 1013904223u;
      x_[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-30f;
      z_[i] = x_[i] * 0.5f;
    }
    for (auto const& f : formats_)
      amax_.resize(std::max(amax_.size(), static_cast<std::size_t>(groups(f).group_count())));
    std::fill(amax_.begin(), amax_.end(), 2.0f);
    codes_.resize(size());
    scales_.resize(amax_.size());
    scale_.assign(static_cast<std::size_t>(columns), 1.5f);
  }

  std::vector<named_format> const& formats() const { return formats_; }
  const_tensor_ref x() const { return dense_view(x_.data(), {rows_, columns}); }
  const_tensor_ref z() const { return dense_view(z_.data(), {rows_, columns}); }
  tensor_ref y() { return dense_view(y_.data(), {rows_, columns}); }
  partition groups(named_format const& f) const {
    return f.blocks.empty() ? per_tensor(x()) : blocks_of(x(), f.blocks);
  }
  float* amax() { return amax_.data(); }
  float const* scale() const { return scale_.data(); }
  std::uint8_t* codes() { return codes_.data(); }
  void* scales() { return scales_.data(); }
  double payload(named_format const& f) const {
    return static_cast<double>(storage_size_of(f.how, x(), groups(f)).bytes()) / static_cast<double>(size());
  }

  /// Times f, which moves `bytes` an element, and prints a line.
  template <class F>
  void report(char const* kernel, std::string_view format, double bytes, F f) {
    int const rounds = options_.quick ? 5 : 21;
    std::size_t const copied =
        std::min(x_.size() * sizeof(float), static_cast<std::size_t>(bytes * double(size()) / 2));
    std::vector<double> seconds, ratios;
    for (int r = 0; r <= rounds; ++r) {
      double const copy = time_of([&] { std::memcpy(y_.data(), x_.data(), copied); });
      double const kernel_time = time_of(f);
      if (r == 0) continue;  // page faults
      seconds.push_back(kernel_time);
      ratios.push_back(bytes * double(size()) / kernel_time / (2.0 * double(copied) / copy));
    }
    double const elements = double(size()) / median(seconds) / 1e9;
    std::printf(options_.json
                    ? "{\"kernel\":\"%s\",\"format\":\"%.*s\",\"backend\":\"reference::scalar\",\"dtype\":\"float32\","
                      "\"elements\":%zu,\"gelem_s\":%.4g,\"gb_s\":%.4g,\"ratio_to_copy\":%.4g}\n"
                    : "%-16s %-12.*s %zu elements  %7.3f Gelem/s  %7.2f GB/s  %6.3f of a copy\n",
                kernel, static_cast<int>(format.size()), format.data(), size(), elements, elements * bytes,
                median(ratios));
  }

 private:
  static constexpr std::int64_t columns = 4096;

  std::size_t size() const { return static_cast<std::size_t>(rows_ * columns); }
  template <class F>
  static double time_of(F&& f) {
    auto const start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  static double median(std::vector<double> v) {
    std::ranges::nth_element(v, v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2));
    return v[v.size() / 2];
  }

  options options_;
  std::int64_t rows_;
  std::vector<float> x_, y_, z_, amax_, scales_, scale_;
  std::vector<std::uint8_t> codes_;
  std::vector<named_format> formats_{
      {"int8", {}, {}},
      {"int8_channel", {}, {{-1, std::nullopt}}},
      {"int4_b32", {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}, {{-1, 32}}},
      {"int4_b128", {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}, {{-1, 128}}},
      {"fp8", {e4m3_element}, {}},
      {"fp8_2d", {e4m3_element}, {{-1, 128}, {-2, 128}}},
      {"int8_modelopt", {integer_element(8), policy::modelopt}, {}},
      {"fp8_modelopt", {e4m3_element, policy::modelopt}, {}}};
};

void time_kernel(kernel_amax k, bench& b) {
  for (auto const& f : b.formats())
    b.report(k.text, f.name, 4, [&, g = b.groups(f)] { reference::scalar{}.amax({b.x(), g, b.amax(), nullptr}); });
}
void time_kernel(kernel_fake_quantize k, bench& b) {
  for (auto const& f : b.formats())
    b.report(k.text, f.name, 8, [&, g = b.groups(f)] {
      reference::scalar{}.fake_quantize({b.x(), b.y(), g, b.amax(), f.how, nullptr});
    });
}
void time_kernel(kernel_encode k, bench& b) {
  for (auto const& f : b.formats())
    b.report(k.text, f.name, 4 + b.payload(f), [&, g = b.groups(f)] {
      reference::scalar{}.encode({b.x(), g, b.amax(), f.how, b.codes(), b.scales(), nullptr});
    });
}
void time_kernel(kernel_decode k, bench& b) {
  for (auto const& f : b.formats())
    b.report(k.text, f.name, 4 + b.payload(f), [&, g = b.groups(f)] {
      reference::scalar{}.decode({b.codes(), b.scales(), g, f.how, b.y()});
    });
}
void time_kernel(kernel_backward_mask k, bench& b) {
  b.report(k.text, "tensor", 12, [&, g = per_tensor(b.x())] {
    reference::scalar{}.backward_mask({b.x(), b.y(), g, b.amax()});
  });
}
void time_kernel(kernel_subtract k, bench& b) {
  b.report(k.text, "", 12, [&] { reference::scalar{}.subtract({b.x(), b.z(), b.y()}); });
}
void time_kernel(kernel_gradient_score k, bench& b) {
  double sum = 0;
  b.report(k.text, "", 8, [&] { reference::scalar{}.gradient_score({b.x(), b.z(), &sum}); });
}
void time_kernel(kernel_scale_channels k, bench& b) {
  b.report(k.text, "axis -1", 8, [&] { reference::scalar{}.scale_channels({b.x(), b.y(), 1, 4096, b.scale()}); });
}

int run(int count, char** arguments) {
  options o;
  for (int i = 1; i < count; ++i) {
    std::string_view const option = arguments[i];
    bool* const flag = option == "--json" ? &o.json : option == "--quick" ? &o.quick : nullptr;
    if (flag == nullptr || *flag)
      return std::fprintf(stderr, "bench_kernels: '%s' is %s; bench_kernels [--json] [--quick]\n", arguments[i],
                          flag == nullptr ? "an unknown option" : "given twice"), 2;
    *flag = true;
  }
  bench b{o};
#define MIXBIT_KERNEL(name) time_kernel(kernel_##name{}, b);
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
  return 0;
}

}  // namespace

int main(int count, char** arguments) { return run(count, arguments); }
