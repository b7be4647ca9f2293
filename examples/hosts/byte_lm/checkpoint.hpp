// Loading a model from a folder as Hugging Face writes it: config.json and model.safetensors.
#pragma once

#include <algorithm>
#include <set>
#include <string>

#include "mixbit/io/safetensors.hpp"
#include "model.hpp"

namespace byte_lm {

namespace detail {

inline void load_parameter(mixbit::safetensors_file const& file, std::string const& path, std::string const& name,
                           parameter& p) {
  if (!file.contains(name)) mixbit::fail(mixbit::error_id::file_content, path, ": tensor '", name, "' is missing");
  mixbit::const_tensor_ref const stored = file.at(name);
  mixbit::geometry const expected = mixbit::dense_geometry(stored.type, p.shape);
  if (!expected.same_shape(stored))
    mixbit::fail(mixbit::error_id::file_content, path, ": tensor '", name, "' has the shape ",
                 mixbit::to_string(stored), ", and config.json asks for ", mixbit::to_string(expected));
  auto const values = file.read_as_float(name);
  std::copy(values.begin(), values.end(), p.value.data());
}

/// Tensors that a Llama's checkpoint may hold though this model has no parameter for them.
inline bool is_derived(std::string const& name, config const& c) {
  return name.ends_with(".rotary_emb.inv_freq") || (name == "lm_head.weight" && c.tie_word_embeddings);
}

}  // namespace detail

/// Throws `file_open`, `file_format` or `file_content`, naming file, field or tensor; a tensor without a place in the
/// model is an error too, because the model would not be the one that was trained.
inline language_model load_model(std::string const& folder, mixbit::executor_ref executor = {}) {
  std::string const path = folder + "/model.safetensors";
  config const shapes = read_config(folder + "/config.json");
  auto const file = mixbit::safetensors_file::open(path);
  language_model model{shapes, executor};
  std::set<std::string> known;
  model.for_each_parameter([&](std::string const& name, parameter& p) {
    detail::load_parameter(file, path, name, p);
    known.insert(name);
  });
  for (auto const& name : file.names())
    if (!known.contains(name) && !detail::is_derived(name, shapes))
      mixbit::fail(mixbit::error_id::file_content, path, ": tensor '", name, "' has no place in config.json's Llama");
  return model;
}

}  // namespace byte_lm
