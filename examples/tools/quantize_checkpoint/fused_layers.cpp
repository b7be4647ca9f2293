#include "fused_layers.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "mixbit/config/grouping_rule.hpp"

namespace quantize_checkpoint {

fused_layers::fused_layers(std::vector<layer> const& layers) : layers_{layers}, next_(layers.size()) {
  std::iota(next_.begin(), next_.end(), 0u);
  auto const rules = mixbit::fused_layer_rules();
  std::map<std::pair<int, std::string>, std::size_t> first;  // of each group
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto key = mixbit::group_key(layers[i].name, rules);
    if (key.first < 0) continue;
    auto const at = first.try_emplace(std::move(key), i).first->second;
    std::swap(next_[i], next_[at]);
  }
}

std::vector<std::size_t> fused_layers::members(std::size_t i) const {
  std::vector<std::size_t> all{i};
  for (std::size_t k = next_[i]; k != i; k = next_[k])
    if (layers_[k].how->is_written_like(*layers_[i].how)) all.push_back(k);
  std::sort(all.begin(), all.end());
  return all;
}

float shared_amaxes::of(std::size_t i) {
  auto const members = fused_.members(i);
  if (auto const known = known_.find(members.front()); known != known_.end()) return known->second;
  float amax = 0;
  for (std::size_t const member : members) amax = std::max(amax, amax_of_(layers_[member]));
  return known_[members.front()] = amax;
}

}  // namespace quantize_checkpoint
