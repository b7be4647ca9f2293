// The CUDA backend for tests that are written for host memory: each call copies its arguments to the device, runs the
// kernel there and copies back what it wrote. Arrays lie in the device's memory as they do on the host relative to 64
// bytes, between guards that the kernel must leave alone.
#pragma once

#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "mixbit/core/thread_pool.hpp"
#include "mixbit/cuda/gpu.hpp"
#include "mixbit/formats/storage.hpp"

namespace cuda_tests {

using namespace mixbit;

/// Says why and returns true where no test of the device can run.
inline bool skipped_without_device(std::string const& what) {
  if (cuda::device_count() > 0) return false;
  std::cout << "skipped: " << what << ": no CUDA device" << std::endl;
  return true;
}

inline cuda::gpu& the_gpu() {
  static cuda::gpu gpu{};
  return gpu;
}

/// The arrays of one call.
class staging {
 public:
  explicit staging(cuda::gpu& on) : gpu_{on}, memory_{scratch()}, scope_{memory_} {}
  staging(staging const&) = delete;
  staging& operator=(staging const&) = delete;

  /// `bytes` bytes on the device as on the host; the same place for the same host address.
  template <class T>
  T* on_device(T* host, std::size_t bytes, bool written) {
    if (!host) return nullptr;
    auto* const address = static_cast<unsigned char*>(const_cast<void*>(static_cast<void const*>(host)));
    for (auto& a : arrays_)
      if (a.host == address) {
        a.written = a.written || written;
        return static_cast<T*>(static_cast<void*>(a.device + a.first));
      }
    array a;
    a.host = address;
    a.bytes = bytes;
    a.written = written;
    a.first = guard + reinterpret_cast<std::uintptr_t>(address) % 64;
    a.image.assign(a.first + bytes + guard, pattern);
    if (bytes != 0) std::memcpy(a.image.data() + a.first, address, bytes);
    a.device = static_cast<unsigned char*>(memory_.allocate(a.image.size()));
    gpu_.copy_from_host(a.device, a.image.data(), a.image.size());
    arrays_.push_back(std::move(a));
    return static_cast<T*>(static_cast<void*>(arrays_.back().device + arrays_.back().first));
  }
  template <class Ref>
  Ref tensor(Ref t, bool written) {
    std::int64_t last = t.size() > 0 ? 1 : 0;
    for (std::size_t a = 0; t.size() > 0 && a < static_cast<std::size_t>(t.rank); ++a)
      last += (t.shape[a] - 1) * t.stride[a];
    t.data = on_device(t.data, static_cast<std::size_t>(last) * size_of(t.type), written);
    t.where = device::cuda;
    return t;
  }

  /// Copies back what was written. What was only read, and the guards, must be as they were.
  void finish() {
    for (auto& a : arrays_) {
      std::vector<unsigned char> found(a.image.size());
      gpu_.copy_to_host(found.data(), a.device, found.size());
      if (a.written && a.bytes != 0) {
        std::memcpy(a.host, found.data() + a.first, a.bytes);
        std::memcpy(a.image.data() + a.first, found.data() + a.first, a.bytes);
      }
      if (found != a.image) FAIL_CHECK("a kernel wrote outside of its memory, or to its input");
    }
  }

 private:
  struct array {
    unsigned char *host = nullptr, *device = nullptr;
    std::size_t bytes = 0, first = 0;
    bool written = false;
    std::vector<unsigned char> image;
  };
  static constexpr std::size_t guard = 128;
  static constexpr unsigned char pattern = 0x5c;
  static arena& scratch() {
    static arena memory{0, cuda::gpu::memory()};
    return memory;
  }

  cuda::gpu& gpu_;
  arena& memory_;
  arena_scope scope_;
  std::vector<array> arrays_;
};

/// Models mixbit::backend over host memory, with the device's kernels.
struct staged {
  static constexpr device place = device::cpu;
  static constexpr bool exact_probe = true;
  static constexpr std::string_view name = "staged";

  staged() = default;
  explicit staged(thread_pool&) {}

  static memory_source memory() { return {}; }
  void copy_to_host(void* to, void const* from, std::size_t n) const { std::memmove(to, from, n); }
  void copy_from_host(void* to, void const* from, std::size_t n) const { std::memmove(to, from, n); }
  void zero(void* p, std::size_t n) const { std::memset(p, 0, n); }
  void synchronize() const {}

  void amax(amax_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.amax = s.on_device(a.amax, groups(a) * sizeof(float), true);
    a.flags = s.on_device(a.flags, sizeof *a.flags, true);
    the_gpu().amax(a);
    s.finish();
  }
  void fake_quantize(fake_quantize_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.y = s.tensor(a.y, true);
    a.amax = s.on_device(a.amax, groups(a) * sizeof(float), false);
    a.flags = s.on_device(a.flags, sizeof *a.flags, true);
    a.tensor_amax = s.on_device(a.tensor_amax, sizeof(float), false);
    the_gpu().fake_quantize(a);
    s.finish();
  }
  void encode(encode_args a) const {
    staging s{the_gpu()};
    auto const size = storage_size_of(a.how, a.x, a.groups);
    a.x = s.tensor(a.x, false);
    a.amax = s.on_device(a.amax, groups(a) * sizeof(float), false);
    a.codes = s.on_device(a.codes, static_cast<std::size_t>(size.payload), true);
    a.scales = s.on_device(a.scales, static_cast<std::size_t>(size.scales), true);
    a.flags = s.on_device(a.flags, sizeof *a.flags, true);
    a.tensor_amax = s.on_device(a.tensor_amax, sizeof(float), false);
    a.tensor_scale = s.on_device(a.tensor_scale, sizeof(float), true);
    the_gpu().encode(a);
    s.finish();
  }
  void decode(decode_args a) const {
    staging s{the_gpu()};
    auto const size = storage_size_of(a.how, a.y, a.groups);
    a.y = s.tensor(a.y, true);
    a.codes = s.on_device(a.codes, static_cast<std::size_t>(size.payload), false);
    a.scales = s.on_device(a.scales, static_cast<std::size_t>(size.scales), false);
    a.tensor_scale = s.on_device(a.tensor_scale, sizeof(float), false);
    the_gpu().decode(a);
    s.finish();
  }
  void backward_mask(backward_mask_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.grad = s.tensor(a.grad, true);
    a.amax = s.on_device(a.amax, groups(a) * sizeof(float), false);
    the_gpu().backward_mask(a);
    s.finish();
  }
  void subtract(subtract_args a) const {
    staging s{the_gpu()};
    a.a = s.tensor(a.a, false);
    a.b = s.tensor(a.b, false);
    a.y = s.tensor(a.y, true);
    the_gpu().subtract(a);
    s.finish();
  }
  void gradient_score(gradient_score_args a) const {
    staging s{the_gpu()};
    a.grad = s.tensor(a.grad, false);
    a.difference = s.tensor(a.difference, false);
    a.sum = s.on_device(a.sum, sizeof(double), true);
    the_gpu().gradient_score(a);
    s.finish();
  }
  void scale_channels(scale_channels_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.y = s.tensor(a.y, true);
    a.scale = s.on_device(a.scale, static_cast<std::size_t>(a.period) * sizeof(float), false);
    the_gpu().scale_channels(a);
    s.finish();
  }

  void histogram(histogram_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.top = s.on_device(a.top, groups(a) * sizeof(float), false);
    a.counts = s.on_device(a.counts, groups(a) * static_cast<std::size_t>(a.bins) * sizeof(std::uint64_t), true);
    a.flags = s.on_device(a.flags, sizeof *a.flags, true);
    the_gpu().histogram(a);
    s.finish();
  }
  void sum(sum_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.sum = s.on_device(a.sum, groups(a) * sizeof(double), true);
    a.flags = s.on_device(a.flags, sizeof *a.flags, true);
    the_gpu().sum(a);
    s.finish();
  }
  void extremes(extremes_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.low = s.on_device(a.low, groups(a) * sizeof(float), true);
    a.high = s.on_device(a.high, groups(a) * sizeof(float), true);
    a.flags = s.on_device(a.flags, sizeof *a.flags, true);
    the_gpu().extremes(a);
    s.finish();
  }
  void shift(shift_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.y = s.tensor(a.y, true);
    a.value = s.on_device(a.value, groups(a) * sizeof(float), false);
    the_gpu().shift(a);
    s.finish();
  }
  void hadamard(hadamard_args a) const {
    staging s{the_gpu()};
    a.x = s.tensor(a.x, false);
    a.y = s.tensor(a.y, true);
    the_gpu().hadamard(a);
    s.finish();
  }

 private:
  template <class Args>
  static std::size_t groups(Args const& a) { return static_cast<std::size_t>(a.groups.group_count()); }
};

static_assert(backend<staged>);

}  // namespace cuda_tests
