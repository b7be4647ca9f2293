// A two-layer network on a GPU: calibrates and quantizes it, then searches the bits of each layer. Run as a test; says
// that it skips where there is no device.
#include <cmath>
#include <iostream>

#include "mixbit/autoquant/search.hpp"
#include "mixbit/calib/default_algorithms.hpp"
#include "mixbit/calib/default_calibrators.hpp"
#include "mixbit/config/presets.hpp"
#include "network.hpp"

namespace {

std::vector<float> waves(std::int64_t n, float frequency, float size) {
  std::vector<float> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = size * std::sin(frequency * static_cast<float>(i + 1));
  return v;
}

int require(bool holds, char const* what) {
  std::cout << (holds ? "ok: " : "FAILED: ") << what << '\n';
  return holds ? 0 : 1;
}

int run() {
  using namespace mixbit;
  cudaStream_t stream = nullptr;
  cuda::require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  cuda::gpu const gpu{stream};
  gpu.self_test();
  mlp::network net{gpu, 64, 128, 256, 32};
  net.set(net.up, waves(net.up.size(), 0.7f, 0.1f));
  net.set(net.down, waves(net.down.size(), 0.9f, 0.1f));
  net.set(net.input, waves(net.input.size(), 0.3f, 1.0f));
  net.set(net.target, waves(net.target.size(), 0.11f, 1.0f));
  float const plain = net.loss();

  model<cuda::gpu> m{net, {.device = gpu}};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(); });
  float const int8 = net.loss();
  int failed = require(std::isfinite(plain) && int8 != plain && std::fabs(int8 - plain) < 0.05f * plain,
                       "INT8 changes the loss a little");

  search_options options;
  options.formats = {preset("INT8_DEFAULT_CFG"), preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG")};
  options.target = 6.5;
  search<cuda::gpu> s{m, options};
  auto const step = [&](int) {
    net.forward();
    net.backward();
  };
  s.run({1, 1, [&](int) { net.forward(); }, step, {}});
  auto const chosen = s.choose(options.target);
  s.apply(chosen);
  float const mixed = net.loss();
  std::cout << "loss " << plain << ", INT8 " << int8 << ", searched " << mixed << '\n';
  failed += require(std::isfinite(mixed) && mixed != plain, "the searched recipes are in use");
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main() {
  if (mixbit::cuda::device_count() == 0) {
    std::cout << "skipped: example cuda_mlp: no CUDA device\n";
    return 0;
  }
  try {
    return run();
  } catch (mixbit::error const& e) {
    std::cerr << e.what() << '\n';
    return 2;
  }
}
