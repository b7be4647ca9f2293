// Saving a quantized model's state and restoring it into a fresh host of the same shape, which then computes the same
// bits: what ModelOpt's mto.save and mto.restore do.
//
//   save_state("run/state", m);                          // a folder with state.json and state.safetensors
//   auto const was = restore_state("run/state", other);  // was.notes: a line for each layer of other weights
//
// The state: of each layer its class, its quantizers with their attributes, on or off, amaxes, biases and
// pre_quant_scales, what an algorithm has put in its weight's place, a low-rank branch, the algorithm that ran, and
// what folding has done. After a search that is the recipe which is active; a plan is saved where one is given. What
// the host's weights are is the host's to save, with its other parameters; `weights` saves those of the walk too, and
// restoring then writes them. Layouts: docs/state.md. Files of all earlier versions are read.
//
// While scales are being learned their training is saved too, and goes on behind the restoration:
//
//   save_state("run/state", m, {.weights = true, .training = scales.state()});
//   scale_training<B> scales{other, *was.training};
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mixbit/io/state_reader.hpp"
#include "mixbit/io/state_training.hpp"
#include "mixbit/io/state_writer.hpp"

namespace mixbit {

struct state_options {
  quantization_plan const* plan = nullptr;  ///< by which the model was quantized
  bool weights = false;                     ///< also save the host's weights, as the walk shows them
  std::optional<scale_training_state> training = {};  ///< of the scale_training that is at the model
};

struct restored_state {
  std::optional<quantization_plan> plan;         ///< without its achieved figures, as plan_from_json reads it
  std::optional<scale_training_state> training;  ///< until it goes on, casts are with what it last learned
  std::vector<std::string> notes;                ///< a line for each layer whose weight has other values than it had
};

/// Into an output that the caller commits, in a folder `inside` of it. Throws `state_nested` inside a pass and while
/// scales are being learned whose training is not given, `file_open`.
template <backend B>
void save_state(staged_output& out, std::filesystem::path const& inside, model<B>& m,
                state_options const& options = {}) {
  detail::state_writer<B> writer{m};
  std::set<std::string> learned;
  if (options.training)
    for (auto const& scale : options.training->scales) learned.insert(scale.parameter.name);
  writer.add_layers(options.weights, learned);
  if (options.plan) writer.json()["plan"] = to_json(*options.plan);
  if (options.training) writer.json()["training"] = detail::add_training(writer.tensors(), *options.training);
  writer.write(out, inside);
}

/// Into a folder of its own, whole or not at all.
template <backend B>
void save_state(std::filesystem::path const& folder, model<B>& m, state_options const& options = {}) {
  staged_output out{folder};
  save_state(out, ".", m, options);
  out.commit();
}

/// Throws `file_open`; `file_format` for what is damaged, no state or of a later version; `file_content` naming the
/// first layer that differs from the model's and how: missing, extra, another weight, other quantizers, or weights that
/// folding had written and that are not there; and what is wrong with values. The model is then as it was.
template <backend B>
restored_state restore_state(std::filesystem::path const& folder, model<B>& m) {
  check_arithmetic();
  detail::state_files const files{folder};
  restored_state restored;
  if (files.json().contains("plan")) restored.plan = plan_from_json(files.json()["plan"], files.where() + ": plan");
  if (files.json().contains("training")) restored.training = detail::read_training(files);
  detail::state_restoration<B> restoration{files, m};
  restored.notes = std::move(restoration.notes());
  restoration.commit();
  return restored;
}

}  // namespace mixbit
