// Calibrators on a backend whose memory the host cannot touch: what lies there goes through kernels and copies alone,
// the results are those of host memory, and what comes to the host is small.
#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <random>

#include "mixbit/calib/default_calibrators.hpp"
#include "mixbit/quantizer/tensor_quantizer.hpp"
#include "mixbit/reference/scalar.hpp"

using namespace mixbit;

namespace {

/// The scalar kernels over addresses that lie 2^46 bytes behind the memory that they mean.
struct far : reference::scalar {
  static constexpr std::uintptr_t distance = std::uintptr_t{1} << 46;
  inline static std::size_t to_host = 0;  ///< bytes copied to the host so far

  template <class T>
  static T* near(T* p) {
    return p ? reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) - distance) : p;
  }
  static memory_source memory() {
    return {[](std::size_t n) {
              auto const p = reinterpret_cast<std::uintptr_t>(::operator new(n, std::align_val_t{64}));
              return reinterpret_cast<void*>(p + distance);
            },
            [](void* p) { ::operator delete(near(p), std::align_val_t{64}); }};
  }
  void copy_to_host(void* to, void const* from, std::size_t bytes) const {
    to_host += bytes;
    scalar::copy_to_host(to, near(from), bytes);
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) const {
    scalar::copy_from_host(near(to), from, bytes);
  }
  void zero(void* p, std::size_t bytes) const { scalar::zero(near(p), bytes); }
  void amax(amax_args a) const {
    a.x.data = near(a.x.data), a.amax = near(a.amax), a.flags = near(a.flags);
    scalar::amax(a);
  }
  void histogram(histogram_args a) const {
    a.x.data = near(a.x.data), a.top = near(a.top), a.counts = near(a.counts), a.flags = near(a.flags);
    scalar::histogram(a);
  }
};
static_assert(backend<far>);

constexpr std::int64_t rows = 40, columns = 1600;

std::vector<float> batch(unsigned seed, float size) {
  std::vector<float> x(static_cast<std::size_t>(rows * columns));
  std::mt19937 random{seed};
  std::normal_distribution<float> normal;
  for (float& v : x) v = size * normal(random);
  x[7] = std::numeric_limits<float>::infinity();
  return x;
}

struct outcome {
  std::vector<float> amax;
  std::uint64_t nonfinite;
};

template <class B>
outcome calibrated(quantizer_attribute_config const& a) {
  B device;
  arena scratch{0, B::memory()};
  tensor_quantizer<B> q{"q", a, policy::stored};
  auto const by = calibrator_registry<B>{}.make({q.numerics().calibrator, q.numerics(), q.name()});
  float size = 1.0f;
  for (unsigned seed = 1; seed <= 4; ++seed, size *= 5.0f) {
    auto const x = batch(seed, size);
    buffer<B, float> there{device, x.size()};
    device.copy_from_host(there.data(), x.data(), x.size() * sizeof(float));
    geometry const shape = dense_geometry(dtype::f32, std::array{rows, columns});
    q.observe(device, scratch, const_tensor_ref{shape, there.data()}, by.get());
  }
  q.finish(device, *by, q);
  return {q.amax(device), q.nonfinite(device)};
}

}  // namespace

TEST_CASE("calibrators: over memory of a device they compute what they do over the host's") {
  calibrator_config const percentile{"histogram", {{"method", "percentile"}, {"percentile", 99.0}}};
  quantizer_attribute_config headroom{.num_bits = {2, 1}, .calibrator = "nvfp4_act_headroom"};
  headroom.block_sizes = block_config{{{-1, 16}}, quantizer_type::dynamic_type, bit_spec{4, 3}};
  quantizer_attribute_config const all[] = {
      {.calibrator = "histogram"}, {.calibrator = percentile}, {.axis = 0, .calibrator = percentile}, headroom};
  for (auto const& a : all) {
    CAPTURE(a.calibrator.name());
    outcome const here = calibrated<reference::scalar>(a), there = calibrated<far>(a);
    CHECK(there.amax == here.amax);
    CHECK(there.nonfinite == 4);
    CHECK(here.nonfinite == 4);
    CHECK(here.amax.at(0) > 0);
  }
}

TEST_CASE("calibrators: a batch brings a float a group to the host, and block amaxes a sixteenth of it") {
  auto const bytes = [](quantizer_attribute_config const& a, float later) {
    far device;
    arena scratch{0, far::memory()};
    tensor_quantizer<far> q{"q", a, policy::stored};
    auto const by = calibrator_registry<far>{}.make({q.numerics().calibrator, q.numerics(), q.name()});
    auto x = batch(1, 1.0f);
    buffer<far, float> there{device, x.size()};
    const_tensor_ref const view{dense_geometry(dtype::f32, std::array{rows, columns}), there.data()};
    device.copy_from_host(there.data(), x.data(), x.size() * sizeof(float));
    q.observe(device, scratch, view, by.get());
    far::to_host = 0;
    for (float& v : x) v *= later;
    device.copy_from_host(there.data(), x.data(), x.size() * sizeof(float));
    q.observe(device, scratch, view, by.get());
    return far::to_host;
  };
  quantizer_attribute_config const tensor{.calibrator = "histogram"}, channels{.axis = 0, .calibrator = "histogram"};
  CHECK(bytes(tensor, 1.0f) == 4);
  CHECK(bytes(tensor, 3.0f) == 4 + 2048 * 8);  // its range grows
  CHECK(bytes(channels, 1.0f) == 4 * rows);
  quantizer_attribute_config headroom{.num_bits = {2, 1}, .calibrator = "nvfp4_act_headroom"};
  headroom.block_sizes = block_config{{{-1, 16}}, quantizer_type::dynamic_type, bit_spec{4, 3}};
  CHECK(bytes(headroom, 1.0f) == 4 * rows * columns / 16);
}
