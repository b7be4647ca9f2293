// The JSON files of a Hugging Face checkpoint: hf_quant_config.json, `quantization_config` in config.json (the same in
// a flat form) and generation_config.json. Keys, their order and the rules are ModelOpt 0.47's (tests/golden/export).
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/io/hf_format.hpp"
#include "mixbit/io/hf_kv_cache.hpp"
#include "mixbit/io/json.hpp"

namespace mixbit {

/// Who wrote the checkpoint. vLLM looks at it only where config.json has no `quantization_config`.
struct hf_producer {
  std::string name = "mixbit";
  std::string version = "0.1.0";
};

namespace detail::hf {

/// The fields that ModelOpt gives an algorithm, the same in both files. `scaled`: there are pre_quant_scales; ModelOpt
/// says so of every W4A16_AWQ and W4A8_AWQ.
inline json_document algorithm_fields(hf_format const& f, bool scaled) {
  json_document j = {{"quant_algo", name_of(f.algorithm, scaled)}};
  if (f.group_size != 0) j["group_size"] = f.group_size;
  if (f.is_int4() || (f.is_nvfp4() && scaled)) {
    j["has_zero_point"] = false;
    j["pre_quant_scale"] = scaled;
  }
  return j;
}

inline json_document scheme(bool dynamic, int bits, char const* type) {
  return {{"dynamic", dynamic}, {"num_bits", bits}, {"type", type}};
}

/// The entry of `config_groups` for one algorithm, without its targets.
inline json_document group_of(hf_format const& f, bool scaled) {
  json_document j = json_document::object();
  if (f.algorithm == hf_algorithm::int4_fp8 || (f.algorithm == hf_algorithm::nvfp4 && scaled)) {
    for (auto const& [side, bits] : {std::pair{"input_activations", 8}, {"weights", 4}}) {  // ModelOpt's, of both
      j[side] = scheme(false, bits, "float");
      j[side]["group_size"] = f.group_size;
    }
    return j;
  }
  switch (f.algorithm) {
    case hf_algorithm::fp8:
      j["input_activations"] = scheme(false, 8, "float");
      j["weights"] = scheme(false, 8, "float");
      break;
    case hf_algorithm::fp8_per_channel_per_token:
      j["input_activations"] = scheme(false, 8, "float");  // ModelOpt's word; quant_algo says that they are dynamic
      j["weights"] = scheme(false, 8, "float");
      j["weights"]["strategy"] = "channel";
      break;
    case hf_algorithm::int8:
      j["input_activations"] = scheme(false, 8, "int");
      j["weights"] = scheme(false, 8, "int");
      j["weights"]["strategy"] = "channel";
      break;
    case hf_algorithm::int8_weight_only: j["weights"] = scheme(false, 8, "int"); break;
    case hf_algorithm::int4_weight_only:
      j["weights"] = scheme(false, 4, "int");
      j["weights"]["group_size"] = f.group_size;
      break;
    case hf_algorithm::nvfp4:
    case hf_algorithm::nvfp4_weight_only:
      for (char const* side : {"input_activations", "weights"}) {
        if (side[0] == 'i' && !f.has_input_scale()) continue;
        j[side] = scheme(false, 4, "float");
        j[side]["group_size"] = f.group_size;
      }
      break;
    default: j["quant_algo"] = name_of(f.algorithm);  // what ModelOpt writes for the rest
  }
  return j;
}

/// Of sorted names.
inline bool any_starts_with(std::vector<std::string_view> const& names, std::string_view prefix) {
  auto const at = std::lower_bound(names.begin(), names.end(), prefix);
  return at != names.end() && at->starts_with(prefix);
}

}  // namespace detail::hf

/// Shortest patterns `prefix*` (prefixes end before a dot) that cover `unquantized` and match none of `quantized`;
/// where `prefix*` would catch a neighbour, `prefix.*`; else the whole name. Sorted.
inline std::vector<std::string> exclude_patterns(std::vector<std::string> const& unquantized,
                                                 std::vector<std::string> const& quantized) {
  std::vector<std::string_view> sorted{quantized.begin(), quantized.end()};
  std::sort(sorted.begin(), sorted.end());
  std::set<std::string> patterns;
  for (auto const& name : unquantized) {
    std::string best = name;
    for (auto dot = name.find('.'); dot != name.npos; dot = name.find('.', dot + 1)) {
      std::string const prefix = name.substr(0, dot);
      if (!detail::hf::any_starts_with(sorted, prefix)) best = prefix + "*";
      else if (!detail::hf::any_starts_with(sorted, prefix + ".")) best = prefix + ".*";
      else continue;
      break;
    }
    patterns.insert(best);
  }
  return {patterns.begin(), patterns.end()};
}

/// True where all layers share one format, pre_quant_scale or not: the checkpoint is then of that algorithm, else of
/// mixed precision.
inline bool is_uniform(std::vector<hf_layer> const& layers) {
  return std::all_of(layers.begin(), layers.end(), [&](auto const& l) { return l.format == layers.front().format; });
}

/// hf_quant_config.json. Without layers its quant_algo is null.
inline json_document hf_quant_config(std::vector<hf_layer> const& layers, std::vector<std::string> const& exclude,
                                     std::optional<hf_kv_cache> cache, hf_producer const& producer) {
  json_document q = json_document::object();
  q["quant_algo"] = nullptr;
  if (!layers.empty() && !is_uniform(layers)) q["quant_algo"] = "MIXED_PRECISION";
  q["kv_cache_quant_algo"] = nullptr;
  if (cache) q["kv_cache_quant_algo"] = name_of(*cache);
  if (layers.empty() || is_uniform(layers)) {
    bool const scaled = std::any_of(layers.begin(), layers.end(), [](auto const& l) { return l.scaled; });
    if (!layers.empty()) q.update(detail::hf::algorithm_fields(layers.front().format, scaled));
    q["exclude_modules"] = exclude;
  } else {
    // straight into the object's vector: its own lookup is linear, and there may be thousands of layers
    json_document list = json_document::object();
    auto& members = list.get_ref<json_document::object_t&>();
    for (auto const& l : layers)
      members.Container::emplace_back(l.name, detail::hf::algorithm_fields(l.format, l.scaled));
    q["quantized_layers"] = std::move(list);
  }
  return {{"producer", {{"name", producer.name}, {"version", producer.version}}}, {"quantization", std::move(q)}};
}

namespace detail::hf {

/// A group for each distinct format, numbered in the order of the layers; targets sorted.
inline json_document mixed_groups(std::vector<hf_layer> const& layers) {
  using distinct = std::pair<hf_format, bool>;
  std::vector<std::pair<distinct, std::vector<std::string>>> groups;
  for (auto const& l : layers) {
    distinct const mine{l.format, l.scaled};
    auto at = std::find_if(groups.begin(), groups.end(), [&](auto const& g) { return g.first == mine; });
    if (at == groups.end()) at = groups.insert(at, {mine, {}});
    at->second.push_back(l.name);
  }
  json_document all = json_document::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::sort(groups[i].second.begin(), groups[i].second.end());
    auto& j = all["group_" + std::to_string(i)] = group_of(groups[i].first.first, groups[i].first.second);
    j["targets"] = groups[i].second;
  }
  return all;
}

}  // namespace detail::hf

/// `quantization_config` of config.json from the same layers and the content of hf_quant_config.json. ModelOpt writes
/// config_groups for FP8, NVFP4 and mixed precision only.
inline json_document hf_quantization_config(std::vector<hf_layer> const& layers, json_document const& quant_config) {
  auto const& q = quant_config.at("quantization");
  auto const& algorithm = q.at("quant_algo");
  json_document j = json_document::object();
  if (!is_uniform(layers)) {
    j["config_groups"] = detail::hf::mixed_groups(layers);
    j["quantized_layers"] = q.at("quantized_layers");
  } else if (algorithm == "FP8" || algorithm == "NVFP4" || algorithm == "W4A16_NVFP4") {
    j["config_groups"]["group_0"] = detail::hf::group_of(layers.front().format, false);
    j["config_groups"]["group_0"]["targets"] = json_document::array({"Linear"});
  }
  j["ignore"] = q.contains("exclude_modules") ? q.at("exclude_modules") : json_document::array();
  if (!algorithm.is_null()) j["quant_algo"] = algorithm;
  if (auto const& cache = q.at("kv_cache_quant_algo"); !cache.is_null())
    j["kv_cache_scheme"] = cache == "FP8" ? detail::hf::scheme(false, 8, "float") : cache;
  j["producer"] = quant_config.at("producer");
  j["quant_method"] = "modelopt";
  return j;
}

/// Does this config.json describe a model that generates text? Only those have a generation_config.json.
inline bool generates(json_document const& config) {
  if (!config.contains("architectures") || !config["architectures"].is_array()) return false;
  auto const& names = config["architectures"];
  return std::any_of(names.begin(), names.end(), [](auto const& name) {
    auto const text = name.is_string() ? name.template get<std::string>() : std::string{};
    return text.ends_with("ForCausalLM") || text.ends_with("ForConditionalGeneration");
  });
}

/// generation_config.json as transformers derives it from a config.json: keys sorted, nulls left out.
inline json_document generation_config_from(json_document const& config) {
  json_document j = {{"_from_model_config", true}};
  for (char const* key : {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "use_cache"})
    if (config.contains(key) && !config[key].is_null()) j[key] = config[key];
  return j;
}

}  // namespace mixbit
