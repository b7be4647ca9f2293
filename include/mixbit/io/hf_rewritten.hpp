// Tensors of a checkpoint that the walk does not show and that fold_pre_quant_scales has rewritten in the host.
#pragma once

#include <string>
#include <vector>

#include "mixbit/core/tensor_view.hpp"
#include "mixbit/model/preceding_op.hpp"

namespace mixbit::detail::hf {

/// One axis, as checkpoints have them: hosts may hold a vector as a matrix of one row.
inline const_tensor_ref as_vector(const_tensor_ref t) {
  geometry flat = t;
  flat.rank = 1;
  for (int a = 0; a < t.rank; ++a) {
    flat.shape[a] = 1;
    flat.stride[a] = 0;
  }
  flat.shape[0] = t.size();
  flat.stride[0] = 1;
  for (int a = 0; a < t.rank; ++a)
    if (t.shape[a] == t.size()) flat.stride[0] = t.stride[a];
  return {flat, t.data};
}

}  // namespace mixbit::detail::hf

namespace mixbit {

/// The host's tensor of that name, "input_layernorm.weight"; without data where none of the operations has it.
inline const_tensor_ref hf_rewritten_tensor(std::vector<preceding_op> const& ops, std::string const& name) {
  for (auto const& op : ops) {
    if (op.weight.data != nullptr && name == op.name + ".weight") return detail::hf::as_vector(op.weight);
    if (op.bias.data != nullptr && name == op.name + ".bias") return detail::hf::as_vector(op.bias);
  }
  return {};
}

}  // namespace mixbit
