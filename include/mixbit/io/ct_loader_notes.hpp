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

/// Marlin has these groups; of vLLM's other kernels for packed weights some have fewer of them, and Exllama's, which
/// has others, takes float16 inputs alone.
inline void note_groups(ct_layer const& l, std::vector<std::string>& notes) {
  auto const& w = l.scheme.weight;
  if (l.scheme.format != ct_format::pack_quantized || w.strategy != ct_strategy::group) return;
  if (w.columns == 32 || w.columns == 64 || w.columns == 128) return;
  notes.push_back(concat(l.name, ": groups of ", w.columns, "; vLLM's Marlin kernel takes groups of 32, 64 and 128, ",
                         "and for others there may be none"));
}

/// vLLM quantizes inputs in groups as long as a block has rows, which its kernels but Triton's take to be 128.
inline void note_blocks(ct_layer const& l, std::vector<std::string>& notes) {
  auto const& w = l.scheme.weight;
  if (w.strategy != ct_strategy::block) return;
  if (w.rows != 128 || w.columns != 128)
    notes.push_back(concat(l.name, ": blocks of ", w.rows, 'x', w.columns, "; of vLLM's kernels only Triton's take ",
                           "others than 128x128"));
  if (l.weight.shape[1] % w.columns != 0)
    notes.push_back(concat(l.name, ": rows of ", l.weight.shape[1], " elements are no whole blocks of ", w.columns,
                           "; vLLM takes whole ones"));
}

/// Blocks go on from one fused layer to the next, so that all but the last must end with a block.
inline void note_fused_blocks(std::vector<ct_layer> const& layers, std::vector<std::string>& notes) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name);
  for (auto const& members : hf::fused_groups(names))
    for (std::size_t const i : members) {
      auto const& l = layers[i];
      auto const& w = l.scheme.weight;
      bool const last = l.name.ends_with("v_proj") || l.name.ends_with("up_proj") || l.name.ends_with(".w3");
      if (last || w.strategy != ct_strategy::block || l.weight.shape[0] % w.rows == 0) continue;
      notes.push_back(concat(l.name, ": ", l.weight.shape[0], " outputs are no whole blocks of ", w.rows,
                             "; vLLM fuses it with the next layer and refuses that"));
    }
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

/// What the layers alone tell.
inline void note_layers(std::vector<ct_layer> const& layers, std::vector<std::string>& notes) {
  for (auto const& l : layers) {
    note_layer(l, notes);
    note_groups(l, notes);
    note_blocks(l, notes);
  }
  note_fused_blocks(layers, notes);
}

}  // namespace detail::ct

/// A line each, of a program that has no model that runs and shares the scales of fused layers itself. `unquantized`:
/// the names of the other layers.
inline std::vector<std::string> ct_loader_notes(std::vector<ct_layer> const& layers,
                                                std::vector<std::string> const& unquantized) {
  std::vector<std::string> notes;
  detail::ct::note_layers(layers, notes);
  (void)detail::ct::note_fused(layers, unquantized, notes);
  return notes;
}

/// The same of a model's export, and of fused layers whose scales of the whole tensor differ.
template <backend B>
std::vector<std::string> ct_loader_notes(model<B>& m, std::vector<ct_layer> const& layers,
                                         std::vector<std::string> const& unquantized) {
  std::vector<std::string> notes;
  detail::ct::note_layers(layers, notes);
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
