// Applies a config to a model's quantizers, as data: no host, no tensors. Entries run in order over full names; one
// with `cfg` replaces the whole attributes, one without only turns on or off; later ones win. This is what ModelOpt's
// set_quantizer_by_cfg does to a model (tests/golden/resolved.json).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mixbit/config/module_classes.hpp"
#include "mixbit/config/quantize_config.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit {

/// One quantizer as the config leaves it. Several attributes apply in order (a sequential quantizer).
struct resolved_quantizer {
  std::string name;           ///< "model.layers.0.mlp.up_proj.weight_quantizer"
  std::size_t module = 0;     ///< index into the modules given
  std::size_t placement = 0;  ///< index into that module's quantizers
  std::vector<quantizer_attribute_config> attributes;
  std::optional<std::size_t> decided_by = std::nullopt;  ///< the last entry that matched; none: as declared

  bool enabled() const {
    for (quantizer_attribute_config const& a : attributes)
      if (a.enable) return true;
    return false;
  }
};

struct resolution {
  std::vector<resolved_quantizer> quantizers;  ///< module by module, in the order given
  std::vector<std::size_t> matches;            ///< per entry of the config, how many quantizers it matched
  std::vector<std::string> notes;              ///< a line for each entry that matched nothing

  resolved_quantizer const* find(std::string_view name) const {
    for (resolved_quantizer const& q : quantizers)
      if (q.name == name) return &q;
    return nullptr;
  }
  std::size_t enabled_count() const {
    std::size_t count = 0;
    for (resolved_quantizer const& q : quantizers) count += q.enabled();
    return count;
  }
};

namespace detail {

inline void apply_entry(quantizer_entry const& entry, std::size_t index, bool locked_off, resolved_quantizer& q) {
  if (entry.cfg) q.attributes = *entry.cfg;
  for (quantizer_attribute_config& a : q.attributes) {
    bool const on = entry.cfg ? entry.enable && a.enable : entry.enable;  // a cfg may turn off one of a sequence
    a.enable = on && !locked_off;
  }
  q.decided_by = index;
}

/// `entry 3 ("*mlp*", parent class nn.Linear)`, for messages.
inline std::string describe(quantizer_entry const& entry, std::size_t index) {
  std::string text = "entry " + std::to_string(index) + " (\"" + entry.quantizer_name.label() + '"';
  if (entry.parent_class) text += ", parent class " + *entry.parent_class;
  return text + ')';
}

/// "NAME: ", or nothing for a config without a name.
inline std::string name_prefix(quantize_config const& config) { return config.name.empty() ? "" : config.name + ": "; }

/// Of an entry that matched nothing.
inline std::string unmatched_note(quantize_config const& config, std::size_t i) {
  return name_prefix(config) + describe(config.entries[i], i) + " of the " +
         std::string{name_of(config.entries[i].origin)} + " matches no quantizer";
}

}  // namespace detail

/// Applies the entries and judges nothing. `classes` says which class names mean the same; by default PyTorch's.
inline resolution apply_entries(std::span<module_quantizers const> modules, quantize_config const& config,
                                module_class_registry const& classes = default_module_classes()) {
  config.validate();
  resolution result;
  result.matches.assign(config.entries.size(), 0);
  std::vector<std::string> parents;
  for (quantizer_entry const& e : config.entries) parents.push_back(classes.canonical(e.parent_class.value_or("")));
  for (std::size_t m = 0; m < modules.size(); ++m) {
    std::string const class_name = classes.canonical(modules[m].class_name);
    std::string const prefix = modules[m].name.empty() ? "" : modules[m].name + '.';
    for (std::size_t p = 0; p < modules[m].quantizers.size(); ++p) {
      quantizer_placement const& placement = modules[m].quantizers[p];
      resolved_quantizer q{prefix + placement.name, m, p, placement.attributes};
      if (placement.locked_off)
        for (quantizer_attribute_config& a : q.attributes) a.enable = false;
      for (std::size_t i = 0; i < config.entries.size(); ++i) {
        quantizer_entry const& entry = config.entries[i];
        if (entry.parent_class && parents[i] != class_name) continue;
        if (!entry.quantizer_name.matches(q.name)) continue;
        ++result.matches[i];
        detail::apply_entry(entry, i, placement.locked_off, q);
      }
      result.quantizers.push_back(std::move(q));
    }
  }
  for (std::size_t i = 0; i < config.entries.size(); ++i)
    if (result.matches[i] == 0) result.notes.push_back(detail::unmatched_note(config, i));
  return result;
}

/// What is judged of a resolution; those of parts of a model add up to that of the whole.
struct resolution_totals {
  std::vector<std::size_t> matches;  ///< per entry of the config
  std::size_t quantizers = 0, enabled = 0;
  std::string first, last;  ///< quantizers

  explicit resolution_totals(quantize_config const& config) : matches(config.entries.size()) {}
  void add(resolution const& part) {
    for (std::size_t i = 0; i < matches.size(); ++i) matches[i] += part.matches[i];
    if (part.quantizers.empty()) return;
    if (quantizers == 0) first = part.quantizers.front().name;
    last = part.quantizers.back().name;
    quantizers += part.quantizers.size();
    enabled += part.enabled_count();
  }
};

/// Throws config_no_match where an entry of the user's own matched nothing.
inline void check_matches(resolution_totals const& all, quantize_config const& config) {
  for (std::size_t i = 0; i < config.entries.size(); ++i)
    if (all.matches[i] == 0 && config.entries[i].origin == entry_origin::user)
      fail(error_id::config_no_match, detail::name_prefix(config), detail::describe(config.entries[i], i),
           " matches none of ", all.quantizers, " quantizers",
           all.quantizers == 0 ? std::string{} : ", which go from " + all.first + " to " + all.last);
}

/// Throws what check_matches throws (unless not `strict`), and config_no_match where nothing is enabled in the end.
inline void check_resolution(resolution_totals const& all, quantize_config const& config, bool strict = true) {
  if (strict) check_matches(all, config);
  if (all.enabled == 0)
    fail(error_id::config_no_match, detail::name_prefix(config), "enables none of ", all.quantizers,
         " quantizers: no entry turns one on, or later entries turn all off");
}

/// The same of a whole model at once.
inline void check_matches(resolution const& result, quantize_config const& config) {
  resolution_totals all{config};
  all.add(result);
  check_matches(all, config);
}
inline void check_resolution(resolution const& result, quantize_config const& config, bool strict = true) {
  resolution_totals all{config};
  all.add(result);
  check_resolution(all, config, strict);
}

/// Applies the entries and checks the outcome: the call that quantize() makes.
inline resolution resolve(std::span<module_quantizers const> modules, quantize_config const& config, bool strict = true,
                          module_class_registry const& classes = default_module_classes()) {
  resolution result = apply_entries(modules, config, classes);
  check_resolution(result, config, strict);
  return result;
}

}  // namespace mixbit
