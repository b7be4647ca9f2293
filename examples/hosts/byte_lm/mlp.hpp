// SwiGLU: down(silu(gate(x)) · up(x)), with silu(g) = g · sigmoid(g).
#pragma once

#include "config.hpp"
#include "layers.hpp"

namespace byte_lm {

class gated_mlp {
 public:
  linear_used_once gate_proj, up_proj, down_proj;

  gated_mlp(config const& c, executor_ref executor)
      : gate_proj{make_linear(c.intermediate_size, c.hidden_size, executor)},
        up_proj{make_linear(c.intermediate_size, c.hidden_size, executor)},
        down_proj{make_linear(c.hidden_size, c.intermediate_size, executor)},
        executor_{executor} {}

  /// x [tokens, hidden] to [tokens, hidden]; keeps what backward needs.
  matrix forward(matrix const& x) {
    gate_ = gate_proj.forward(x);
    up_ = up_proj.forward(x);
    sigmoid_.resize(gate_.rows(), gate_.cols());
    hidden_.resize(gate_.rows(), gate_.cols());
    for_row_blocks(executor_, x.rows(), [&](index first, index count) {
      auto const gate = gate_.middleRows(first, count).array(), up = up_.middleRows(first, count).array();
      auto sigmoid = sigmoid_.middleRows(first, count).array();
      sigmoid = 1.0f / (1.0f + (-gate).exp());
      hidden_.middleRows(first, count).array() = gate * sigmoid * up;
    });
    return down_proj.forward(hidden_);
  }

  /// The gradient of x, for the x of the last forward. silu'(g) = s · (1 + g · (1 - s)), s = sigmoid(g).
  matrix backward(matrix const& x, matrix const& grad_y) {
    matrix const grad_hidden = down_proj.backward(hidden_, grad_y);
    grad_gate_.resize(gate_.rows(), gate_.cols());
    grad_up_.resize(gate_.rows(), gate_.cols());
    for_row_blocks(executor_, x.rows(), [&](index first, index count) {
      auto const gate = gate_.middleRows(first, count).array(), up = up_.middleRows(first, count).array();
      auto const s = sigmoid_.middleRows(first, count).array();
      auto const grad = grad_hidden.middleRows(first, count).array();
      grad_up_.middleRows(first, count).array() = grad * gate * s;
      grad_gate_.middleRows(first, count).array() = grad * up * s * (1.0f + gate * (1.0f - s));
    });
    matrix grad_x = gate_proj.backward(x, grad_gate_);
    grad_x += up_proj.backward(x, grad_up_);
    return grad_x;
  }

 private:
  executor_ref executor_;
  // kept from forward to backward; reused from batch to batch
  matrix gate_, up_, sigmoid_;
  matrix hidden_;  // the input of down_proj
  matrix grad_gate_, grad_up_;
};

}  // namespace byte_lm
