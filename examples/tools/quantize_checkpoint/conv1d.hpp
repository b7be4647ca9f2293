// Transformers' Conv1D, the linear layer of GPT-2 and its kin, which stores its weight [in, out]: blocks and channels
// of the formats here would lie along the wrong axis.
#pragma once

#include <string_view>

#include "mixbit/io/hf_source.hpp"

namespace quantize_checkpoint {

/// Which matrices of a checkpoint are stored so: by the architecture that config.json names, and, where it names none
/// that is known, by a bias that is as long as the rows of its weight.
class conv1d_layers {
 public:
  explicit conv1d_layers(mixbit::hf_source const& source);

  /// Of a matrix `layer`.weight.
  bool contains(std::string_view layer) const;

 private:
  bool bias_says(std::string_view layer) const;

  mixbit::hf_source const& source_;
  bool by_name_ = false;  ///< all with Conv1D's names are
};

}  // namespace quantize_checkpoint
