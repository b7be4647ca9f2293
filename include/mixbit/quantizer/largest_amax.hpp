// The amaxes that cover what several quantizers cover: those of a fused kernel's inputs, those of sibling experts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "mixbit/quantizer/tensor_quantizer.hpp"

namespace mixbit::detail {

/// Group by group the largest of those that have amaxes; empty where none has. Throws `id`, naming both, where they
/// have another number of groups.
template <backend B>
std::vector<float> largest_amax(B& device, std::vector<tensor_quantizer<B> const*> const& of, error_id id) {
  std::vector<float> largest;
  tensor_quantizer<B> const* first = nullptr;
  for (auto const* const q : of) {
    auto const amax = q->amax(device);
    if (amax.empty()) continue;
    if (first == nullptr) first = q, largest = amax;
    if (amax.size() != largest.size())
      fail(id, first->name(), " has ", largest.size(), " amaxes and ", q->name(), ' ', amax.size(), "; they can only ",
           "be made one where they are as many");
    for (std::size_t g = 0; g < largest.size(); ++g) largest[g] = std::max(largest[g], amax[g]);
  }
  return largest;
}

}  // namespace mixbit::detail
