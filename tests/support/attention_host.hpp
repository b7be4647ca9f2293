// A model with key/value caches to search: two attentions with their projections.
#pragma once

#include <deque>
#include <string>

#include "mixbit/config/presets.hpp"
#include "support/named_chain.hpp"

namespace mixbit::test {

/// Two blocks of one head each, x + o(softmax(q kᵀ) v), with quantizers on keys and values.
struct attention_host {
  static constexpr Eigen::Index width = 32, head_dim = 16, tokens = 12;
  struct block {
    linear_layer q, k, v, o;
    quantizer_slots<cpu_backend> slots;
  };
  std::deque<block> blocks;
  bool attention_first = false;  ///< in the walk

  attention_host() {
    for (unsigned i = 0; i < 2; ++i) {
      auto& b = blocks.emplace_back();
      for (auto* layer : {&b.q, &b.k, &b.v}) layer->weight = random_matrix(head_dim, width, 60 + ++seed_) / 5.0f;
      b.o.weight = random_matrix(width, head_dim, 90 + i) / 4.0f;
    }
  }
  static matrix attend(block& b, matrix const& x) {
    matrix const q = b.q.forward(x);
    matrix k = b.k.forward(x), v = b.v.forward(x);
    apply(b.slots, k, 1);
    apply(b.slots, v, 2);
    matrix p = (q * k.transpose() / 4.0f).array().exp();
    for (Eigen::Index r = 0; r < p.rows(); ++r) p.row(r) /= p.row(r).sum();
    return b.o.forward(p * v);
  }
  matrix forward(matrix x) {
    for (auto& b : blocks) x += attend(b, x);
    return x;
  }
  template <class Visit>
  void walk(Visit&& visit) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      auto& b = blocks[i];
      std::string const at = "layers." + std::to_string(i) + ".attn";
      if (attention_first) visit(module(at, "attention", b.slots));
      visit(linear(at + ".q_proj", b.q.slots, b.q.weight));
      visit(linear(at + ".k_proj", b.k.slots, b.k.weight));
      visit(linear(at + ".v_proj", b.v.slots, b.v.weight));
      if (!attention_first) visit(module(at, "attention", b.slots));
      visit(linear(at + ".o_proj", b.o.slots, b.o.weight));
    }
  }

  static matrix batch(int i) { return random_matrix(tokens, width, 7 + static_cast<unsigned>(i)); }
  search_steps steps() {
    return {.calibration = 2,
            .scoring = 2,
            .calibrate = [this](int i) { forward(batch(i)); },
            .logits = [this](int i, logits_sink const& take) { take(read_view(forward(batch(i)))); },
            .metric = [this](int i) { return static_cast<double>(forward(batch(i)).squaredNorm()); }};
  }

 private:
  unsigned seed_ = 0;
};

inline constexpr std::int64_t cached = 40, a_token = 16 + 16;

inline search_options with_cache() {
  search_options o{.formats = {preset("INT8_DEFAULT_CFG")}, .target = 12.0};
  o.method = score_method::kl_div;
  o.kv_cache = kv_cache_cost{.tokens = cached, .owners = {{"layers.*.attn", 1, 16, 16}}};
  return o;
}
inline search_options with_searched_cache() {
  auto o = with_cache();
  o.module_search_spaces = {{{"layers.*.attn"}, {preset("NVFP4_KV_CFG"), preset("FP8_KV_CFG")}, true}};
  return o;
}

}  // namespace mixbit::test
