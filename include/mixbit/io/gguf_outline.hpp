// What a GGUF file holds of a Hugging Face checkpoint: names, types and order, before anything is encoded.
//
// Contract: an export says what is quantized (add_quantized) and calls take_the_rest() once; everything else is then
// written as it is, float32, float16 and bfloat16 in their type, vectors as float32, as llama.cpp wants them. Errors:
// `file_content`, naming the source and the tensor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mixbit/io/gguf_llama_shape.hpp"
#include "mixbit/io/gguf_naming.hpp"
#include "mixbit/io/hf_source.hpp"

namespace mixbit {

/// How a model family calls its tensors and describes its shape.
struct gguf_family {
  gguf_naming names;
  gguf_metadata metadata;
  std::optional<gguf_llama_shape> shape{};  ///< that the tensors are held to
};

/// The family of a config.json, if its names are known. Throws `file_content` for what its metadata lack; `otherwise`:
/// what to say, behind the refusal, of a model that this version has no metadata for.
inline std::optional<gguf_family> gguf_family_of(json_document const& config, std::string_view otherwise = {}) {
  if (!is_llama(config)) return std::nullopt;
  return gguf_family{gguf_llama_names(config), gguf_llama_metadata(config, otherwise), gguf_llama_shape{config}};
}

/// A tensor of the file.
struct gguf_item {
  std::string from;  ///< the source's tensor
  gguf_place place;
  gguf_type type = gguf_type::f32;
  geometry shape;

  gguf_tensor tensor() const { return {place.name, type, shape}; }
  /// The scale of NVFP4 above its blocks', a float32 behind the tensor: beside "blk.0.attn_q.weight"
  /// "blk.0.attn_q.scale".
  std::optional<gguf_tensor> scale() const {
    if (type != gguf_type::nvfp4) return std::nullopt;
    constexpr std::string_view suffix = ".weight";
    std::string name = place.name;
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
    return gguf_tensor{name + ".scale", gguf_type::f32, dense_geometry(dtype::f32, {1})};
  }
};

class gguf_outline {
 public:
  /// `unnamed`: what to say, behind the refusal, of a tensor that the family has no name for.
  gguf_outline(hf_source const& source, gguf_family family, std::string unnamed = {})
      : source_{source}, family_{std::move(family)}, unnamed_{std::move(unnamed)} {}

  /// A weight in blocks.
  void add_quantized(std::string const& tensor, geometry const& shape, gguf_type type) {
    items_[tensor] = {tensor, place_of(tensor, shape), type, shape};
  }

  /// In the type of `like`.
  void add_plain(std::string const& tensor, const_tensor_ref const& like) {
    auto const place = place_of(tensor, like);
    geometry const shape = like.rank == 0 ? dense_geometry(like.type, {1}) : geometry{like};
    if (!is_compute(like.type))
      refuse(tensor, " is ", name_of(like.type), "; float32, float16 and bfloat16 are written");
    gguf_type const type = shape.rank == 1 || like.type == dtype::f32 ? gguf_type::f32
                           : like.type == dtype::f16                  ? gguf_type::f16
                                                                      : gguf_type::bf16;
    items_[tensor] = {tensor, place, type, shape};
  }

  /// Of the source, what is not added yet; then the order of the file is known, that of the source's names. Refuses
  /// tensors that are not as config.json says.
  void take_the_rest() {
    for (auto const& name : source_.tensors().names())
      if (!items_.contains(name)) add_plain(name, source_.tensors().at(name));
    for (auto const& [name, i] : items_)
      if (!i.place.name.empty()) order_.push_back(i);
    std::sort(order_.begin(), order_.end(), [](auto const& a, auto const& b) { return a.from < b.from; });
    if (family_.shape) require_shape(*family_.shape);
    for (auto const& i : order_) {
      tensors_.push_back(i.tensor());
      if (auto scale = i.scale()) tensors_.push_back(std::move(*scale));
      if (gguf_info(i.type).block > 1) used_.insert(i.type);
    }
  }

  /// Of the family, with what all files say.
  gguf_metadata metadata() const {
    auto all = family_.metadata;
    all.push_back({"general.quantization_version", std::uint32_t{2}});
    all.push_back({"general.file_type", file_type()});
    return all;
  }
  std::vector<gguf_item> const& items() const { return order_; }
  /// Of the file, in order: those of the items, and their scales.
  std::vector<gguf_tensor> const& tensors() const { return tensors_; }
  /// The item that a tensor of the source becomes; null where it is left out.
  gguf_item const* find(std::string_view from) const {
    auto const at = std::lower_bound(order_.begin(), order_.end(), from,
                                     [](auto const& i, auto const& name) { return i.from < name; });
    return at != order_.end() && at->from == from ? &*at : nullptr;
  }

  /// What is unusual in a file with these metadata, a line each.
  std::vector<std::string> notes(gguf_metadata const& metadata) const {
    std::vector<std::string> notes;
    bool const tokens = std::any_of(metadata.begin(), metadata.end(),
                                    [](auto const& e) { return e.key.starts_with("tokenizer."); });
    if (!tokens) notes.push_back("no tokenizer is in the metadata (tokenizer.ggml.*), and llama.cpp needs one");
    if (used_.empty()) notes.push_back("no module is quantized: the file holds an unquantized model");
    if (used_.contains(gguf_type::q4_0))
      notes.push_back("Q4_0 is held as it was simulated, in codes from -7 to 7; llama.cpp's own uses -8 too");
    return notes;
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(std::string const& tensor, Parts const&... why) const {
    auto const& files = source_.tensors();
    fail(error_id::file_content, files.contains(tensor) ? files.label_of(tensor) : files.label(), ": tensor ",
         in_quotes(tensor), why...);
  }

  gguf_place place_of(std::string const& tensor, geometry const& shape) const {
    auto const place = family_.names(tensor);
    if (!place) refuse(tensor, " has no name in GGUF", unnamed_);
    std::int64_t const rows = shape.rank == 0 ? 1 : shape.shape[0];
    if (place->heads < 0 || (place->heads > 0 && rows % (2 * place->heads) != 0))
      refuse(tensor, ": ", rows, " rows are not an even number for each of ", place->heads, " heads");
    return *place;
  }

  void require_shape(gguf_llama_shape const& shape) const {
    std::int64_t layers = 0;
    for (auto const& i : order_) {
      layers = std::max(layers, shape.layer_of(i.place.name) + 1);
      if (auto const said = shape.shape_of(i.place.name); said && !said->same_shape(i.shape))
        refuse(i.from, " is ", to_string(i.shape), ", and by the numbers of config.json ", to_string(*said));
    }
    if (layers != shape.layers())
      fail(error_id::file_content, source_.tensors().label(), ": has ", layers, " layers; num_hidden_layers of ",
           "config.json is ", shape.layers());
  }

  /// llama.cpp's number of the file's type (LLAMA_FTYPE), where one says it; "guessed" for mixtures.
  std::uint32_t file_type() const {
    if (used_.size() != 1) return used_.empty() ? 0 : 1024;
    switch (*used_.begin()) {
      case gguf_type::q4_0: return 2;
      case gguf_type::q8_0: return 7;
      case gguf_type::mxfp4: return 38;
      case gguf_type::nvfp4: return 39;
      default: return 1024;
    }
  }

  hf_source const& source_;
  gguf_family family_;
  std::string unnamed_;
  std::unordered_map<std::string, gguf_item> items_;  ///< by the source's names
  std::vector<gguf_item> order_;
  std::vector<gguf_tensor> tensors_;
  std::set<gguf_type> used_;  ///< of blocks
};

}  // namespace mixbit
