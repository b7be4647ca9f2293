// Layers that loaders run as one: in safetensors' forms they have one scale of the whole.
#pragma once

#include <cstddef>
#include <vector>

#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// Of each layer the places of those of its form that loaders run as one with it, its own too.
std::vector<std::vector<std::size_t>> fused_layers(std::vector<layer> const& layers);

}  // namespace quantize_checkpoint
