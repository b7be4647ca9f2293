// The shapes of a Llama. config_file.hpp reads them.
#pragma once

#include <cstdint>

namespace byte_lm {

/// Named as in a Hugging Face config.json.
struct config {
  std::int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  std::int64_t num_hidden_layers = 0, num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  std::int64_t max_position_embeddings = 2048;
  float rms_norm_eps = 1e-6f, rope_theta = 10000.0f;
  bool tie_word_embeddings = false;
};

}  // namespace byte_lm
