// Suite resolved: four module trees under every preset and 15 configs in all forms: which quantizer is on, with which
// attributes.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "golden_suites/config_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/config/resolve.hpp"

namespace golden {

/// A quantizer as the golden file shows it.
inline mixbit::config_json shown(mixbit::quantizer_attribute_config const& a) {
  mixbit::config_json const all = mixbit::attributes_to_json(a, mixbit::json_form::normal);
  mixbit::config_json leaf;
  for (char const* field : {"enable", "num_bits", "axis", "block_sizes", "unsigned", "narrow_range", "fake_quant",
                            "bias", "pass_through_bwd", "use_constant_amax"})
    leaf[field] = all[field];
  leaf["dynamic"] = a.type == mixbit::quantizer_type::dynamic_type;
  leaf["calibrator"] = a.calibrator.is_max() ? "MaxCalibrator" : "HistogramCalibrator";
  leaf["rotate"] = a.rotate.enable;
  return leaf;
}

/// {"disabled": [names], "enabled": {name: leaf, or a list of leaves}}: sequential quantizers are listed even when off.
inline mixbit::config_json shown(mixbit::resolution const& resolution) {
  std::vector<std::string> disabled;
  mixbit::config_json enabled = mixbit::config_json::object();
  for (mixbit::resolved_quantizer const& q : resolution.quantizers) {
    if (q.attributes.size() > 1) {
      for (mixbit::quantizer_attribute_config const& a : q.attributes) enabled[q.name].push_back(shown(a));
    } else if (q.enabled()) {
      enabled[q.name] = shown(q.attributes[0]);
    } else {
      disabled.push_back(q.name);
    }
  }
  std::sort(disabled.begin(), disabled.end());
  return {{"disabled", disabled}, {"enabled", enabled}};
}

}  // namespace golden

inline suite_result run_resolved(std::filesystem::path const& dir) {
  suite_result result{.name = "resolved"};
  auto const file = mixbit::read_json_file(dir / "resolved.json");
  mixbit::module_class_registry const classes = mixbit::default_module_classes();
  std::map<std::string, std::vector<mixbit::module_quantizers>> trees;
  for (auto const& [name, modules] : file.at("skeletons").items())
    for (mixbit::config_json const& m : modules) {
      std::string const module = m.at(0), class_name = m.at(1);
      if (classes.find(class_name)) trees[name].push_back(classes.module(module, class_name));
    }
  if (file.at("cases").empty()) result.check(false, "resolved.json holds no cases");
  for (mixbit::config_json const& c : file.at("cases")) {
    std::string const name = c.at("name"), tree = c.at("skeleton");
    mixbit::quantize_config config{.name = name};
    if (c.at("source") == "preset") config = mixbit::preset(name);
    else config.entries = mixbit::quant_cfg_from_json(file.at("custom").at(name));
    mixbit::config_json const got = golden::shown(mixbit::apply_entries(trees[tree], config, classes));
    mixbit::config_json const expected{{"disabled", c.at("disabled")}, {"enabled", c.at("enabled")}};
    result.check(golden::same_json(expected, got), tree + ", " + name + golden::both(expected, got));
  }
  return result;
}
