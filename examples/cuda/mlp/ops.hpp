// What the host computes by itself on the device, beside cuBLAS's products. All calls are ordered on the stream.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace mlp {

/// y = max(x, 0); y may be x.
void relu(float const* x, float* y, std::int64_t n, cudaStream_t stream);
/// grad = 0 where the output of relu is 0.
void relu_backward(float const* y, float* grad, std::int64_t n, cudaStream_t stream);
/// grad = 2 (y - target) / n, and *loss = Σ (y - target)² / n; a block alone, for small results.
void mean_squares(float const* y, float const* target, float* grad, float* loss, std::int64_t n, cudaStream_t stream);

}  // namespace mlp
