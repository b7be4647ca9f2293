// Checkpoints of a layerwise calibration: one small safetensors file a layer, written when the layer is done, so that a
// run that was cut short goes on where it stopped.
//
//   mixbit::model_options<B> options;
//   options.checkpoints = mixbit::safetensors_checkpoints<B>();
//   config.algorithm = algorithm_step{"gptq", {{"layerwise", true}, {"layerwise_checkpoint_dir", "run"}}};
//
// A file holds what io/kept_recipes.hpp says of the layer's recipe. Its metadata say which layer it is, under
// which attributes, step and policy it was calibrated, and by a digest from which weight and scales. Other ones are
// refused; what the file cannot know is the data.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/calib/layerwise.hpp"
#include "mixbit/core/digest.hpp"
#include "mixbit/io/kept_recipes.hpp"

namespace mixbit {

namespace detail {

inline std::filesystem::path layer_file(std::string const& folder, std::size_t place) {
  char name[32];
  std::snprintf(name, sizeof name, "layer-%05zu.safetensors", place);
  return std::filesystem::path{folder} / name;
}

/// Of the host's weight, and of what earlier steps have made of it and of its scales.
template <backend B>
std::string digest_of_layer(B& device, calibrated_layer<B> const& layer) {
  content_digest made;
  if (layer.weight.data != nullptr) add_weight(made, device, layer.weight);
  auto const& recipe = layer.quantizers();
  if (recipe.weight) made.add(fetch_floats(device, recipe.weight->view()));
  made.add(recipe.absorbed_scale);
  for (auto const& q : recipe.quantizers) made.add(q.pre_quant_scale(device));
  return made.text();
}

/// What must be the same for a file to stand for a layer's calibration.
template <backend B>
layer_identity identify_layer(calibration<B> const& c, algorithm_step const& step, calibrated_layer<B> const& layer) {
  auto same = step;
  std::erase_if(same.parameters, [](auto const& p) { return p.first == "layerwise_checkpoint_dir"; });
  std::string quantizers;
  for (auto const& q : layer.quantizers().quantizers) {
    quantizers += q.leaf() + (q.enabled() ? " on" : " off");
    for (auto const& a : q.configured()) quantizers += " " + attributes_to_json(a).dump();
    quantizers += ";";
  }
  return {{"layer", layer.name()},
          {"algorithm", algorithm_to_json(same).dump()},
          {"quantizers", quantizers},
          {"numerics", concat(name_of(c.numerics.rules), ' ', name_of(c.numerics.mx))},
          {"weight", digest_of_layer(c.home.device, layer)}};
}

template <backend B>
void save_layer(kept_layer const& kept, calibration<B> const& c, calibrated_layer<B> const& layer) {
  file_tensors tensors;
  safetensors_metadata metadata = kept.identity;
  add_recipe(tensors, metadata, "", keep_recipe(layer.quantizers(), layer.name(), c.home.device));
  std::filesystem::create_directories(kept.folder);
  write_safetensors(layer_file(kept.folder, kept.place), tensors.all(), metadata);
}

template <backend B>
bool load_layer(kept_layer const& kept, calibration<B> const& c, calibrated_layer<B> const& layer) {
  auto const path = layer_file(kept.folder, kept.place);
  if (!std::filesystem::exists(path)) return false;
  auto const file = safetensors_file::open(path);
  for (auto const& entry : kept.identity)
    if (std::find(file.metadata().begin(), file.metadata().end(), entry) == file.metadata().end())
      fail(error_id::file_content, file.label(), ": is not of ", layer.name(), " with this ", entry.first,
           "; give another layerwise_checkpoint_dir, or remove it");
  B& device = c.home.device;
  auto found = keep_recipe(layer.quantizers(), layer.name(), device);
  read_recipe(file, map_of(file.metadata()), "", found);
  named(file.label(), [&] { take_up_recipe(layer.quantizers(), found, layer.weight, device, c.numerics); });
  layer.where->refresh();
  return true;
}

}  // namespace detail

template <backend B>
layer_checkpoints<B> safetensors_checkpoints() {
  return {detail::identify_layer<B>, detail::load_layer<B>, detail::save_layer<B>};
}

}  // namespace mixbit
