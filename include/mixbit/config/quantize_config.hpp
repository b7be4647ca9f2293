// A whole configuration: an ordered list of entries, each selecting quantizers by name and saying what they become, and
// the calibration algorithm. Later entries win. config/resolve.hpp applies it, config/json.hpp reads and writes it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/config/algorithm_config.hpp"
#include "mixbit/config/quantizer_attribute_config.hpp"
#include "mixbit/config/wildcard.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit {

/// Who wrote an entry: it decides whether matching nothing is an error (only for the user's own).
enum class entry_origin : std::uint8_t {
  user,
  preset,        ///< what a preset turns on
  default_rule,  ///< what every preset turns off
  imported       ///< from a file that says "imported": true, or that the caller imports as such
};

constexpr std::string_view name_of(entry_origin o) {
  constexpr std::string_view names[] = {"user", "preset", "default_rule", "imported"};
  return names[static_cast<int>(o)];
}

/// One rule. With `cfg` it replaces the whole attributes of what it matches, one config for a plain quantizer, several
/// for a sequential one; without, it only turns quantizers on or off and keeps their attributes.
struct quantizer_entry {
  pattern quantizer_name = "*";                           ///< over the full name, "layers.0.mlp.fc1.weight_quantizer"
  std::optional<std::string> parent_class = std::nullopt;  ///< only quantizers of modules of this class
  std::optional<std::vector<quantizer_attribute_config>> cfg = std::nullopt;
  bool enable = true;
  entry_origin origin = entry_origin::user;

  bool is_sequential() const { return cfg && cfg->size() > 1; }
  /// Who wrote it is no part of what it says.
  friend bool operator==(quantizer_entry const& a, quantizer_entry const& b) {
    return a.quantizer_name == b.quantizer_name && a.parent_class == b.parent_class && a.cfg == b.cfg &&
           a.enable == b.enable;
  }
};

struct quantize_config {
  std::string name = "";
  std::vector<quantizer_entry> entries = {};
  algorithm_config algorithm = {};

  /// Throws `error` that names the field, as "NAME: quant_cfg[3].cfg.num_bits: ...".
  void validate() const {
    std::string const prefix = name.empty() ? "" : name + ": ";
    for (std::size_t i = 0; i < entries.size(); ++i) {
      std::string const where = prefix + "quant_cfg[" + std::to_string(i) + ']';
      if (entries[i].quantizer_name.label().empty())
        fail(error_id::config_value, where, ".quantizer_name: is empty and matches nothing");
      if (!entries[i].cfg) continue;
      if (entries[i].cfg->empty())
        fail(error_id::config_conflict, where, ".cfg: is empty; leave it out to only enable or disable");
      for (std::size_t k = 0; k < entries[i].cfg->size(); ++k) {
        std::string const member = entries[i].is_sequential() ? '[' + std::to_string(k) + ']' : "";
        (*entries[i].cfg)[k].validate(where + ".cfg" + member);
      }
    }
    algorithm.validate(prefix + "algorithm");
  }
};

/// Do both mean the same, whatever their names?
inline bool same_content(quantize_config const& a, quantize_config const& b) {
  return a.entries == b.entries && a.algorithm == b.algorithm;
}

/// `base` followed by the entries of `extra`, as a preset followed by a KV-cache preset. The algorithm is base's where
/// it says one, else extra's; the name joins both.
inline quantize_config combine(quantize_config base, quantize_config const& extra) {
  for (quantizer_entry const& e : extra.entries) base.entries.push_back(e);
  if (base.algorithm.state == algorithm_config::presence::absent) base.algorithm = extra.algorithm;
  base.name += '+' + extra.name;
  return base;
}

}  // namespace mixbit
