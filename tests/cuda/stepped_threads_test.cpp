// Copies of one CUDA backend in several host threads, whose sums share their memory. Stepped through on the CPU,
// kernels run in the launch, so that a call which another one cuts in two is seen.
#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "cuda/stepping.hpp"

using namespace mixbit;

namespace {

constexpr int calls = 100;

/// Sums and scores of tensors full of `value`, each of more than one chunk and piece: how many calls went wrong.
int wrong_results(cuda_tests::stepped gpu, float value) {
  constexpr std::int64_t size = 70000;
  std::vector<float> const x(size, value);
  geometry const g = dense_geometry(dtype::f32, std::vector<std::int64_t>{size});
  double const total = static_cast<double>(value) * size, squares = total * value * value * value;
  int wrong = 0;
  for (int i = 0; i < calls; ++i) {
    double sum = 0, score = 0;
    gpu.sum({{g, x.data()}, per_tensor(g), sum_of::values, &sum, nullptr});
    gpu.gradient_score({{g, x.data()}, {g, x.data()}, &score});
    wrong += sum != total || score != squares;
  }
  return wrong;
}

}  // namespace

TEST_CASE("threads that sum with copies of one CUDA backend do not mix their chunks") {
  cuda_tests::stepped const gpu;
  int wrong[2] = {};
  {
    std::jthread const one{[&] { wrong[0] = wrong_results(gpu, 1.0f); }};
    std::jthread const two{[&] { wrong[1] = wrong_results(gpu, 2.0f); }};
  }
  CHECK(wrong[0] == 0);
  CHECK(wrong[1] == 0);
}
