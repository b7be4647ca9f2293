// Which operations come before the linear layers, so that the scales of SmoothQuant and AWQ can go into them: each norm
// before what reads it, and up_proj's rows before down_proj, whose input is silu(gate) · up.
#pragma once

#include <string>
#include <vector>

#include "mixbit/model/preceding_op.hpp"
#include "mixbit/model/shared_state.hpp"
#include "model.hpp"

namespace byte_lm {

/// Of o_proj there is none: several query heads read one head of v_proj. The last norm's consumer, lm_head, is left out
/// where it shares its weight with the embedding.
inline std::vector<mixbit::preceding_op> preceding_ops(language_model& model) {
  std::vector<mixbit::preceding_op> ops;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    std::string const layer = "model.layers." + std::to_string(i) + ".";
    auto& l = model.layers[i];
    ops.push_back(mixbit::preceding_norm(
        layer + "input_layernorm", l.input_layernorm.weight->value,
        {layer + "self_attn.q_proj", layer + "self_attn.k_proj", layer + "self_attn.v_proj"}));
    ops.push_back(mixbit::preceding_norm(layer + "post_attention_layernorm", l.post_attention_layernorm.weight->value,
                                         {layer + "mlp.gate_proj", layer + "mlp.up_proj"}));
    ops.push_back(mixbit::preceding_linear(layer + "mlp.up_proj", {layer + "mlp.down_proj"}));
  }
  if (!model.shapes.tie_word_embeddings)
    ops.push_back(mixbit::preceding_norm("model.norm", model.norm.weight->value, {"lm_head"}));
  return ops;
}

/// Of those what ModelOpt's exporter folds AWQ's scales into: norms whose consumers have one scale.
inline std::vector<mixbit::preceding_op> awq_folds(language_model& model, mixbit::model<backend>& quantized) {
  auto ops = preceding_ops(model);
  std::erase_if(ops, [&](auto const& op) {
    return op.weight.data == nullptr || op.consumers.size() < 2 ||
           !mixbit::unshared_groups(quantized, {op.consumers}, {false, false, true}).empty();
  });
  return ops;
}

}  // namespace byte_lm
