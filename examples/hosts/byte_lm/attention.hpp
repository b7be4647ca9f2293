// Causal self-attention with grouped queries and rotary position embeddings, over a batch of windows.
//
// Rows of every matrix are tokens, window after window; columns are heads side by side. Work is shared out by
// (window, key/value head): each piece owns its query heads and its key/value head, so nothing is summed across pieces.
#pragma once

#include <cmath>
#include <cstdint>

#include "config.hpp"
#include "heads.hpp"
#include "layers.hpp"

namespace byte_lm {

/// How many windows of how many tokens the rows of a matrix are.
struct batch_shape {
  std::int64_t windows = 0, length = 0;
};

/// Rotations by position, in the pairing of Hugging Face's Llama: feature i turns with feature i + head_dim / 2.
class rotary_embedding {
 public:
  rotary_embedding(std::int64_t head_dim, float theta) : half_{head_dim / 2}, theta_{theta} {}

  /// Makes the tables long enough for windows of `length` tokens.
  void prepare(std::int64_t length) {
    if (length <= cosine_.rows()) return;
    cosine_.resize(length, half_);
    sine_.resize(length, half_);
    for (index i = 0; i < half_; ++i) {
      float const frequency = 1.0f / std::pow(theta_, static_cast<float>(2 * i) / static_cast<float>(2 * half_));
      for (index t = 0; t < length; ++t) {
        float const angle = static_cast<float>(t) * frequency;
        cosine_(t, i) = std::cos(angle);
        sine_(t, i) = std::sin(angle);
      }
    }
  }

  /// Turns every head of one row, the token at `position`; direction -1 turns back, which is also the gradient.
  void rotate(float* row, std::int64_t heads, std::int64_t position, float direction) const {
    float const* const c = cosine_.row(position).data();
    float const* const s = sine_.row(position).data();
    for (std::int64_t h = 0; h < heads; ++h) {
      float* const lower = row + h * 2 * half_;
      float* const upper = lower + half_;
      for (index i = 0; i < half_; ++i) {
        float const a = lower[i], b = upper[i], sine = direction * s[i];
        lower[i] = a * c[i] - b * sine;
        upper[i] = b * c[i] + a * sine;
      }
    }
  }

 private:
  index half_;
  float theta_;
  matrix cosine_, sine_;  // [position, head_dim / 2]
};

class attention {
 public:
  linear_used_once q_proj, k_proj, v_proj, o_proj;
  mixbit::quantizer_slots<backend> slots{};  ///< of queries, keys, values and probabilities: class "attention"

  attention(config const& c, executor_ref executor)
      : q_proj{make_linear(c.num_attention_heads * c.head_dim, c.hidden_size, executor)},
        k_proj{make_linear(c.num_key_value_heads * c.head_dim, c.hidden_size, executor)},
        v_proj{make_linear(c.num_key_value_heads * c.head_dim, c.hidden_size, executor)},
        o_proj{make_linear(c.hidden_size, c.num_attention_heads * c.head_dim, executor)},
        executor_{executor},
        heads_{c.num_attention_heads},
        kv_heads_{c.num_key_value_heads},
        head_dim_{c.head_dim},
        scale_{1.0f / std::sqrt(static_cast<float>(c.head_dim))} {}

  /// x [tokens, hidden] to [tokens, hidden]; keeps what backward needs.
  matrix forward(matrix const& x, batch_shape batch, rotary_embedding const& rotary) {
    batch_ = batch;
    queries_ = q_proj.forward(x);
    keys_ = k_proj.forward(x);
    values_ = v_proj.forward(x);
    rotate(rotary, queries_, keys_, 1.0f);
    probabilities_.resize(batch.windows * heads_ * batch.length, batch.length);
    context_.resize(x.rows(), heads_ * head_dim_);
    if (slots.live()) attend_quantized();
    else
      for_each_head([&](std::int64_t w, std::int64_t h) { weigh(w, h), mix(w, h); });
    return o_proj.forward(context_);
  }

  /// The gradient of x, for the x of the last forward. Throws `config_conflict` for quantizers of keys and the like
  /// that do more than round.
  matrix backward(matrix const& x, matrix const& grad_y, rotary_embedding const& rotary) {
    require_straight_through(slots);
    matrix const grad_context = o_proj.backward(context_, grad_y);
    grad_queries_.resize(queries_.rows(), queries_.cols());
    grad_keys_.resize(keys_.rows(), keys_.cols());
    grad_values_.resize(values_.rows(), values_.cols());
    for_each_head([&](std::int64_t w, std::int64_t h) { attend_backward(w, h, grad_context); });
    rotate(rotary, grad_queries_, grad_keys_, -1.0f);
    matrix grad_x = q_proj.backward(x, grad_queries_);
    grad_x += k_proj.backward(x, grad_keys_);
    grad_x += v_proj.backward(x, grad_values_);
    return grad_x;
  }

 private:
  void rotate(rotary_embedding const& rotary, matrix& queries, matrix& keys, float direction) const {
    for_row_blocks(executor_, queries.rows(), [&](index first, index count) {
      for (index r = first; r < first + count; ++r) {
        rotary.rotate(queries.row(r).data(), heads_, r % batch_.length, direction);
        rotary.rotate(keys.row(r).data(), kv_heads_, r % batch_.length, direction);
      }
    });
  }

  /// The columns of head h in the rows of window w.
  template <class Matrix>
  auto head(Matrix& m, std::int64_t w, std::int64_t h) const {
    return m.block(w * batch_.length, h * head_dim_, batch_.length, head_dim_);
  }
  auto probabilities(std::int64_t w, std::int64_t h) {
    return probabilities_.middleRows((w * heads_ + h) * batch_.length, batch_.length);
  }

  /// Calls f(window, kv_head) for all of them, in parallel.
  template <class F>
  void for_each_head(F&& f) {
    executor_.parallel_for(batch_.windows * kv_heads_, [&](std::int64_t i) { f(i / kv_heads_, i % kv_heads_); });
  }

  /// The cache holds keys behind their rotation, so that is what is quantized.
  void attend_quantized() {
    head_tensor q{queries_.data(), batch_.windows, heads_, batch_.length, head_dim_},
        k{keys_.data(), batch_.windows, kv_heads_, batch_.length, head_dim_},
        v{values_.data(), batch_.windows, kv_heads_, batch_.length, head_dim_};
    apply(slots, q, 0);
    apply(slots, k, 1);
    apply(slots, v, 2);
    for_each_head([&](std::int64_t w, std::int64_t h) { weigh(w, h); });
    head_tensor p{probabilities_.data(), batch_.windows * heads_, 1, batch_.length, batch_.length};
    apply(slots, p, 3);
    for_each_head([&](std::int64_t w, std::int64_t h) { mix(w, h); });
  }

  /// probabilities = softmax(mask(q · kᵀ · scale)), for each query head that shares this key/value head.
  void weigh(std::int64_t window, std::int64_t kv_head) {
    auto const k = head(keys_, window, kv_head);
    std::int64_t const group = heads_ / kv_heads_;
    for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      auto p = probabilities(window, h);
      multiply_transposed(head(queries_, window, h), k, p);
      for (index t = 0; t < p.rows(); ++t) {  // token t sees the tokens 0 .. t
        auto seen = p.row(t).head(t + 1).array();
        seen = ((seen - seen.maxCoeff()) * scale_).exp();
        seen *= 1.0f / seen.sum();
        p.row(t).tail(p.cols() - t - 1).setZero();
      }
    }
  }

  /// context = probabilities · v, for the same.
  void mix(std::int64_t window, std::int64_t kv_head) {
    auto const v = head(values_, window, kv_head);
    std::int64_t const group = heads_ / kv_heads_;
    for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h)
      multiply(probabilities(window, h), v, head(context_, window, h));
  }

  /// The gradients of this key/value head and of its query heads. Through the softmax: dS = P · (dP - Σ dP·P).
  void attend_backward(std::int64_t window, std::int64_t kv_head, matrix const& grad_context) {
    auto const k = head(keys_, window, kv_head), v = head(values_, window, kv_head);
    auto grad_k = head(grad_keys_, window, kv_head), grad_v = head(grad_values_, window, kv_head);
    grad_k.setZero();
    grad_v.setZero();
    matrix grad_scores(batch_.length, batch_.length);
    std::int64_t const group = heads_ / kv_heads_;
    for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      auto const p = probabilities(window, h);
      auto const q = head(queries_, window, h);
      auto const grad = head(grad_context, window, h);
      multiply_transposed(grad, v, grad_scores);
      for (index t = 0; t < p.rows(); ++t) {  // P is 0 beyond t, and so is the gradient
        auto g = grad_scores.row(t).array();
        g = p.row(t).array() * (g - (g * p.row(t).array()).sum()) * scale_;
      }
      multiply(grad_scores, k, head(grad_queries_, window, h));
      add_transposed_multiply(grad_scores, q, grad_k);
      add_transposed_multiply(p, grad, grad_v);
    }
  }

  executor_ref executor_;
  std::int64_t heads_, kv_heads_, head_dim_;
  float scale_;
  // kept from forward to backward; reused from batch to batch
  batch_shape batch_;
  matrix queries_, keys_, values_;  // after rotation
  matrix probabilities_;            // [windows * heads * length, length]
  matrix context_;                  // the input of o_proj
  matrix grad_queries_, grad_keys_, grad_values_;
};

}  // namespace byte_lm
