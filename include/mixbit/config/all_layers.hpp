// A preset made into a format for all layers: what it says of weights and inputs, without the rules by which it leaves
// layers out ("*lm_head*", "*router*", classes), so that each layer's sensitivity can be looked at.
//
//   options.formats = {mixbit::all_layers(preset("FP8_DEFAULT_CFG"), "FP8_EVERYWHERE")};
//
// A search shows formats leaf names alone, so there it makes a difference only for rules by class; in quantize() the
// head and what else the preset leaves out are quantized too.
#pragma once

#include <string>
#include <utility>

#include "mixbit/config/quantize_config.hpp"

namespace mixbit {

/// Under a name of its own, for it is another format: CUSTOM_0 where none is given, as ModelOpt calls the first that is
/// no preset. What it does not name is off. Throws `config_no_match` for a format without an entry for weights.
inline quantize_config all_layers(quantize_config const& format, std::string name = "CUSTOM_0") {
  quantize_config made{.name = std::move(name), .algorithm = format.algorithm};
  made.entries.push_back({.quantizer_name = "*", .enable = false, .origin = entry_origin::imported});
  bool weights = false;
  for (auto e : format.entries) {
    bool const of_weights = e.quantizer_name.matches("weight_quantizer"),
               of_inputs = e.quantizer_name.matches("input_quantizer");
    if (e.parent_class || of_weights == of_inputs) continue;  // of a class, of a name, of everything
    weights = weights || (of_weights && e.enable);
    e.origin = entry_origin::imported;
    made.entries.push_back(std::move(e));
  }
  if (!weights)
    fail(error_id::config_no_match, format.name,
         ": has no entry for the weights of all layers (\"*weight_quantizer\")");
  return made;
}

}  // namespace mixbit
