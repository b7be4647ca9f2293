// What the output holds of a quantized layer, in either form.
#pragma once

#include <cstdint>
#include <vector>

#include "mixbit/io/safetensors_head.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// Names and shapes. `second`: NVFP4's scale above its blocks', without a name elsewhere; `shape`: of packed weights in
/// compressed-tensors.
struct layer_tensors {
  mixbit::named_geometry codes, scales, second, shape;

  explicit layer_tensors(layer const& l);
  /// Those that have a name.
  std::vector<mixbit::named_geometry> all() const;
};

/// Of NVFP4: as the form holds it.
float second_scale(layer const& l, float tensor_scale);

/// Some rows' codes, as the form holds them; packed by `threads`.
std::vector<std::uint8_t> codes_in_file(layer const& l, encoded_rows const& part, mixbit::executor_ref threads);

}  // namespace quantize_checkpoint
