// Configurations to and from JSON. Read are ModelOpt's three forms of "quant_cfg":
//   a list of {"quantizer_name": "*weight_quantizer", "parent_class": ..., "cfg": {...} or [{...}], "enable": ...},
//   a list of single keys {"*weight_quantizer": {"num_bits": 8}},
//   and the legacy dictionary {"*weight_quantizer": {...}, "default": {"enable": false}, "nn.Linear": {"*": {...}}},
// whose keys are rules in their order, "default" meaning "*". Written is the first. Errors carry the field's path.
//
// A whole config is an object with
//   "quant_cfg"  the entries, needed
//   "algorithm"  null, a method's name, {"method": ..., its parameters}, or a list of these; may be left out
//   "name"       a text; else the file's name
//   "imported"   true: entries may match nothing
// "cfg" holds attributes: enable, num_bits, effective_bits, axis, fake_quant, unsigned, narrow_range, learn_amax, type,
// block_sizes, bias, trt_high_precision_dtype, calibrator, rotate, pass_through_bwd, backend, backend_extra_args,
// use_constant_amax, constant_amax (config/quantizer_attribute_config.hpp says what each means).
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/config/attribute_json.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/config/quantize_config.hpp"
#include "mixbit/core/error.hpp"

namespace mixbit {

namespace detail {

/// `cfg`: one object, or a list of them for a sequential quantizer. None may be empty.
inline std::vector<quantizer_attribute_config> read_cfg(config_json const& j, std::string const& where) {
  if (j.empty() && !j.is_null())
    fail(error_id::config_conflict, where, ": is empty; leave it out to only enable or disable");
  if (!j.is_array()) return {attributes_from_json(j, where)};
  std::vector<quantizer_attribute_config> several;
  for (std::size_t i = 0; i < j.size(); ++i) {
    std::string const at = where + '[' + std::to_string(i) + ']';
    if (j[i].empty()) fail(error_id::config_conflict, at, ": is empty");
    several.push_back(attributes_from_json(j[i], at));
  }
  return several;
}

/// {"quantizer_name": ..., ...}
inline quantizer_entry read_full_entry(config_json const& j, std::string const& where) {
  quantizer_entry entry;
  bool says_something = false;
  for (auto const& [key, value] : j.items()) {
    std::string const at = child(where, key);
    if (key == "quantizer_name") {
      entry.quantizer_name = read_string(value, at);
    } else if (key == "parent_class") {
      entry.parent_class = read_optional<std::string>(value, at, read_string);
    } else if (key == "cfg") {
      if (!value.is_null()) entry.cfg = read_cfg(value, at);
      says_something = says_something || !value.is_null();
    } else if (key == "enable") {
      entry.enable = read_bool(value, at);
      says_something = true;
    } else {
      fail(error_id::config_unknown_field, at, ": fields are quantizer_name, parent_class, cfg and enable");
    }
  }
  if (!says_something) fail(error_id::config_conflict, where, ": needs cfg, enable or both");
  return entry;
}

/// "*weight_quantizer": {"num_bits": 8, "enable": true}: attributes with the entry's own `enable` among them.
inline quantizer_entry read_keyed_entry(std::string const& key, config_json value, std::string const& where) {
  quantizer_entry entry{.quantizer_name = key == "default" ? "*" : key};
  if (value.is_object() && value.contains("enable")) {
    entry.enable = read_bool(value["enable"], child(where, "enable"));
    value.erase("enable");
    if (value.empty()) return entry;
  } else if (!value.is_object() && !value.is_array()) {
    wrong(where, "an object of attributes or a list of them", value);
  }
  entry.cfg = read_cfg(value, where);
  return entry;
}

/// One key of the legacy forms: a rule, or "nn.Class" with rules of its own.
inline void read_keyed(std::string const& key, config_json const& value, std::string const& where,
                       std::vector<quantizer_entry>& entries) {
  std::string const at = where + "[\"" + key + "\"]";
  if (!key.starts_with("nn.")) return entries.push_back(read_keyed_entry(key, value, at));
  need_object(value, at);
  if (value.empty()) fail(error_id::config_conflict, at, ": names no quantizer");
  for (auto const& [inner, attributes] : value.items()) {
    entries.push_back(read_keyed_entry(inner, attributes, at + "[\"" + inner + "\"]"));
    entries.back().parent_class = key;
  }
}

/// "max" or {"method": "max", ...}; a parameter that is null keeps its default.
inline algorithm_step read_algorithm_step(config_json const& j, std::string const& where) {
  algorithm_step step;
  if (j.is_string()) {
    step.method = j.get<std::string>();
  } else {
    if (!j.is_object()) wrong(where, "null, a method's name, an object or a list of these", j);
    if (!j.contains("method")) fail(error_id::config_conflict, where, ": names no method, got ", excerpt(j));
    step.as_object.value = true;
    for (auto const& [key, value] : j.items()) {
      if (key == "method") step.method = read_string(value, child(where, key));
      else if (!value.is_null()) step.parameters.emplace_back(key, read_algorithm_value(value, child(where, key)));
    }
  }
  step.validate(where);
  return step;
}

inline config_json algorithm_step_to_json(algorithm_step const& step) {
  if (!step.as_object.value && step.parameters.empty()) return step.method;
  config_json j{{"method", step.method}};
  for (auto const& [key, value] : step.parameters)
    j[key] = algorithm_value_to_json(value);
  return j;
}

}  // namespace detail

/// Reads "quant_cfg" in any of its forms.
inline std::vector<quantizer_entry> quant_cfg_from_json(config_json const& j, std::string const& where = "quant_cfg",
                                                        entry_origin origin = entry_origin::user) {
  std::vector<quantizer_entry> entries;
  if (j.is_object()) {
    for (auto const& [key, value] : j.items()) detail::read_keyed(key, value, where, entries);
  } else if (j.is_array()) {
    for (std::size_t i = 0; i < j.size(); ++i) {
      std::string const at = where + '[' + std::to_string(i) + ']';
      detail::need_object(j[i], at);
      if (j[i].contains("quantizer_name")) entries.push_back(detail::read_full_entry(j[i], at));
      else if (j[i].size() == 1) detail::read_keyed(j[i].begin().key(), j[i].begin().value(), at, entries);
      else
        fail(error_id::config_conflict, at, ": needs quantizer_name, or exactly one key, got ", detail::excerpt(j[i]));
    }
  } else {
    detail::wrong(where, "a list of entries or an object", j);
  }
  for (quantizer_entry& e : entries) {
    if (e.quantizer_name.label().empty()) fail(error_id::config_value, where, ": a quantizer_name is empty");
    e.origin = origin;
  }
  return entries;
}

/// Writes the list form. Throws config_json for an entry that selects by a callable, which no file can hold.
inline config_json quant_cfg_to_json(std::vector<quantizer_entry> const& entries, json_form form = json_form::sparse) {
  config_json list = config_json::array();
  bool const normal = form == json_form::normal;
  for (quantizer_entry const& e : entries) {
    if (!e.quantizer_name.is_wildcard())
      fail(error_id::config_json, "quant_cfg[", list.size(), "].quantizer_name: the callable \"",
           e.quantizer_name.label(), "\" cannot be written to JSON");
    config_json j{{"quantizer_name", e.quantizer_name.label()}};
    if (normal || e.parent_class) j["parent_class"] = detail::optional_to_json(e.parent_class);
    if (e.cfg) {
      config_json several = config_json::array();
      for (quantizer_attribute_config const& a : *e.cfg) several.push_back(attributes_to_json(a, form));
      j["cfg"] = several.size() == 1 ? several[0] : several;
    } else if (normal) {
      j["cfg"] = nullptr;
    }
    if (normal || !e.cfg || !e.enable) j["enable"] = e.enable;
    list.push_back(std::move(j));
  }
  return list;
}

inline algorithm_config algorithm_from_json(config_json const& j, std::string const& where = "algorithm") {
  if (j.is_null() || (j.is_object() && j.contains("method") && j["method"].is_null())) return algorithm_config::none();
  if (!j.is_array()) return detail::read_algorithm_step(j, where);
  std::vector<algorithm_step> steps;
  for (std::size_t i = 0; i < j.size(); ++i)
    steps.push_back(detail::read_algorithm_step(j[i], where + '[' + std::to_string(i) + ']'));
  return steps;
}

inline config_json algorithm_to_json(algorithm_config const& a) {
  if (a.state != algorithm_config::presence::given) return nullptr;
  if (!a.as_list.value) return detail::algorithm_step_to_json(a.given_steps.at(0));
  config_json list = config_json::array();
  for (algorithm_step const& step : a.given_steps) list.push_back(detail::algorithm_step_to_json(step));
  return list;
}

/// {"quant_cfg": [...], "algorithm": ...}, as ModelOpt has it; no "algorithm" where the config says none.
inline config_json config_to_json(quantize_config const& config, json_form form = json_form::sparse) {
  config_json j{{"quant_cfg", quant_cfg_to_json(config.entries, form)}};
  if (config.algorithm.state != algorithm_config::presence::absent)
    j["algorithm"] = algorithm_to_json(config.algorithm);
  return j;
}

/// The text of a config file: the above with "name", and "imported" where no entry is the user's own, so that reading
/// it again lets single entries match nothing.
inline std::string config_to_text(quantize_config const& config) {
  config_json j = config_json::object();
  if (!config.name.empty()) j["name"] = config.name;
  bool own = config.entries.empty();
  for (quantizer_entry const& e : config.entries) own = own || e.origin == entry_origin::user;
  if (!own) j["imported"] = true;
  j.update(config_to_json(config));
  return j.dump(2) + '\n';
}

/// A whole config from text. Its name is "name" in the text, else `name`. A preset's name may be used only for the
/// preset's own content, and then means the preset. Entries are the user's unless the text says "imported": true, or
/// `origin` says otherwise.
inline quantize_config config_from_json(std::string_view text, std::string const& name,
                                        entry_origin origin = entry_origin::user) {
  std::string const where = name.empty() ? "config" : name;
  config_json const j = parse_json_strict(text, where, error_id::config_json);
  if (!j.is_object() || !j.contains("quant_cfg"))
    fail(error_id::config_json, where, ": must be an object with \"quant_cfg\", got ", detail::excerpt(j));
  quantize_config config{.name = name};
  if (j.contains("imported") && detail::read_bool(j["imported"], where + ": imported") && origin == entry_origin::user)
    origin = entry_origin::imported;
  for (auto const& [key, value] : j.items()) {
    if (key == "name") config.name = detail::read_string(value, where + ": name");
    else if (key == "quant_cfg") config.entries = quant_cfg_from_json(value, where + ": quant_cfg", origin);
    else if (key == "algorithm") config.algorithm = algorithm_from_json(value, where + ": algorithm");
    else if (key != "imported")
      fail(error_id::config_unknown_field, where, ": ", key, ": fields are name, imported, quant_cfg and algorithm");
  }
  if (config.name.empty()) fail(error_id::config_value, where, ": a config needs a name");
  std::string_view const taken = preset_full_name(config.name);
  if (taken.empty()) return config;
  quantize_config known = preset(taken);
  if (!same_content(known, config))
    fail(error_id::config_conflict, config.name, ": is the preset ", taken, ", but says something else; rename it");
  return known;
}

/// Reads a file; without "name" in it, the file's name without its ending names the config. Errors begin with the path.
inline quantize_config config_from_file(std::filesystem::path const& path) {
  std::error_code code;
  if (std::filesystem::exists(path, code) && !std::filesystem::is_regular_file(path, code))
    fail(error_id::file_open, path.string(), ": cannot be read: not a regular file");  // a FIFO would wait for a writer
  std::ifstream in{path, std::ios::binary};
  if (!in) fail(error_id::file_open, path.string(), ": cannot be read");
  std::string const text{std::istreambuf_iterator<char>{in}, {}};
  if (in.bad()) fail(error_id::file_open, path.string(), ": cannot be read");
  try {
    return config_from_json(text, path.stem().string());
  } catch (error const& e) {
    fail(e.id(), path.string(), ": ", e.message());
  }
}

/// A preset by name, or else a file.
inline quantize_config load_config(std::string const& preset_or_file) {
  if (!preset_full_name(preset_or_file).empty()) return preset(preset_or_file);
  std::error_code none;
  if (preset_or_file.ends_with(".json") || std::filesystem::exists(preset_or_file, none))
    return config_from_file(preset_or_file);
  fail(error_id::config_unknown_field, "\"", preset_or_file, "\" is neither a preset nor a file",
       close_names(preset_or_file, preset_names()));
}

}  // namespace mixbit
