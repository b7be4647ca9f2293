#include "conv1d.hpp"

#include <algorithm>
#include <string>

#include "mixbit/io/hf_tied.hpp"

namespace quantize_checkpoint {

namespace {

// Those of transformers whose attention and MLP are made of Conv1D. gpt_bigcode and gpt_neo have the names, and Linear.
constexpr std::string_view model_types[] = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp_decoder"};
constexpr std::string_view architectures[] = {"GPT2", "OpenAIGPT", "ImageGPT", "DecisionTransformer"};
constexpr std::string_view conv1d_names[] = {"c_attn", "q_attn", "c_proj", "c_fc"};

bool says_so(mixbit::json_document const& config) {
  auto const type = config.find("model_type");
  if (type != config.end() && type->is_string() && std::ranges::count(model_types, type->get<std::string>()) != 0)
    return true;
  auto const list = config.find("architectures");
  if (list == config.end() || !list->is_array()) return false;
  return std::any_of(list->begin(), list->end(), [](auto const& a) {
    return a.is_string() && std::ranges::any_of(architectures, [&](std::string_view begin) {
             return a.template get<std::string>().starts_with(begin);
           });
  });
}

bool has_name(std::string_view layer) {
  auto const dot = layer.rfind('.');
  return std::ranges::count(conv1d_names, dot == layer.npos ? layer : layer.substr(dot + 1)) != 0;
}

}  // namespace

conv1d_layers::conv1d_layers(mixbit::hf_source const& source) : source_{source} {
  auto const& config = source.config();
  by_name_ = says_so(config);
  for (auto const& [key, part] : config.items())  // a decoder within another model
    by_name_ = by_name_ || (part.is_object() && says_so(part));
  for (auto const& tensor : source.tensors().names()) {
    if (by_name_) return;
    auto const layer = mixbit::detail::hf::module_of(tensor);
    by_name_ = layer && has_name(*layer) && bias_says(*layer);
  }
}

bool conv1d_layers::contains(std::string_view layer) const {
  return (by_name_ && has_name(layer)) || bias_says(layer);
}

bool conv1d_layers::bias_says(std::string_view layer) const {
  auto const& tensors = source_.tensors();
  auto const weight = std::string{layer} + ".weight", bias = std::string{layer} + ".bias";
  if (!tensors.contains(weight) || !tensors.contains(bias)) return false;
  auto const w = tensors.at(weight), b = tensors.at(bias);
  return w.rank == 2 && b.rank == 1 && b.shape[0] == w.shape[1] && b.shape[0] != w.shape[0];
}

}  // namespace quantize_checkpoint
