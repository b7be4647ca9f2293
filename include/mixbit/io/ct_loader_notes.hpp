// What loaders are known to refuse or to misread of a compressed-tensors checkpoint, said before it is written.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/ct_config.hpp"
#include "mixbit/io/hf_fused.hpp"

namespace mixbit {

namespace detail::ct {

inline void note_layer(ct_layer const& l, std::vector<std::string>& notes) {
  if (l.kind != site_kind::linear)
    notes.push_back(l.name + ": not a linear layer; vLLM looks at linear layers alone in this form");
  if (l.scheme.format == ct_format::pack_quantized && l.scheme.weight.strategy == ct_strategy::tensor)
    notes.push_back(l.name + ": one scale for all of a packed weight; vLLM takes one an output channel or a group");
}

/// Fused layers that differ: vLLM refuses them. Those that are alike and have a scale of the whole tensor are returned.
inline std::vector<layer_group> note_fused(std::vector<ct_layer> const& layers,
                                           std::vector<std::string> const& unquantized,
                                           std::vector<std::string>& notes) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name);
  names.insert(names.end(), unquantized.begin(), unquantized.end());
  std::vector<layer_group> alike;
  for (auto const& members : hf::fused_groups(names)) {
    if (members.front() >= layers.size()) continue;  // the quantized ones come first
    auto const& first = layers[members.front()];
    layer_group group;
    for (std::size_t const i : members) {
      bool const same = i < layers.size() && layers[i].scheme == first.scheme;
      if (same) group.push_back(names[i]);
      else
        notes.push_back(concat(first.name, " is ", name_of(first.scheme.format), ", ", names[i], " ",
                               i >= layers.size()                                    ? "not quantized"
                               : layers[i].scheme.format == first.scheme.format ? "the same with other numbers"
                                                                                : name_of(layers[i].scheme.format),
                               ": vLLM fuses them and refuses such a mix"));
    }
    bool const whole = first.scheme.weight.strategy == ct_strategy::tensor || first.scheme.is_nvfp4() ||
                       first.scheme.has_input_scale();
    if (whole && group.size() == members.size()) alike.push_back(std::move(group));
  }
  return alike;
}

}  // namespace detail::ct

/// A line each. `unquantized`: the names of the other layers.
template <backend B>
std::vector<std::string> ct_loader_notes(model<B>& m, std::vector<ct_layer> const& layers,
                                         std::vector<std::string> const& unquantized) {
  std::vector<std::string> notes;
  for (auto const& l : layers) detail::ct::note_layer(l, notes);
  std::vector<layer_group> whole, nvfp4;
  for (auto& group : detail::ct::note_fused(layers, unquantized, notes)) {
    auto const at = std::find_if(layers.begin(), layers.end(), [&](auto const& l) { return l.name == group.front(); });
    (at->scheme.is_nvfp4() ? nvfp4 : whole).push_back(std::move(group));
  }
  detail::hf::note_unshared(m, whole, notes);
  detail::hf::note_unshared(m, nvfp4, notes, "take the larger global scale, which is the smaller scale, for both: "
                                             "the other's values come out too small");
  return notes;
}

}  // namespace mixbit
