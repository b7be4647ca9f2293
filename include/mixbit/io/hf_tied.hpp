// The output layer of a source whose file has that layer's weight once, as the embedding's (tie_word_embeddings).
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "mixbit/io/hf_source.hpp"
#include "mixbit/model/module.hpp"

namespace mixbit::detail::hf {

/// "a.b" of "a.b.weight".
inline std::optional<std::string> module_of(std::string_view tensor) {
  constexpr std::string_view suffix = ".weight";
  if (!tensor.ends_with(suffix)) return std::nullopt;
  return std::string{tensor.substr(0, tensor.size() - suffix.size())};
}

/// As the file has it: in PyTorch's axes, and never flattened.
template <backend B>
const_tensor_ref file_weight(module_ref<B> const& module) {
  return module.layout.weight.apply(module.weight);
}

/// The modules of a walk, asked which of them a source has tied.
template <backend B>
class tied_weights {
 public:
  explicit tied_weights(std::vector<module_ref<B>> const& modules) {
    for (auto const& module : modules) {
      walked_.insert(module.name);
      if (module.layout.kind == site_kind::lookup) embeddings_.push_back(module);
    }
  }

  bool is_walked(std::string const& module) const { return walked_.contains(module); }

  /// A tied output layer is known by its name, or because it lies in the memory of an embedding of the walk.
  bool is_head(hf_source const& source, module_ref<B> const& module) const {
    return source.is_tied() && module.layout.kind != site_kind::lookup &&
           (module.name.ends_with("lm_head") ||
            std::any_of(embeddings_.begin(), embeddings_.end(),
                        [&](auto const& e) { return e.weight.data == module.weight.data; }));
  }

  /// The source's tensor that a head was tied to: of the embedding in its memory, else of one of its shape, else a
  /// table of its shape that is not walked. Empty where there is none.
  std::string table_of(hf_source const& source, module_ref<B> const& head) const {
    auto const& file = source.tensors();
    auto const fits = [&](std::string const& name) {
      return file.contains(name) && file.at(name).same_shape(file_weight(head));
    };
    for (bool const anywhere : {false, true})
      for (auto const& e : embeddings_)
        if ((anywhere || e.weight.data == head.weight.data) && fits(e.name + ".weight")) return e.name + ".weight";
    for (auto const& name : file.names())
      if (auto const module = module_of(name); module && !walked_.contains(*module) && fits(name)) return name;
    return {};
  }

 private:
  std::unordered_set<std::string> walked_;
  std::vector<module_ref<B>> embeddings_;
};

}  // namespace mixbit::detail::hf
