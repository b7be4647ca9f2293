// The error of a weight as its layer's outputs feel it, block by block of input channels: dᵀ H d for d = w - Q(w) and
// H = 1/n Σ x xᵀ over the layer's inputs, of neighbouring channels alone (ModelOpt's local_hessian). It takes the place
// of the squared error in the search of amax_search.hpp.
//
// Computed in host memory, in float32, summed over the blocks of a group in double. A backend with a memory of its own
// gives its casts by copies, a slab of each candidate at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "mixbit/calib/amax_search.hpp"

namespace mixbit {

/// Σ x xᵀ of each block of channels: 4 · channels · block bytes.
class block_grams {
 public:
  /// `block` divides `channels`.
  block_grams(std::int64_t channels, std::int64_t block)
      : channels_{channels}, block_{block}, sums_(static_cast<std::size_t>(channels * block), 0.0f) {}

  std::int64_t channels() const { return channels_; }
  std::int64_t block() const { return block_; }
  std::int64_t tokens() const { return tokens_; }

  void add(executor_ref threads, matrix_ref<float const> x) {
    threads.parallel_for(channels_ / block_, [&](std::int64_t b) {
      float* const sum = of(b);
      for (std::int64_t t = 0; t < x.rows; ++t) {
        float const* const v = x.row(t) + b * block_;
        for (std::int64_t i = 0; i < block_; ++i)
          for (std::int64_t k = 0; k < block_; ++k) sum[i * block_ + k] += v[i] * v[k];
      }
    });
    tokens_ += x.rows;
  }
  /// Divides by the number of tokens, once, after the last.
  void finish() {
    if (tokens_ == 0) return;
    for (float& v : sums_) v /= static_cast<float>(tokens_);
  }
  float const* of(std::int64_t b) const { return sums_.data() + b * block_ * block_; }

 private:
  float* of(std::int64_t b) { return sums_.data() + b * block_ * block_; }

  std::int64_t channels_, block_, tokens_ = 0;
  std::vector<float> sums_;
};

namespace detail {

/// dᵀ H d for d = w - q, for any block. `scratch` holds 2 · block.
inline float quadratic_error(float const* w, float const* q, float const* h, std::int64_t block, float* scratch) {
  float* const d = scratch;
  float* const product = scratch + block;
  for (std::int64_t i = 0; i < block; ++i) d[i] = w[i] - q[i], product[i] = 0.0f;
  for (std::int64_t i = 0; i < block; ++i)
    for (std::int64_t k = 0; k < block; ++k) product[k] += d[i] * h[i * block + k];
  float error = 0;
  for (std::int64_t i = 0; i < block; ++i) error += product[i] * d[i];
  return error;
}

/// The same for blocks of 16, ModelOpt's default: in vectors that stay in registers, which compilers do not make of the
/// loops above (measured: 6 ns an element against 1.2).
inline float quadratic_error_of_16(float const* w, float const* q, float const* h) {
  using four = float __attribute__((vector_size(16)));
  float d[16];
  for (int i = 0; i < 16; ++i) d[i] = w[i] - q[i];
  four product[4] = {}, part, error = {};
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 4; ++k) {
      std::memcpy(&part, h + i * 16 + 4 * k, sizeof part);
      product[k] += part * d[i];
    }
  for (int k = 0; k < 4; ++k) {
    std::memcpy(&part, d + 4 * k, sizeof part);
    error += part * product[k];
  }
  return (error[0] + error[1]) + (error[2] + error[3]);
}

}  // namespace detail

/// A cast_error. A weight is [rows, channels]; where a block crosses groups, each takes the block's error for as many
/// channels as lie in it, as in ModelOpt.
template <backend B>
class local_hessian_error {
 public:
  local_hessian_error(B& device, block_grams const& h, executor_ref threads)
      : device_{device}, h_{h}, threads_{threads} {}

  void operator()(cast_slab const& s, double* sum) {
    if constexpr (B::place == device::cpu) {
      add(s, s.weight.as<float>(), s.cast.as<float>(), sum);
    } else {
      auto const w = fetch_floats(device_, s.weight), q = fetch_floats(device_, s.cast);
      std::vector<double> sums(static_cast<std::size_t>(s.groups.group_count()));
      device_.copy_to_host(sums.data(), sum, sums.size() * sizeof(double));
      add(s, w.data(), q.data(), sums.data());
      device_.copy_from_host(sum, sums.data(), sums.size() * sizeof(double));
    }
  }

 private:
  void add(cast_slab const& s, float const* w, float const* q, double* sum) {
    threads_.parallel_for(s.groups.groups[0], [&](std::int64_t g) {  // rows of one piece share groups with no other
      std::vector<float> scratch(static_cast<std::size_t>(2 * h_.block()));
      std::int64_t const first = g * s.groups.block[0], last = std::min(first + s.groups.block[0], s.weight.shape[0]);
      double* const sums = sum + g * s.groups.groups[1];
      for (std::int64_t row = first; row < last; ++row)
        add_row(s, w + row * h_.channels(), q + row * h_.channels(), scratch.data(), sums);
    });
  }

  void add_row(cast_slab const& s, float const* w, float const* q, float* scratch, double* sums) {
    std::int64_t const block = h_.block(), width = s.groups.block[1];
    for (std::int64_t at = 0; at < h_.channels(); at += block) {
      float const* const h = h_.of(at / block);
      double const error = block == 16 ? detail::quadratic_error_of_16(w + at, q + at, h)
                                       : detail::quadratic_error(w + at, q + at, h, block, scratch);
      for (std::int64_t k = at; k < at + block;) {
        std::int64_t const group = k / width, next = std::min(at + block, (group + 1) * width);
        sums[group] += error * static_cast<double>(next - k);
        k = next;
      }
    }
  }

  B& device_;
  block_grams const& h_;
  executor_ref threads_;
};

}  // namespace mixbit
