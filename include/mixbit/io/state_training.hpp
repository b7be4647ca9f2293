// Learned scales in the middle of their training, as part of a state's files (io/state.hpp).
//
// In state.json: "training": {"what": "one", "both" or "after_only", "scales": [{"name", "factor",
// "held_tensor_amax"}]}; in state.safetensors, I counting the scales: scale_training.I.before, .after, .amax float32,
// .before_gradient and .after_gradient float64.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/io/state_reader.hpp"
#include "mixbit/io/state_writer.hpp"
#include "mixbit/model/scale_training.hpp"

namespace mixbit::detail {

inline constexpr std::string_view learned_scales_names[] = {"one", "both", "after_only"};

inline std::string training_prefix(std::size_t i) { return concat("scale_training.", i, "."); }

inline json_document add_training(file_tensors& tensors, scale_training_state const& state) {
  auto scales = json_document::array();
  for (auto const& s : state.scales) {
    std::string const prefix = training_prefix(scales.size());
    auto const add_gradient = [&](char const* name, std::vector<double> const& g) {
      tensors.add(prefix + name, dense_geometry(dtype::f64, {static_cast<std::int64_t>(g.size())}), g.data());
    };
    tensors.add(prefix + "before", s.parameter.before);
    tensors.add(prefix + "after", s.parameter.after);
    tensors.add(prefix + "amax", s.amax);
    add_gradient("before_gradient", s.parameter.before_gradient);
    add_gradient("after_gradient", s.parameter.after_gradient);
    scales.push_back({{"name", s.parameter.name},
                      {"factor", s.parameter.factor},
                      {"held_tensor_amax", s.held_tensor_amax}});
  }
  return {{"what", learned_scales_names[static_cast<std::size_t>(state.what)]}, {"scales", std::move(scales)}};
}

inline std::vector<double> read_doubles(safetensors_file const& file, std::string const& name) {
  auto const t = file.at(name);
  if (t.type != dtype::f64) refuse_tensor(file, name, concat("is ", name_of(t.type), ", not ", name_of(dtype::f64)));
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  if (!values.empty()) std::memcpy(values.data(), t.data, values.size() * sizeof(double));
  return values;
}

inline scale_training_state read_training(state_files const& files) {
  auto const& j = files.at(files.json(), "training");
  auto const what = files.text(j, "what");
  scale_training_state state;
  std::size_t kind = 0;
  while (kind < std::size(learned_scales_names) && learned_scales_names[kind] != what) ++kind;
  if (kind == std::size(learned_scales_names))
    fail(error_id::file_format, files.where(), ": training.what is ", in_quotes(what));
  state.what = static_cast<learned_scales>(kind);
  for (auto const& s : files.list(j, "scales")) {
    std::string const prefix = training_prefix(state.scales.size());
    auto const floats = [&](char const* name) { return files.tensors().read_as_float(prefix + name); };
    auto const doubles = [&](char const* name) { return read_doubles(files.tensors(), prefix + name); };
    scale_parameter p{files.text(s, "name"), floats("before"), floats("after"), doubles("before_gradient"),
                      doubles("after_gradient")};
    p.factor = read_number(files.at(s, "factor"), files.where() + ": training.factor");
    state.scales.push_back({std::move(p), floats("amax"), files.flag(s, "held_tensor_amax")});
  }
  return state;
}

}  // namespace mixbit::detail
