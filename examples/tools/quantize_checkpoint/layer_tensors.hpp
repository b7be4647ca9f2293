// What the output holds of a quantized layer, in ModelOpt's form or compressed-tensors'.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "mixbit/core/executor.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// One tensor of it: what its name has behind the layer's, and its shape.
struct layer_tensor {
  char const* suffix = nullptr;  ///< null: there is no such tensor
  mixbit::geometry shape = {};
};

/// `second`: NVFP4's scale above its blocks'; `shape`: of packed weights in compressed-tensors.
struct layer_tensors {
  enum part : std::uint8_t { codes, scales, second, shape };
  std::array<layer_tensor, 4> parts;

  explicit layer_tensors(layer const& l);
};

/// Of NVFP4: as the form holds it.
float second_scale(layer const& l, float tensor_scale);

/// Some rows' codes, as the form holds them; packed by `threads`.
std::vector<std::uint8_t> codes_in_file(layer const& l, encoded_rows&& part, mixbit::executor_ref threads);

}  // namespace quantize_checkpoint
