// Suite presets: each of ModelOpt's named configurations, equal as JSON, entries in order.
#pragma once

#include <filesystem>
#include <string>

#include "golden_suites/config_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/config/presets.hpp"

inline suite_result run_presets(std::filesystem::path const& dir) {
  suite_result result{.name = "presets"};
  auto const file = mixbit::read_json_file(dir / "presets.json");
  for (auto const& [name, expected] : file.items()) {
    if (mixbit::preset_full_name(name) != name) {
      result.check(false, "there is no preset " + name);
      continue;
    }
    mixbit::config_json const got = mixbit::config_to_json(mixbit::preset(name));
    result.check(golden::same_json(expected, got), name + golden::both(expected, got));
  }
  if (file.size() != mixbit::preset_names().size())
    result.check(false, "presets.json holds " + std::to_string(file.size()) + " presets, the library " +
                            std::to_string(mixbit::preset_names().size()));
  return result;
}
