// What loaders are known to refuse or to misread of a Hugging Face checkpoint in ModelOpt's form, said before it is
// written.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/io/hf_format.hpp"

namespace mixbit {

namespace detail::hf {

/// Layers that loaders run as one, because they read one input: indices of q/k/v and of gate/up in the same parent.
inline std::vector<std::vector<std::size_t>> fused_groups(std::vector<std::string> const& names) {
  std::vector<std::vector<std::size_t>> fused;
  for (auto& group : group_modules(names, fused_layer_rules()))
    if (group.members.size() > 1) fused.push_back(std::move(group.members));
  return fused;
}

inline std::vector<std::vector<std::size_t>> fused_groups(std::vector<hf_layer> const& layers) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name);
  return fused_groups(names);
}

/// A quantized layer that is fused with another's format, or with a layer that is not quantized.
inline void note_fused(std::vector<hf_layer> const& layers, std::vector<std::string> const& unquantized,
                       std::vector<std::string>& notes) {
  std::vector<std::string> names;
  for (auto const& l : layers) names.push_back(l.name);
  names.insert(names.end(), unquantized.begin(), unquantized.end());
  for (auto const& group : fused_groups(names)) {
    if (group.front() >= layers.size()) continue;  // the quantized ones come first
    hf_layer const& first = layers[group.front()];
    for (std::size_t const i : group) {
      if (i < layers.size() && layers[i].format == first.format) continue;
      notes.push_back(concat(first.name, " is ", algorithm_of(first), ", ", names[i], " ",
                             i < layers.size() ? algorithm_of(layers[i]) : "not quantized",
                             ": vLLM fuses them and refuses such a mix"));
    }
  }
}

inline void note_shapes(hf_layer const& l, std::vector<std::string>& notes) {
  if (l.kind != site_kind::linear)
    notes.push_back(l.name + ": not a linear layer; loaders of this form look at linear layers alone");
  if (l.format.group_size == 0) return;
  std::int64_t const rows = l.weight.shape[0], columns = l.weight.shape[l.weight.rank - 1];
  if (l.format.is_int4() && rows % 2 != 0)
    notes.push_back(concat(l.name, ": ", rows, " rows are packed in pairs, the last with zeros; loaders take even ",
                           "numbers of rows only"));
  if (columns % l.format.group_size != 0)
    notes.push_back(concat(l.name, ": blocks of ", l.format.group_size, " do not divide ", columns,
                           " inputs; loaders expect whole blocks"));
}

/// Do the blocks fit the 128x128 that loaders assume? Smaller ones only where an axis is shorter.
inline bool has_usual_blocks(hf_layer const& l) {
  for (int axis = l.groups.rank - 2; axis < l.groups.rank; ++axis)
    if (l.groups.block[axis] != std::min<std::int64_t>(128, l.weight.shape[axis])) return false;
  return true;
}

inline bool vllm_takes(hf_algorithm a, bool scaled, bool uniform) {
  using h = hf_algorithm;
  bool const mixes = a == h::fp8 || a == h::nvfp4 || a == h::nvfp4_weight_only;
  bool const alone = a == h::fp8_per_channel_per_token || a == h::fp8_2d_blocks || a == h::mxfp8;
  return !scaled && (mixes || (alone && uniform));
}

/// Layers of one algorithm may have a pre_quant_scale or none; what is said of them is said once.
inline void note_algorithms(std::vector<hf_layer> const& layers, bool uniform, std::vector<std::string>& notes) {
  std::map<hf_algorithm, bool> scaled;  // has any a pre_quant_scale?
  for (auto const& l : layers) scaled[l.format.algorithm] |= l.scaled;
  for (auto const& [algorithm, any] : scaled) {
    if (!vllm_takes(algorithm, any, uniform))
      notes.push_back(concat("vLLM refuses ", name_of(algorithm, any), uniform ? "" : " in MIXED_PRECISION",
                             " in a checkpoint of this form"));
    bool const awq = algorithm == hf_algorithm::int4_weight_only || algorithm == hf_algorithm::int4_fp8;
    if (any || !(awq || algorithm == hf_algorithm::int8)) continue;
    notes.push_back(concat(name_of(algorithm), " is written without pre_quant_scale",
                           awq ? " (\"pre_quant_scale\": false): no AWQ" : ", which ModelOpt's has: no SmoothQuant",
                           " ran, or its scales are folded"));
  }
}

}  // namespace detail::hf

/// What loaders are known to refuse or to misread, a line each; empty: vLLM and TensorRT-LLM take it. `unquantized`:
/// the names of the other layers.
inline std::vector<std::string> hf_loader_notes(std::vector<hf_layer> const& layers,
                                                std::vector<std::string> const& unquantized) {
  std::vector<std::string> notes;
  bool one_format = true;
  for (auto const& l : layers) {
    one_format = one_format && l.format == layers.front().format;
    detail::hf::note_shapes(l, notes);
    if (l.format.algorithm == hf_algorithm::fp8_2d_blocks && !detail::hf::has_usual_blocks(l))
      notes.push_back(l.name + ": loaders take blocks of 128x128 and are not told of others");
  }
  detail::hf::note_fused(layers, unquantized, notes);
  detail::hf::note_algorithms(layers, one_format, notes);
  return notes;
}

}  // namespace mixbit
