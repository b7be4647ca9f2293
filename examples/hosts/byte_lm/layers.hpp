// The simple layers: linear, RMS norm, embedding. Features are columns, tokens are rows.
//
// No layer here keeps activations: whoever called forward(x) still has x and hands it to backward again. So a layer may
// be used twice in a model, and it is the same x that it is scored on.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend.hpp"
#include "matmul.hpp"
#include "mixbit/adapters/eigen.hpp"
#include "mixbit/quantizer/score.hpp"
#include "tokens.hpp"

namespace byte_lm {

/// A trained tensor: its shape in a checkpoint, its value, and its gradient, which is empty unless training asks.
struct parameter {
  std::vector<std::int64_t> shape;
  matrix value;  ///< [out, in], or [1, n] for a vector of n
  matrix gradient{};

  explicit parameter(std::int64_t n) : shape{n}, value(1, n) {}
  parameter(std::int64_t out, std::int64_t in) : shape{out, in}, value(out, in) {}

  bool trains() const { return gradient.size() != 0; }
  void clear_gradient() { gradient.setZero(value.rows(), value.cols()); }
};

/// Shared, because an embedding and a head may be tied to one weight.
using parameter_ptr = std::shared_ptr<parameter>;

/// y = x · Wᵀ, without a bias. Its product goes through mixbit::apply, which is all that quantization needs.
struct linear {
  parameter_ptr weight;  ///< [out, in]
  executor_ref executor;
  mixbit::quantizer_slots<backend> slots{};

  auto product() const {
    return [this](auto const& x, auto const& w) { return times_transposed(executor, x, w); };
  }

  matrix forward(matrix const& x, mixbit::pending<backend>* kept = nullptr) const {
    return apply(slots, x, weight->value, product(), kept);
  }

  /// The gradient of x; adds to the weight's gradient where that is wanted. `kept` is what the forward was given.
  matrix backward(matrix const& x, matrix const& grad_y, mixbit::pending<backend>* kept = nullptr) const {
    if (kept != nullptr) score(slots, *kept, x, weight->value, product(), grad_y);
    else score(slots, x, weight->value, product(), grad_y);
    matrix grad_x;
    lend(slots, x, weight->value, [&](auto const& xq, auto const& wq) {
      if (weight->trains()) add_weight_gradient(grad_y, xq);
      grad_x = times(executor, grad_y, wq);
    });
    input_backward(slots, x, grad_x);
    return grad_x;
  }

 private:
  /// A clipped quantizer masks the gradient of this use of the weight before it joins the others.
  void add_weight_gradient(matrix const& grad_y, matrix_view const& xq) const {
    matrix gradient = matrix::Zero(weight->value.rows(), weight->value.cols());
    add_transposed_times(executor, grad_y, xq, gradient);
    weight_backward(slots, weight->value, gradient);
    weight->gradient += gradient;
  }
};

/// A layer that a model uses once in a forward, so that while a search scores it can keep what its candidates differ
/// by, from forward to backward, where the search's limit of memory holds it.
struct linear_used_once : linear {
  mixbit::pending<backend> kept{};

  matrix forward(matrix const& x) { return linear::forward(x, &kept); }
  matrix backward(matrix const& x, matrix const& grad_y) { return linear::backward(x, grad_y, &kept); }
};

inline linear make_linear(std::int64_t out, std::int64_t in, executor_ref executor) {
  return {std::make_shared<parameter>(out, in), executor};
}

/// y = x / sqrt(mean(x²) + eps) · w, row by row.
struct rms_norm {
  parameter_ptr weight;  ///< [features]
  float eps;
  executor_ref executor;

  matrix forward(matrix const& x) const {
    matrix y(x.rows(), x.cols());
    auto const w = weight->value.row(0).array();
    for_row_blocks(executor, x.rows(), [&](index first, index count) {
      for (index r = first; r < first + count; ++r) y.row(r).array() = x.row(r).array() * inverse_rms(x, r) * w;
    });
    return y;
  }

  /// With i = 1/rms and g = grad_y · w: grad_x = i · (g - x · i² · mean(g · x)).
  matrix backward(matrix const& x, matrix const& grad_y) const {
    if (weight->trains()) {
      for (index r = 0; r < x.rows(); ++r)
        weight->gradient.row(0).array() += grad_y.row(r).array() * x.row(r).array() * inverse_rms(x, r);
    }
    matrix grad_x(x.rows(), x.cols());
    auto const w = weight->value.row(0).array();
    for_row_blocks(executor, x.rows(), [&](index first, index count) {
      for (index r = first; r < first + count; ++r) {
        float const i = inverse_rms(x, r);
        auto const g = grad_y.row(r).array() * w;
        float const along = i * i * (g * x.row(r).array()).mean();
        grad_x.row(r).array() = i * (g - along * x.row(r).array());
      }
    });
    return grad_x;
  }

 private:
  float inverse_rms(matrix const& x, index r) const { return 1.0f / std::sqrt(x.row(r).array().square().mean() + eps); }
};

inline rms_norm make_rms_norm(std::int64_t features, float eps, executor_ref executor) {
  return {std::make_shared<parameter>(features), eps, executor};
}

/// One row of the weight a token. Tokens must be below the number of rows: the model checks that once.
struct embedding {
  parameter_ptr weight;  ///< [vocabulary, features]

  matrix forward(token_view const& tokens) const {
    matrix y(tokens.size(), weight->value.cols());
    for (std::int64_t w = 0; w < tokens.windows; ++w)
      for (std::int64_t t = 0; t < tokens.length; ++t)
        y.row(w * tokens.length + t) = weight->value.row(tokens.row(w)[t]);
    return y;
  }

  /// Only the weight has a gradient.
  void backward(token_view const& tokens, matrix const& grad_y) const {
    if (!weight->trains()) return;
    for (std::int64_t w = 0; w < tokens.windows; ++w)
      for (std::int64_t t = 0; t < tokens.length; ++t)
        weight->gradient.row(tokens.row(w)[t]) += grad_y.row(w * tokens.length + t);
  }
};

}  // namespace byte_lm
