// Layers that loaders run as one: in safetensors' forms they have one scale of the whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "weight_rows.hpp"

namespace quantize_checkpoint {

class fused_layers {
 public:
  explicit fused_layers(std::vector<layer> const& layers);

  /// The places of those that are written like layer `i` and that loaders run as one with it, its own too; ascending.
  std::vector<std::size_t> members(std::size_t i) const;

 private:
  std::vector<layer> const& layers_;
  std::vector<std::uint32_t> next_;  ///< of each layer the next of its group, round and round
};

/// The largest |w| of layers, of all that are fused with one; each is read once, when it is first asked for.
class shared_amaxes {
 public:
  /// `layers` has to stay; `amax_of` reads a weight.
  shared_amaxes(std::vector<layer> const& layers, std::function<float(layer const&)> amax_of)
      : layers_{layers}, fused_{layers}, amax_of_{std::move(amax_of)} {}

  float of(std::size_t i);

 private:
  std::vector<layer> const& layers_;
  fused_layers fused_;
  std::function<float(layer const&)> amax_of_;
  std::unordered_map<std::size_t, float> known_;  ///< by the first one's place
};

}  // namespace quantize_checkpoint
