// `quantization_config` of a compressed-tensors checkpoint, as compressed-tensors 0.20 reads it.
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/ct_form.hpp"
#include "mixbit/io/ct_kv_cache.hpp"
#include "mixbit/io/json.hpp"

namespace mixbit {

/// A quantized module, as far as a loader cares.
struct ct_layer {
  std::string name;
  ct_scheme scheme;
  geometry weight;  ///< [out, in]
  site_kind kind = site_kind::linear;
};

namespace detail::ct {

inline json_document arguments_of(ct_operand const& o) {
  json_document j = {{"num_bits", o.bits}, {"type", o.is_float ? "float" : "int"}, {"symmetric", true}};
  j["strategy"] = name_of(o.strategy);
  j["group_size"] = nullptr;
  if (o.strategy == ct_strategy::group || o.strategy == ct_strategy::tensor_group) j["group_size"] = o.columns;
  if (o.strategy == ct_strategy::block) j["block_structure"] = {o.rows, o.columns};
  j["dynamic"] = o.from_data;
  if (is_two_level(o.scaling)) {
    if (o.from_data) j["dynamic"] = "local";  // the blocks' scales are of the data, the one above them is not
    j["scale_dtype"] = "torch.float8_e4m3fn";
  } else if (o.scaling != scale_rule::ratio) {
    j["scale_dtype"] = "torch.uint8";
  }
  return j;
}

inline json_document group_of(ct_scheme const& s, std::vector<std::string> const& targets) {
  json_document j = {{"targets", targets}, {"weights", arguments_of(s.weight)}};
  j["input_activations"] = nullptr;
  if (s.input) j["input_activations"] = arguments_of(*s.input);
  j["output_activations"] = nullptr;
  j["format"] = name_of(s.format);
  return j;
}

}  // namespace detail::ct

/// A group for each distinct scheme, numbered in the order of the layers. A single one whose layers are all linear
/// targets the class, as other exporters write it; else targets are the layers' names. `unquantized`: others.
/// An output head that is not among the layers is ignored also where it is in no file: one that is tied to an
/// embedding, which many a config.json does not say, would have the class as well. `cache`: of all key/value caches.
/// Null without layers and caches.
inline json_document ct_quantization_config(std::vector<ct_layer> const& layers,
                                            std::vector<std::string> const& unquantized,
                                            std::optional<hf_kv_cache> cache = {}) {
  if (layers.empty() && !cache) return {};
  std::vector<std::pair<ct_scheme, std::vector<std::string>>> groups;
  bool one_format = true, all_linear = true;
  for (auto const& l : layers) {
    auto at = std::find_if(groups.begin(), groups.end(), [&](auto const& g) { return g.first == l.scheme; });
    if (at == groups.end()) at = groups.insert(at, {l.scheme, {}});
    at->second.push_back(l.name);
    one_format = one_format && l.scheme.format == layers.front().scheme.format;
    all_linear = all_linear && l.kind == site_kind::linear;
  }
  if (groups.size() == 1 && all_linear) groups.front().second = {"Linear"};
  json_document j = {{"quant_method", "compressed-tensors"}};
  j["format"] = layers.empty() ? "dense" : one_format ? name_of(layers.front().scheme.format) : "mixed-precision";
  j["quantization_status"] = "compressed";
  json_document all = json_document::object();
  for (std::size_t i = 0; i < groups.size(); ++i)
    all["group_" + std::to_string(i)] = detail::ct::group_of(groups[i].first, groups[i].second);
  j["config_groups"] = std::move(all);
  std::set<std::string> ignored{unquantized.begin(), unquantized.end()};
  if (std::none_of(layers.begin(), layers.end(), [](auto const& l) { return l.name.ends_with("lm_head"); }))
    ignored.insert("lm_head");
  j["ignore"] = std::move(ignored);
  j["kv_cache_scheme"] = ct_kv_cache_scheme(cache);
  j["global_compression_ratio"] = nullptr;
  return j;
}

}  // namespace mixbit
