#include "ops.hpp"

namespace mlp {
namespace {

constexpr int threads = 256;
unsigned blocks(std::int64_t n) { return static_cast<unsigned>((n + threads - 1) / threads); }

// templates, so that another file of the program may have kernels of these names
template <class T>
__global__ void relu_kernel(T const* x, T* y, std::int64_t n) {
  std::int64_t const i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] > T{} ? x[i] : T{};
}

template <class T>
__global__ void relu_backward_kernel(T const* y, T* grad, std::int64_t n) {
  std::int64_t const i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n && !(y[i] > T{})) grad[i] = T{};
}

template <class T>
__global__ void mean_squares_kernel(T const* y, T const* target, T* grad, T* loss, std::int64_t n) {
  __shared__ T sums[threads];
  T sum{};
  for (std::int64_t i = threadIdx.x; i < n; i += threads) {
    T const d = y[i] - target[i];
    grad[i] = 2 * d / static_cast<T>(n);
    sum += d * d / static_cast<T>(n);
  }
  sums[threadIdx.x] = sum;
  for (unsigned half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *loss = sums[0];
}

}  // namespace

void relu(float const* x, float* y, std::int64_t n, cudaStream_t stream) {
  relu_kernel<<<blocks(n), threads, 0, stream>>>(x, y, n);
}
void relu_backward(float const* y, float* grad, std::int64_t n, cudaStream_t stream) {
  relu_backward_kernel<<<blocks(n), threads, 0, stream>>>(y, grad, n);
}
void mean_squares(float const* y, float const* target, float* grad, float* loss, std::int64_t n, cudaStream_t stream) {
  mean_squares_kernel<<<1, threads, 0, stream>>>(y, target, grad, loss, n);
}

}  // namespace mlp
