// Writing a quantized model's state; io/state.hpp says what of it and how the files look.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/core/digest.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/quantizer_tensors.hpp"
#include "mixbit/io/staged_output.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/transaction.hpp"

namespace mixbit::detail {

/// The version that is written; all up to it are read.
inline constexpr int state_version = 1;
inline constexpr char const* state_json_name = "state.json";
inline constexpr char const* state_tensors_name = "state.safetensors";

inline json_document shape_json(geometry const& g) {
  auto sizes = json_document::array();
  for (int a = 0; a < g.rank; ++a) sizes.push_back(g.shape[a]);
  return sizes;
}

/// In sparse form, which keeps what a config said; with num_bits where that was `enable` alone, which says nothing.
inline json_document attributes_json(std::vector<quantizer_attribute_config> const& several) {
  auto list = json_document::array();
  for (auto const& a : several) {
    list.push_back(attributes_to_json(a));
    if (list.back().size() == 1 && list.back().contains("enable")) list.back()["num_bits"] = bits_to_json(a.num_bits);
  }
  return list;
}

/// Of a host's weight in PyTorch's order; "" for a type that kernels do not compute on.
template <backend B>
std::string weight_digest(B& device, const_tensor_ref const& weight) {
  if (!is_compute(weight.type)) return {};
  content_digest digest;
  add_weight(digest, device, weight);
  return digest.text();
}

template <backend B>
class state_writer {
 public:
  explicit state_writer(model<B>& m) : model_{m}, modules_{m.modules()} {}

  /// Throws `state_nested` inside a pass, and for a quantizer whose scale is being learned and is none of `learned`.
  void add_layers(bool with_weights, std::set<std::string> const& learned) {
    auto const& n = model_.options().numerics;
    json_["version"] = state_version;
    json_["numerics"] = {{"policy", name_of(n.rules)}, {"mx", name_of(n.mx)}};
    auto layers = json_document::array();
    for (auto const& module : modules_) {
      refuse_inside_pass(*module.slots->shared_site(), "save_state");
      layers.push_back(layer(module, with_weights, learned));
    }
    json_["layers"] = std::move(layers);
  }
  json_document& json() { return json_; }
  file_tensors& tensors() { return tensors_; }

  /// Both files, into an output that the caller commits.
  void write(staged_output& out, std::filesystem::path const& inside) {
    auto digests = json_document::array();
    for (auto const& t : tensors_.all()) digests.push_back({{"name", t.name}, {"digest", elements_digest(t.tensor)}});
    json_["tensors"] = std::move(digests);
    auto const json_path = out.path(inside / state_json_name);
    std::string const text = dump_json(json_, in_quotes(json_path), 1) + "\n";
    write_file_atomically(json_path, text);
    write_safetensors(out.path(inside / state_tensors_name), tensors_.all(),
                      {{"format", "mixbit_state"}, {state_json_name, digest_of(std::as_bytes(std::span{text}))}});
  }

 private:
  json_document layer(module_ref<B> const& module, bool with_weights, std::set<std::string> const& learned) {
    auto const& s = *module.slots->shared_site();
    json_document j{{"name", module.name}, {"class", module.class_name}, {"weight", weight(module, with_weights)}};
    if (s.folded) j["folded"] = true;
    if (!s.scales_folded_into.empty()) j["scales_folded_into"] = s.scales_folded_into;
    if (!s.recipes.empty()) {
      auto const& recipe = s.recipes[static_cast<std::size_t>(s.active)];
      for (auto const& q : recipe.quantizers)
        if (!learned.contains(q.path())) q.refuse_learning("saving its state, or give save_state its training");
      j["recipe"] = recipe.recipe;
      j["algorithm"] = recipe.algorithm ? algorithm_to_json(*recipe.algorithm) : json_document{};
      if (recipe.tokens) j["tokens"] = *recipe.tokens;
      auto quantizers = json_document::array();
      for (auto const& q : recipe.quantizers) quantizers.push_back(quantizer(q));
      j["quantizers"] = std::move(quantizers);
      add_recipe(tensors_, module.name + ".", recipe, model_.device());
    }
    return j;
  }

  json_document weight(module_ref<B> const& module, bool stored) {
    bool const packed = module.slots->packed() != nullptr;  // the host's is not read any more, and may be gone
    if (module.weight.data == nullptr && !packed) return nullptr;
    const_tensor_ref const w = canonical_weight(module);
    json_document j{{"dtype", name_of(w.type)}, {"shape", shape_json(w)}};
    if (packed) return j;
    j["digest"] = weight_digest(model_.device(), w);
    if (!stored) return j;
    auto const [user, is_first] = users_.try_emplace(w.data, module.name + ".weight", w);
    bool const tied = !is_first && same_view(user->second.second, w);  // is in the file once
    j["stored_as"] = tied ? user->second.first : module.name + ".weight";
    if (!tied) add_weight_elements(module.name + ".weight", w);
    return j;
  }
  void add_weight_elements(std::string const& name, const_tensor_ref const& w) {
    if constexpr (B::place == device::cpu) {
      tensors_.add_held(name, model_.device(), w);
    } else {
      held_tensor<B> copy{model_.device(), w};
      workspace_lock<B> const locked{model_.scratch()};
      copy_elements(model_.device(), model_.scratch().scratch, w, copy.view());
      tensors_.add_held(name, model_.device(), std::as_const(copy).view());
    }
  }

  static json_document quantizer(sequential_quantizer<B> const& q) {
    json_document j{{"name", q.leaf()}, {"enabled", q.enabled()}, {"members", q.members().size()}};
    j["attributes"] = attributes_json(q.attributes());
    if (q.configured() != q.attributes()) j["configured"] = attributes_json(q.configured());
    return j;
  }

  /// Of the elements in the order of the axes, as the file has them.
  static std::string elements_digest(const_tensor_ref const& t) {
    if (t.is_dense()) return digest_of({t.as<std::byte>(), static_cast<std::size_t>(t.bytes())});
    content_digest digest;
    auto const element = size_of(t.type);
    std::int64_t const width = t.rank == 0 ? 1 : t.shape[t.rank - 1], step = t.rank == 0 ? 1 : t.stride[t.rank - 1];
    for_rows(t, [&](std::int64_t offset, std::int64_t) {
      for (std::int64_t k = 0; k < width; ++k)
        digest.add(std::span{t.as<std::byte>() + (offset + k * step) * static_cast<std::int64_t>(element), element});
    });
    return digest.text();
  }

  model<B>& model_;
  std::vector<module_ref<B>> modules_;
  std::map<void const*, std::pair<std::string, geometry>> users_;  ///< of the weights that are stored
  json_document json_;
  file_tensors tensors_;
};

}  // namespace mixbit::detail
