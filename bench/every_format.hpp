// Every format of the library for a search over all layers: the presets that quantize each layer's weight and no
// key/value cache, and weights alone in every element that a config can name (weight_formats.hpp).
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/config/all_layers.hpp"
#include "mixbit/config/presets.hpp"
#include "weight_formats.hpp"

namespace bench {

struct format_list {
  std::vector<mixbit::quantize_config> formats;
  std::vector<std::string> repeats;  ///< presets that are in all layers what one of the formats is: "A as B"
};

/// Has the format an entry that turns on a quantizer of this name in every layer?
inline bool turns_on(mixbit::quantize_config const& format, char const* quantizer) {
  return std::any_of(format.entries.begin(), format.entries.end(), [&](auto const& entry) {
    return entry.enable && !entry.parent_class && entry.quantizer_name.matches(quantizer);
  });
}

/// A search shows its formats the quantizers' own names alone, so presets that differ in which layers they leave out
/// are one candidate: that of the shortest name stands for the others.
inline format_list every_format() {
  format_list list{weight_formats(), {}};
  std::vector<std::string_view> names(mixbit::preset_names().begin(), mixbit::preset_names().end());
  std::stable_sort(names.begin(), names.end(), [](auto a, auto b) { return a.size() < b.size(); });
  for (auto const name : names) {
    auto const preset = mixbit::preset(name);
    if (!turns_on(preset, "weight_quantizer")) continue;
    if (turns_on(preset, "k_bmm_quantizer") || turns_on(preset, "v_bmm_quantizer")) continue;
    auto const same = std::find_if(list.formats.begin(), list.formats.end(), [&](auto const& known) {
      return same_content(all_layers(known), all_layers(preset));
    });
    if (same == list.formats.end()) list.formats.push_back(preset);
    else list.repeats.push_back(preset.name + " as " + same->name);
  }
  return list;
}

}  // namespace bench
