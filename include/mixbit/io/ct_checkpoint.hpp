// Writing a quantized model as a compressed-tensors checkpoint, which vLLM and transformers read: model.safetensors (or
// shards and their index), config.json and, for models that generate text, generation_config.json.
//
//   mixbit::ct_export plan{m, "byte-lm"};                 // every check is here, and nothing is written
//   for (auto const& line : plan.notes()) std::cerr << line << '\n';
//   plan.write(staged);                                   // into a staged_output, or to a folder at once
//
// Contract: as for ModelOpt's form (io/hf_checkpoint.hpp), which shares all but the tensors of quantized weights and
// `quantization_config`: names are the source's, what is not quantized passes through, weights are encoded when their
// turn in the file comes. Which formats have a form is in io/ct_form.hpp. Codes and scales are those of policy
// `stored`: code times scale is what fake quantization under it gives, bit for bit, but for NVFP4. Its global scales
// are float32 reciprocals, so a product may differ in its last bits where the tensor's scale is no power of two.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/ct_config.hpp"
#include "mixbit/io/ct_kv_cache.hpp"
#include "mixbit/io/ct_loader_notes.hpp"
#include "mixbit/io/ct_tensors.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_output.hpp"

namespace mixbit {

struct ct_export_options {
  /// What fold_pre_quant_scales was given: norms and biases that it rewrote come from the host, not from the source.
  std::vector<preceding_op> preceding = {};
  std::int64_t shard_bytes = default_shard_bytes;  ///< above it the tensors go to several files
};

/// A checked export, ready to be written.
template <backend B>
class ct_export {
 public:
  /// Throws before anything is written: `state_folded`, `state_not_calibrated`, `state_nested`, `format_value` for a
  /// module whose quantizers have no form and for key/value caches that differ, `format_amax` for a tensor whose global
  /// scale float32 does not hold, and `file_content` for a module that the source has not, in another shape, or without
  /// floats to write in their type.
  ct_export(model<B>& m, std::filesystem::path const& source, ct_export_options options = {})
      : model_{m}, options_{std::move(options)}, output_{m, source, options_.preceding} {
    for (auto const& module : output_.modules()) add_module(module);
    output_.take_the_rest();
    if (layers_.empty() && !caches_.format())
      output_.notes().push_back("no module is quantized: the checkpoint is an unquantized one");
    for (auto& note : ct_loader_notes(m, layers_, output_.unquantized())) output_.notes().push_back(std::move(note));
  }

  /// The quantized modules, in the order of the walk.
  std::vector<ct_layer> const& layers() const { return layers_; }
  /// What loaders will not take, and what is unusual in the files; a line each.
  std::vector<std::string> const& notes() const { return output_.notes(); }

  /// Writes all files below `out`, which the caller commits; `inside` is a folder within it. Throws `file_open` where
  /// that folder and the source's lie in one another.
  void write(staged_output& out, std::filesystem::path const& inside = {}) {
    output_.write(out, inside, options_.shard_bytes,
                  ct_quantization_config(layers_, output_.unquantized(), caches_.format()));
    out.remove_stale(inside / "hf_quant_config.json");  // of ModelOpt's form, and some loaders believe it first
  }

 private:
  void add_module(module_ref<B> const& module) {
    auto* const recipe = hf_output<B>::exportable_recipe(module);
    if (recipe != nullptr && detail::hf::has_kv_cache(module, *recipe)) return add_cache(module, *recipe);
    if (recipe != nullptr && recipe->any_acts()) return add_quantized(module, *recipe);
    output_.keep(module);
  }

  void add_quantized(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = ct_form_of(module, recipe);
    recipe.find(quantizer_role::weight)->refuse_learning("an export");
    const_tensor_ref const view = source_weight(module);
    output_.require_source(module);
    ct_layer const layer{module.name, form.scheme, view, module.layout.kind};
    encodings_.emplace_back(model_.device(), *form.weight, view, form.weight->grouping(view));
    add_weight(layer, encodings_.back(), form.weight->grouping(view));
    if (form.input != nullptr) add_input_scale(layer, *form.input);
    layers_.push_back(layer);
  }

  void add_weight(ct_layer const& layer, hf_encoding<B> const& e, partition const& groups) {
    auto& device = model_.device();
    ct_scheme const scheme = layer.scheme;
    geometry const w = layer.weight;
    std::string const name = layer.name + ct_code_name(scheme);
    auto const codes = [&e, &device, scheme, w] { return ct_codes(scheme, w, e.codes(device), executor_of(device)); };
    if (name.ends_with(".weight")) output_.replace(name, ct_code_shape(scheme, w), codes);
    else output_.add(name, ct_code_shape(scheme, w), codes);
    bool const of_data = scheme.weight.scaling != scale_rule::ratio;  // they are quantized themselves
    output_.add(layer.name + ".weight_scale", ct_scale_shape(scheme, groups), [&e, &device, of_data] {
      return of_data ? e.block_scales(device) : hf_output<B>::bytes_of(e.scales());
    });
    if (scheme.format == ct_format::pack_quantized)
      output_.add_values(layer.name + ".weight_shape", dense_geometry(dtype::i64, {2}),
                         std::vector{w.shape[0], w.shape[1]});
    if (scheme.is_nvfp4())
      add_scalar(layer.name + ".weight_global_scale", ct_global_scale(layer.name, "weight", e.tensor_scale()));
  }

  /// Of inputs whose scale is not of each call's data.
  void add_input_scale(ct_layer const& layer, tensor_quantizer<B>& q) {
    bool const global = layer.scheme.is_nvfp4();
    if (!global && !layer.scheme.has_input_scale()) return;
    float const scale = detail::hf::tensor_scale(q.numerics(), detail::hf::tensor_amax(model_.device(), q));
    if (scale == 0.0f)
      output_.notes().push_back(layer.name + ": its input was always zero in calibration; " +
                                (global ? "its global scale, which would be infinite, is written as 1"
                                        : "loaders divide by input_scale, which is 0"));
    if (global) add_scalar(layer.name + ".input_global_scale", ct_global_scale(layer.name, "input", scale));
    else add_scalar(layer.name + ".input_scale", scale);
  }

  /// An attention without a weight: its key/value cache, or nothing.
  void add_cache(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = ct_kv_form_of(module, recipe);
    caches_.add(module.name, form ? std::optional{form->format} : std::nullopt);
    if (!form) return;
    for (auto const& [name, q] : {std::pair{".k_scale", form->keys}, {".v_scale", form->values}})
      add_scalar(module.name + name, output_.cache_scale(*q));
  }

  void add_scalar(std::string const& name, float value) {
    output_.add_values(name, dense_geometry(dtype::f32, {1}), std::vector{value});
  }

  model<B>& model_;
  ct_export_options options_;
  hf_output<B> output_;
  std::vector<ct_layer> layers_;
  std::deque<hf_encoding<B>> encodings_;  ///< of layers_; they stay in their place
  hf_kv_formats caches_;
};

/// Checks, then writes into a staged output that the caller commits. Returns the plan's notes.
template <backend B>
std::vector<std::string> export_ct_checkpoint(model<B>& m, std::filesystem::path const& source, staged_output& out,
                                              std::filesystem::path const& inside = {},
                                              ct_export_options options = {}) {
  ct_export<B> plan{m, source, std::move(options)};
  plan.write(out, inside);
  return plan.notes();
}

/// The same into a folder of its own, which changes as a whole or not at all.
template <backend B>
std::vector<std::string> export_ct_checkpoint(model<B>& m, std::filesystem::path const& source,
                                              std::filesystem::path const& folder, ct_export_options options = {}) {
  ct_export<B> plan{m, source, std::move(options)};
  staged_output out{folder};
  plan.write(out);
  out.commit();
  return plan.notes();
}

}  // namespace mixbit
