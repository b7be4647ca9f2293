// The shapes that a config.json gives a Llama's tensors. llama.cpp reads a GGUF file by these numbers, which are its
// metadata (gguf_naming.hpp), and refuses or misreads one whose tensors are otherwise.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "mixbit/core/tensor_view.hpp"
#include "mixbit/io/gguf_naming.hpp"

namespace mixbit {

class gguf_llama_shape {
 public:
  /// Throws `file_content` for a number that is missing or none.
  explicit gguf_llama_shape(json_document const& config) {
    detail::gguf::llama_numbers const n{config};
    std::int64_t const width = n.width, inner = n.inner, words = n.words, head = n.head_size;
    std::int64_t const queries = n.heads * head;
    std::int64_t const keys = n.kv_heads * head;
    layers_ = n.layers;
    matrices_ = {{"token_embd", words, width}, {"output", words, width},   {"attn_q", queries, width},
                 {"attn_k", keys, width},      {"attn_v", keys, width},    {"attn_output", width, queries},
                 {"ffn_gate", inner, width},   {"ffn_up", inner, width},   {"ffn_down", width, inner},
                 {"output_norm", width, none}, {"attn_norm", width, none}, {"ffn_norm", width, none}};
  }

  std::int64_t layers() const { return layers_; }

  /// Of the tensor of this name in GGUF, "blk.0.attn_q.weight" or its bias; none where config.json does not say it.
  std::optional<geometry> shape_of(std::string_view name) const {
    auto const dot = name.rfind('.');
    if (dot == name.npos) return std::nullopt;
    bool const is_bias = name.substr(dot) == ".bias";
    name = name.substr(0, dot);
    if (layer_of(name) >= 0) name.remove_prefix(name.find('.', block.size()) + 1);
    auto const at = std::find_if(matrices_.begin(), matrices_.end(), [&](auto const& m) { return m.name == name; });
    if (at == matrices_.end()) return std::nullopt;
    if (is_bias || at->columns == none) return dense_geometry(dtype::f32, {at->rows});
    return dense_geometry(dtype::f32, {at->rows, at->columns});
  }

  /// The layer that a tensor of this name belongs to; -1 for those of none.
  static std::int64_t layer_of(std::string_view name) {
    std::int64_t layer = -1;
    if (name.starts_with(block)) std::from_chars(name.data() + block.size(), name.data() + name.size(), layer);
    return layer;
  }

 private:
  static constexpr std::string_view block = "blk.";
  static constexpr std::int64_t none = 0;
  struct matrix {
    std::string_view name;
    std::int64_t rows, columns;  ///< `none`: a vector
  };

  std::int64_t layers_ = 0;
  std::vector<matrix> matrices_;
};

}  // namespace mixbit
