// Which quantizers a module of each class carries, and how they stand before any config: the places that ModelOpt 0.47
// gives PyTorch's classes, as a registry that a host extends with its own.
//   registry.declare("my_attention", {{"q_bmm_quantizer"}, {"k_bmm_quantizer"}, {"v_bmm_quantizer"}});
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/config/closest.hpp"
#include "mixbit/config/quantizer_attribute_config.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

/// Of an attention's keys and values, as they go into its key/value cache.
inline constexpr std::string_view key_quantizer = "k_bmm_quantizer", value_quantizer = "v_bmm_quantizer";

/// One quantizer of a module: its leaf name, how it stands without a config, and whether a config can turn it on
/// (not where the input is no tensor of numbers, as an embedding's indices).
struct quantizer_placement {
  std::string name;
  std::vector<quantizer_attribute_config> attributes = {quantizer_attribute_config{}};
  bool locked_off = false;

  bool enabled() const {
    for (quantizer_attribute_config const& a : attributes)
      if (a.enable && !locked_off) return true;
    return false;
  }
  friend bool operator==(quantizer_placement const&, quantizer_placement const&) = default;
};

/// A module of a model with its quantizers: what config/resolve.hpp works on.
struct module_quantizers {
  std::string name;  ///< "model.layers.0.mlp.up_proj"
  std::string class_name;
  std::vector<quantizer_placement> quantizers;
};

class module_class_registry {
 public:
  /// Declares a class. Throws state_duplicate if the name is taken, config_value for a placement without a name or
  /// attributes, config_conflict for two of one name.
  void declare(std::string class_name, std::vector<quantizer_placement> placements) {
    if (find(class_name)) fail(error_id::state_duplicate, "module class ", class_name, " is already declared");
    replace(std::move(class_name), std::move(placements));
  }
  /// The same, over an earlier declaration.
  void replace(std::string class_name, std::vector<quantizer_placement> placements) {
    if (class_name.empty()) fail(error_id::config_value, "a module class needs a name");
    for (std::size_t i = 0; i < placements.size(); ++i) check(class_name, placements, i);
    classes_[canonical(class_name)] = std::move(placements);
  }
  /// Makes `alias` another name of a declared class, also where a config says parent_class.
  void alias(std::string alias, std::string_view class_name) {
    if (find(alias)) fail(error_id::state_duplicate, "module class ", alias, " is already declared");
    at(class_name);
    aliases_.push_back({std::move(alias), canonical(class_name)});
  }

  /// The placements, or null. PyTorch's classes go by "nn.Linear", "torch.nn.Linear" and "Linear".
  std::vector<quantizer_placement> const* find(std::string_view class_name) const {
    auto const found = classes_.find(canonical(class_name));
    return found == classes_.end() ? nullptr : &found->second;
  }
  /// The placements. Throws config_unknown_field with the names that come close.
  std::vector<quantizer_placement> const& at(std::string_view class_name) const {
    if (auto const* found = find(class_name)) return *found;
    fail(error_id::config_unknown_field, "no module class is declared as \"", class_name, '"',
         close_names(class_name, detail::span_of(names())));
  }
  /// The one name of a class: aliases followed, PyTorch's classes with "nn."; an unknown name as it is.
  std::string canonical(std::string_view class_name) const {
    for (auto const& [other, declared] : aliases_)
      if (other == class_name) return declared;
    std::string name{class_name};
    if (name.starts_with("torch.nn.")) name.erase(0, 6);
    if (!classes_.contains(name) && classes_.contains("nn." + name)) name.insert(0, "nn.");
    return name;
  }
  std::vector<std::string_view> names() const {
    std::vector<std::string_view> all;
    for (auto const& entry : classes_) all.push_back(entry.first);
    return all;
  }
  /// A module of a declared class, ready to be resolved.
  module_quantizers module(std::string name, std::string_view class_name) const {
    return {std::move(name), canonical(class_name), at(class_name)};
  }

 private:
  static void check(std::string const& class_name, std::vector<quantizer_placement> const& all, std::size_t i) {
    std::string const where = "module class " + class_name + '.' + all[i].name;
    if (all[i].name.empty()) fail(error_id::config_value, where, ": quantizer ", i, " has no name");
    if (all[i].attributes.empty()) fail(error_id::config_value, where, ": has no attributes");
    for (std::size_t k = 0; k < i; ++k)
      if (all[k].name == all[i].name) fail(error_id::config_conflict, where, ": is placed twice");
    for (quantizer_attribute_config const& a : all[i].attributes) a.validate(where);
  }

  std::map<std::string, std::vector<quantizer_placement>, std::less<>> classes_;
  std::vector<std::pair<std::string, std::string>> aliases_;  ///< and the class that each stands for
};

/// The classes known from the start: PyTorch's, as ModelOpt places them, and "attention", whose four quantizers are
/// off until a config turns them on (KV-cache presets match keys and values).
inline module_class_registry default_module_classes() {
  auto const attributes = [](bool on, axis_list axis = {}) {
    quantizer_attribute_config c;
    c.enable = on;
    c.axis = std::move(axis);
    return std::vector{c};
  };
  quantizer_placement const input{"input_quantizer", attributes(true)}, output{"output_quantizer", attributes(false)};
  quantizer_placement const indices{"input_quantizer", attributes(false), true};
  quantizer_placement const rows{"weight_quantizer", attributes(true, 0)}, whole{"weight_quantizer", attributes(true)};

  module_class_registry registry;
  registry.declare("nn.Linear", {input, rows, output});
  registry.declare("nn.Embedding", {indices, whole, output});
  for (char const* dimensions : {"1d", "2d", "3d"}) {
    for (char const* weighted : {"nn.Conv", "nn.ConvTranspose"})
      registry.declare(std::string{weighted} + dimensions, {input, rows, output});
    for (char const* plain : {"nn.BatchNorm", "nn.InstanceNorm", "nn.MaxPool", "nn.AvgPool", "nn.AdaptiveAvgPool"})
      registry.declare(std::string{plain} + dimensions, {input, output});
  }
  for (char const* plain : {"nn.LayerNorm", "nn.LeakyReLU"}) registry.declare(plain, {input, output});
  std::vector<quantizer_placement> attention;
  for (std::string_view operand : {std::string_view{"q_bmm_quantizer"}, key_quantizer, value_quantizer,
                                   std::string_view{"softmax_quantizer"}})
    attention.push_back({std::string{operand}, attributes(false)});
  registry.declare("attention", std::move(attention));
  return registry;
}

}  // namespace mixbit
