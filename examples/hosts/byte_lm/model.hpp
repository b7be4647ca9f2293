// The whole model: a Llama over bytes, forward and backward, with the module names of Hugging Face.
//
//   auto model = byte_lm::load_model("data/byte-lm", pool);
//   auto logits = model.logits(windows.inputs());
//   model.backward(cross_entropy_gradient(pool, logits, windows.targets()));
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attention.hpp"
#include "config.hpp"
#include "layers.hpp"
#include "loss.hpp"
#include "mixbit/model/module.hpp"
#include "mlp.hpp"

namespace byte_lm {

/// x + attention(norm(x)), then x + mlp(norm(x)).
class decoder_layer {
 public:
  rms_norm input_layernorm, post_attention_layernorm;
  attention self_attn;
  gated_mlp mlp;

  decoder_layer(config const& c, executor_ref executor)
      : input_layernorm{make_rms_norm(c.hidden_size, c.rms_norm_eps, executor)},
        post_attention_layernorm{make_rms_norm(c.hidden_size, c.rms_norm_eps, executor)},
        self_attn{c, executor},
        mlp{c, executor} {}

  matrix forward(matrix x, batch_shape batch, rotary_embedding const& rotary) {
    x_ = std::move(x);
    attention_input_ = input_layernorm.forward(x_);
    middle_ = self_attn.forward(attention_input_, batch, rotary);
    middle_ += x_;
    mlp_input_ = post_attention_layernorm.forward(middle_);
    matrix y = mlp.forward(mlp_input_);
    y += middle_;
    return y;
  }

  matrix const& input() const { return x_; }

  matrix backward(matrix const& grad_y, rotary_embedding const& rotary) {
    matrix grad_middle = post_attention_layernorm.backward(middle_, mlp.backward(mlp_input_, grad_y));
    grad_middle += grad_y;
    matrix grad_x = input_layernorm.backward(x_, self_attn.backward(attention_input_, grad_middle, rotary));
    grad_x += grad_middle;
    return grad_x;
  }

  /// Calls f(name, linear) for each linear layer, in the order of execution.
  template <class F>
  void for_each_linear(std::string const& prefix, F&& f) {
    f(prefix + "self_attn.q_proj", self_attn.q_proj);
    f(prefix + "self_attn.k_proj", self_attn.k_proj);
    f(prefix + "self_attn.v_proj", self_attn.v_proj);
    f(prefix + "self_attn.o_proj", self_attn.o_proj);
    f(prefix + "mlp.gate_proj", mlp.gate_proj);
    f(prefix + "mlp.up_proj", mlp.up_proj);
    f(prefix + "mlp.down_proj", mlp.down_proj);
  }

 private:
  matrix x_, attention_input_, middle_, mlp_input_;  // kept from forward to backward
};

class language_model {
 public:
  config shapes;
  embedding embed_tokens;
  std::vector<decoder_layer> layers;
  rms_norm norm;
  linear_used_once lm_head;  ///< shares its weight with embed_tokens where the config ties them

  /// Weights have their shapes and no values yet.
  language_model(config const& c, executor_ref executor)
      : shapes{c},
        embed_tokens{std::make_shared<parameter>(c.vocab_size, c.hidden_size)},
        norm{make_rms_norm(c.hidden_size, c.rms_norm_eps, executor)},
        lm_head{c.tie_word_embeddings ? linear{embed_tokens.weight, executor}
                                      : make_linear(c.vocab_size, c.hidden_size, executor)},
        executor_{executor},
        rotary_{c.head_dim, c.rope_theta} {
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) layers.emplace_back(c, executor);
  }

  executor_ref executor() const { return executor_; }

  /// Logits [tokens, vocabulary] of the byte after each token. Throws `usage` for windows that are too long and
  /// for bytes outside of the vocabulary.
  matrix logits(token_view const& tokens) {
    check(tokens);
    rotary_.prepare(tokens.length);
    tokens_ = tokens;
    return logits_from(0, embed_tokens.forward(tokens));
  }

  /// The same of the last tokens from layer `first` on, x being what layer_inputs() had there.
  matrix logits_from(std::size_t first, matrix x) {
    for (; first < layers.size(); ++first)
      x = layers[first].forward(std::move(x), {tokens_.windows, tokens_.length}, rotary_);
    last_ = std::move(x);
    head_input_ = norm.forward(last_);
    return lm_head.forward(head_input_);
  }

  /// What each layer, and behind them the norm, was given in the last forward.
  std::vector<matrix> layer_inputs() const {
    std::vector<matrix> inputs;
    for (auto const& layer : layers) inputs.push_back(layer.input());
    inputs.push_back(last_);
    return inputs;
  }

  /// In which layer a module of for_each_linear runs; layers.size() for the head.
  std::size_t layer_of(std::string_view module) const {
    std::size_t i = 0;
    while (i < layers.size() && !module.starts_with(layer_prefix(i))) ++i;
    return i;
  }

  /// Carries a gradient of the last logits back through every layer. Gradients are added to those parameters that
  /// have one; the tokens must still be there then.
  void backward(matrix const& grad_logits) {
    matrix grad = norm.backward(last_, lm_head.backward(head_input_, grad_logits));
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) grad = layer->backward(grad, rotary_);
    embed_tokens.backward(tokens_, grad);
  }

  /// Calls f(name, linear&) for every linear layer, named as in Hugging Face's model.
  template <class F>
  void for_each_linear(F&& f) {
    for (std::size_t i = 0; i < layers.size(); ++i) layers[i].for_each_linear(layer_prefix(i), f);
    f(std::string{"lm_head"}, lm_head);
  }

  /// The modules that mixbit may quantize, by their names.
  template <class Visit>
  void walk(Visit&& visit) {
    auto const visit_linear = [&](std::string const& name, linear& l) {
      visit(mixbit::linear(name, l.slots, l.weight->value));
    };
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i].for_each_linear(layer_prefix(i), visit_linear);
      visit(mixbit::module(layer_prefix(i) + "self_attn", "attention", layers[i].self_attn.slots));
    }
    visit_linear("lm_head", lm_head);
  }

  /// Calls f(name, parameter&) for every tensor of the checkpoint; a tied head is not named again.
  template <class F>
  void for_each_parameter(F&& f) {
    f(std::string{"model.embed_tokens.weight"}, *embed_tokens.weight);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      f(layer_prefix(i) + "input_layernorm.weight", *layers[i].input_layernorm.weight);
      f(layer_prefix(i) + "post_attention_layernorm.weight", *layers[i].post_attention_layernorm.weight);
      layers[i].for_each_linear(layer_prefix(i), [&](std::string const& n, linear& l) { f(n + ".weight", *l.weight); });
    }
    f(std::string{"model.norm.weight"}, *norm.weight);
    if (!shapes.tie_word_embeddings) f(std::string{"lm_head.weight"}, *lm_head.weight);
  }

 private:
  static std::string layer_prefix(std::size_t i) { return "model.layers." + std::to_string(i) + "."; }

  void check(token_view const& tokens) const {
    if (tokens.windows < 1 || tokens.length < 1 || tokens.length > shapes.max_position_embeddings)
      mixbit::fail(mixbit::error_id::usage, tokens.windows, " windows of ", tokens.length,
                   " tokens; max_position_embeddings allows 1 to ", shapes.max_position_embeddings, " tokens");
    for (std::int64_t w = 0; w < tokens.windows; ++w)
      for (std::int64_t t = 0; t < tokens.length; ++t)
        if (tokens.row(w)[t] >= shapes.vocab_size)
          mixbit::fail(mixbit::error_id::usage, "window ", w, " has the byte ", int{tokens.row(w)[t]},
                       " at ", t, ", and vocab_size is ", shapes.vocab_size);
  }

  executor_ref executor_;
  rotary_embedding rotary_;
  token_view tokens_;
  matrix last_, head_input_;  // kept from forward to backward
};

/// Nats a byte over windows, `batch` of them at a time.
inline double evaluate(language_model& model, byte_windows const& windows, std::int64_t batch = 8) {
  double sum = 0;
  for (std::int64_t first = 0; first < windows.count; first += batch) {
    auto const part = windows.slice(first, batch);
    double const loss = cross_entropy(model.executor(), model.logits(part.inputs()), part.targets());
    sum += loss * static_cast<double>(part.count);
  }
  return sum / static_cast<double>(windows.count);
}

}  // namespace byte_lm
