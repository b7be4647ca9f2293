// What a GGUF file calls the tensors of a Hugging Face checkpoint, and the metadata that llama.cpp reads a model's
// shape from. Both are the model family's: a table for Llama is here, other families are given by the user.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "mixbit/core/fp.hpp"
#include "mixbit/io/gguf_head.hpp"
#include "mixbit/io/json.hpp"

namespace mixbit {

/// Where a tensor of the checkpoint goes.
struct gguf_place {
  std::string name;        ///< empty: it is left out of the file
  std::int64_t heads = 0;  ///< not 0: the rows of each head are rearranged as llama.cpp's rotary embedding takes them
};

/// The place of the tensor "model.layers.0.mlp.up_proj.weight", if the family has one.
using gguf_naming = std::function<std::optional<gguf_place>(std::string const& tensor)>;

namespace detail::gguf {

using name_pair = std::pair<std::string_view, std::string_view>;

/// gguf-py's tensor_mapping.py has the same names.
inline constexpr std::array<name_pair, 3> llama_outer{
    {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}}};
inline constexpr std::array<name_pair, 9> llama_inner{{{"input_layernorm", "attn_norm"},
                                                       {"self_attn.q_proj", "attn_q"},
                                                       {"self_attn.k_proj", "attn_k"},
                                                       {"self_attn.v_proj", "attn_v"},
                                                       {"self_attn.o_proj", "attn_output"},
                                                       {"post_attention_layernorm", "ffn_norm"},
                                                       {"mlp.gate_proj", "ffn_gate"},
                                                       {"mlp.up_proj", "ffn_up"},
                                                       {"mlp.down_proj", "ffn_down"}}};

template <std::size_t N>
std::optional<std::string> renamed(std::array<name_pair, N> const& table, std::string_view module) {
  for (auto const& [from, to] : table)
    if (from == module) return std::string{to};
  return std::nullopt;
}

/// A positive whole number of a config.json, of 32 bits, as GGUF holds them. Throws `file_content`.
inline std::uint32_t config_number(json_document const& config, char const* key) {
  auto const at = config.find(key);
  std::int64_t const number = at != config.end() && at->is_number_integer() ? at->get<std::int64_t>() : 0;
  if (number <= 0 || number > std::numeric_limits<std::uint32_t>::max())
    fail(error_id::file_content, "config.json: ", key, " is ", at == config.end() ? "missing" : at->dump(),
         "; the metadata of llama need a positive whole number of 32 bits");
  return static_cast<std::uint32_t>(number);
}

/// The same, or what stands for it where it is missing or null.
inline std::uint32_t config_number(json_document const& config, char const* key, std::uint32_t otherwise) {
  return config.contains(key) && !config[key].is_null() ? config_number(config, key) : otherwise;
}

inline float config_float(json_document const& config, char const* key, float otherwise) {
  if (!config.contains(key) || config[key].is_null()) return otherwise;
  float const number = config[key].is_number() ? config[key].get<float>() : 0.0f;
  if (!(number > 0.0f) || !fp::is_finite(number))
    fail(error_id::file_content, "config.json: ", key, " is ", config[key].dump(),
         "; the metadata of llama need a positive float32");
  return number;
}

/// How large a Llama is, by its config.json. Throws `file_content` for a number that is missing or none.
struct llama_numbers {
  std::uint32_t heads, width, head_size, layers, inner, kv_heads, words;

  explicit llama_numbers(json_document const& config)
      : heads{config_number(config, "num_attention_heads")},
        width{config_number(config, "hidden_size")},
        head_size{config_number(config, "head_dim", width / heads)},
        layers{config_number(config, "num_hidden_layers")},
        inner{config_number(config, "intermediate_size")},
        kv_heads{config_number(config, "num_key_value_heads", heads)},
        words{config_number(config, "vocab_size")} {
    if (head_size == 0)
      fail(error_id::file_content, "config.json: num_attention_heads is ", heads, ", more than hidden_size, ", width);
  }
};

}  // namespace detail::gguf

/// Is this config.json that of a model that llama.cpp calls "llama"?
inline bool is_llama(json_document const& config) {
  auto const at = config.find("architectures");
  return at != config.end() && at->is_array() && !at->empty() && at->front() == "LlamaForCausalLM";
}

/// Llama's names, with the rows of q_proj and k_proj rearranged. Throws `file_content` for a config that lacks the
/// numbers of heads.
inline gguf_naming gguf_llama_names(json_document const& config) {
  std::uint32_t const heads = detail::gguf::config_number(config, "num_attention_heads");
  std::uint32_t const kv_heads = detail::gguf::config_number(config, "num_key_value_heads", heads);
  return [heads, kv_heads](std::string const& tensor) -> std::optional<gguf_place> {
    auto const dot = tensor.rfind('.');
    if (tensor.ends_with(".rotary_emb.inv_freq")) return gguf_place{};  // llama.cpp computes them
    std::string_view module = std::string_view{tensor}.substr(0, dot == tensor.npos ? 0 : dot);
    std::string const leaf = dot == tensor.npos ? "" : tensor.substr(dot);
    if (leaf != ".weight" && leaf != ".bias") return std::nullopt;
    if (auto const outer = detail::gguf::renamed(detail::gguf::llama_outer, module)) return gguf_place{*outer + leaf};
    constexpr std::string_view layers = "model.layers.";
    if (!module.starts_with(layers)) return std::nullopt;
    module.remove_prefix(layers.size());
    std::string_view const number = module.substr(0, module.find_first_not_of("0123456789"));
    if (number.empty() || !module.substr(number.size()).starts_with('.')) return std::nullopt;
    auto const inner = detail::gguf::renamed(detail::gguf::llama_inner, module.substr(number.size() + 1));
    if (!inner) return std::nullopt;
    std::int64_t const rotated = *inner == "attn_q" ? heads : *inner == "attn_k" ? kv_heads : 0;
    return gguf_place{"blk." + std::string{number} + "." + *inner + leaf, rotated};
  };
}

/// general.architecture and the llama.* keys from a config.json. Throws `file_content` for what is missing, and for a
/// scaled rotary embedding, which needs a tensor of its own (rope_freqs). The tokenizer's keys are not among them.
inline gguf_metadata gguf_llama_metadata(json_document const& config, std::string_view otherwise = {}) {
  using namespace detail::gguf;
  json_document const& rope = config.contains("rope_parameters") && config["rope_parameters"].is_object()
                                  ? config["rope_parameters"] : config;
  auto const scaling = config.find("rope_scaling");
  bool const scaled = scaling != config.end() && scaling->is_object() && !scaling->empty();
  if (scaled || (rope.contains("rope_type") && rope["rope_type"] != "default"))
    fail(error_id::file_content, "config.json: its rotary embedding is scaled (", (scaled ? *scaling : rope).dump(),
         "), for which this version has no metadata", otherwise);
  llama_numbers const n{config};
  gguf_metadata m{{"general.architecture", std::string{"llama"}}};
  auto const put = [&](char const* key, gguf_value value) { m.push_back({key, std::move(value)}); };
  put("llama.block_count", n.layers);
  put("llama.context_length", config_number(config, "max_position_embeddings"));
  put("llama.embedding_length", n.width);
  put("llama.feed_forward_length", n.inner);
  put("llama.attention.head_count", n.heads);
  put("llama.attention.head_count_kv", n.kv_heads);
  put("llama.attention.key_length", n.head_size);
  put("llama.attention.value_length", n.head_size);
  put("llama.attention.layer_norm_rms_epsilon", config_float(config, "rms_norm_eps", 1e-6f));
  put("llama.rope.freq_base", config_float(rope, "rope_theta", 10000.0f));
  put("llama.rope.dimension_count", n.head_size);
  put("llama.vocab_size", n.words);
  return m;
}

}  // namespace mixbit
