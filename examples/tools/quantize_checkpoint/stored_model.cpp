#include "stored_model.hpp"

#include <algorithm>
#include <string_view>

#include "mixbit/config/wildcard.hpp"
#include "mixbit/io/hf_tied.hpp"

namespace quantize_checkpoint {

namespace {

struct kept_rule {
  std::string_view modules, why;
};

constexpr std::string_view head = "an output head";

// Tables, and the layers that ModelOpt leaves unquantized by default, by the names that Hugging Face's models have.
constexpr kept_rule kept_rules[] = {
    {"*embed*", "an embedding"},     {"*wte", "an embedding"},        {"*wpe", "an embedding"},
    {"shared", "an embedding"},      {"*relative_attention_bias", "an embedding"},
    {"*lm_head*", head},             {"*output_layer*", head},        {"*proj_out", head},
    {"head", head},                  {"cls.*decoder", head},
    {"*router*", "a router"},        {"*.gate", "a router"},          {"*shared_expert_gate", "a router"},
    {"*norm*", "a norm"},            {"*conv1d*", "a short convolution"},
};

constexpr std::string_view weight_suffix = ".weight";
constexpr std::string_view transposed = "a Conv1D, stored [in, out]: blocks would lie along its outputs";

}  // namespace

stored_model::stored_model(mixbit::hf_source const& source, std::set<std::string> heads)
    : source_{source}, heads_{std::move(heads)}, conv1d_{source} {
  for (std::string_view const name : source.tensors().names())
    if (why_kept(name).empty()) names_.push_back(name.substr(0, name.size() - weight_suffix.size()));
  std::sort(names_.begin(), names_.end());
}

stored_layer stored_model::at(std::size_t i) const {
  std::string name{names_[i]};
  auto const t = source_.tensors().at(name + ".weight");
  return {std::move(name), "nn.Linear", nullptr, {t, const_cast<void*>(t.data)}, mixbit::layouts::linear};
}

std::optional<stored_layer> stored_model::find(std::string_view name) const {
  auto const there = std::lower_bound(names_.begin(), names_.end(), name);
  if (there == names_.end() || *there != name) return std::nullopt;
  return at(static_cast<std::size_t>(there - names_.begin()));
}

std::string stored_model::first_transposed() const {
  for (auto const& name : source_.tensors().names())
    if (why_kept(name) == transposed) return name;
  return {};
}

std::string stored_model::why_kept(std::string_view tensor) const {
  auto const module = mixbit::detail::hf::module_of(tensor);
  if (!module) return "not a weight";
  if (!source_.tensors().contains(tensor)) return {};
  auto const t = source_.tensors().at(tensor);
  if (t.rank != 2) return mixbit::detail::concat("of rank ", int{t.rank}, "; matrices are quantized");
  for (auto const& rule : kept_rules)
    if (mixbit::wildcard_match(rule.modules, *module) && !(rule.why == head && heads_.contains(*module)))
      return std::string{rule.why};
  if (conv1d_.contains(*module)) return std::string{transposed};
  if (!mixbit::is_compute(t.type)) return mixbit::detail::concat("of type ", mixbit::name_of(t.type));
  return t.size() == 0 ? "without elements" : "";
}

}  // namespace quantize_checkpoint
