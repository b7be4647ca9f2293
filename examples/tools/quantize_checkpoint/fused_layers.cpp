#include "fused_layers.hpp"

#include <string>

#include "mixbit/config/grouping_rule.hpp"

namespace quantize_checkpoint {

std::vector<std::vector<std::size_t>> fused_layers(std::vector<layer> const& layers) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name);
  std::vector<std::vector<std::size_t>> all(layers.size());
  for (auto const& group : mixbit::group_modules(names, mixbit::fused_layer_rules()))
    for (std::size_t const i : group.members)
      for (std::size_t const k : group.members)
        if (layers[k].is_of_form(layers[i])) all[i].push_back(k);
  return all;
}

}  // namespace quantize_checkpoint
