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

/// Empty: it may be quantized.
std::string why_kept_of(std::string const& tensor, mixbit::const_tensor_ref const& t,
                        std::set<std::string> const& heads) {
  auto const module = mixbit::detail::hf::module_of(tensor);
  if (!module) return "not a weight";
  if (t.rank != 2) return mixbit::detail::concat("of rank ", int{t.rank}, "; matrices are quantized");
  for (auto const& rule : kept_rules)
    if (mixbit::wildcard_match(rule.modules, *module) && !(rule.why == head && heads.contains(*module)))
      return std::string{rule.why};
  if (!mixbit::is_compute(t.type)) return mixbit::detail::concat("of type ", mixbit::name_of(t.type));
  return t.size() == 0 ? "without elements" : "";
}

}  // namespace

stored_model::stored_model(mixbit::hf_source const& source, std::set<std::string> const& heads) {
  auto names = source.tensors().names();
  std::sort(names.begin(), names.end());
  for (auto const& name : names) {
    auto const t = source.tensors().at(name);
    if (auto why = why_kept_of(name, t, heads); !why.empty())
      kept_.emplace(name, std::move(why));
    else
      matrices_.push_back({*mixbit::detail::hf::module_of(name), {t, const_cast<void*>(t.data)}});
  }
}

std::string const& stored_model::why_kept(std::string const& tensor) const {
  static std::string const none;
  auto const at = kept_.find(tensor);
  return at == kept_.end() ? none : at->second;
}

}  // namespace quantize_checkpoint
