// The config of a format in a plan's or a search's file, under the name it had.
#pragma once

#include <string>
#include <string_view>

#include "mixbit/autoquant/plan.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/config/presets.hpp"

namespace mixbit::detail {

/// A config as the text of a file has it, with its own name or `label`'s. What is written is what it is: a preset that
/// a user has changed may have kept its name. `where` and `path` are for errors.
inline quantize_config named_config(json_document written, std::string const& label, std::string const& where,
                                    std::string const& path) {
  std::string name = label;
  if (written.contains("name")) {
    auto const& own = written["name"];
    if (!own.is_string() || own.get_ref<std::string const&>().empty())
      fail(error_id::search_plan, where, ": ", path, ".name must be a ", own.is_string() ? "name" : "text", ", got ",
           excerpt(own));
    name = own.get<std::string>();
  }
  written.erase("name");
  auto read = config_from_json(written.dump(), label);
  read.name = name;
  if (preset_full_name(name).empty()) return read;
  auto known = preset(preset_full_name(name));
  return same_content(known, read) ? known : read;
}

/// Does a format's label not say all of it, as that of a preset does?
inline bool needs_config(search_format const& f) {
  std::string_view const name = preset_full_name(without_bits(f.label));
  return name.empty() || !same_content(preset(name), f.config);
}

}  // namespace mixbit::detail
