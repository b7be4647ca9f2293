// What a host says of an operation whose output is the input of quantized layers, so that their scales can go into it:
//
//   preceding_norm("layers.0.input_layernorm", norm.weight, {"layers.0.self_attn.q_proj", ... k_proj, v_proj})
//   preceding_linear("layers.0.mlp.up_proj", {"layers.0.mlp.down_proj"})         // a module of the walk
//
// What is said has to hold: the consumers are all that read the output, and what lies between is linear in each channel
// on its own (nothing, a product with another tensor, a ReLU for positive scales). Views hold until weights move.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mixbit/core/tensor_traits.hpp"

namespace mixbit {

struct preceding_op {
  std::string name;        ///< as in a checkpoint: its tensors are NAME.weight and NAME.bias
  tensor_ref weight = {};  ///< a factor for each channel; no data: that of the walk's module `name`
  tensor_ref bias = {};    ///< no data: it has none
  std::vector<std::string> consumers = {};
};

/// A norm, x̂ · weight, of as many elements as the consumers have inputs. One of x̂ · (1 + weight) is none.
template <writable_host_tensor W>
preceding_op preceding_norm(std::string name, W& weight, std::vector<std::string> consumers) {
  return {std::move(name), write_view(weight), {}, std::move(consumers)};
}
/// x̂ · weight + bias
template <writable_host_tensor W, writable_host_tensor Bias>
preceding_op preceding_norm(std::string name, W& weight, Bias& bias, std::vector<std::string> consumers) {
  return {std::move(name), write_view(weight), write_view(bias), std::move(consumers)};
}

/// A linear layer of the walk, without a bias.
inline preceding_op preceding_linear(std::string name, std::vector<std::string> consumers) {
  return {std::move(name), {}, {}, std::move(consumers)};
}
template <writable_host_tensor Bias>
preceding_op preceding_linear(std::string name, Bias& bias, std::vector<std::string> consumers) {
  return {std::move(name), {}, write_view(bias), std::move(consumers)};
}

}  // namespace mixbit
