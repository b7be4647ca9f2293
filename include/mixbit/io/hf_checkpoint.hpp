// Writing a quantized model as a Hugging Face checkpoint in ModelOpt's unified form, which vLLM, TensorRT-LLM and
// SGLang read: model.safetensors (or shards and their index), config.json, hf_quant_config.json and, for models that
// generate text, generation_config.json.
//
//   mixbit::hf_export plan{m, "byte-lm"};               // every check is here, and nothing is written
//   for (auto const& line : plan.notes()) std::cerr << line << '\n';
//   plan.write(staged);                                 // into a staged_output, or to a folder at once
//
// Contract: module names are those of the source checkpoint. `NAME.weight` is taken from the walk (the host may have
// trained it) in the source's shape; everything else of the source - norms, biases, modules that are not walked -
// passes through byte for byte from its memory map. Only the output layer of a source with tie_word_embeddings may be
// missing there: it is left out while it equals the embedding, else written, and tie_word_embeddings becomes false.
// A pre_quant_scale (SmoothQuant, AWQ) is written where the form has a place for it, and is then one within q/k/v and
// gate/up (share_state). ModelOpt's exporter folds AWQ's of those into the norms before; here the host does so, as that
// rewrites the norms (fold_pre_quant_scales). Attentions with quantizers on keys and values give the cache's scales.
// Codes and scales are those of policy `stored` whatever the model simulates (io/hf_encoding.hpp). Weights are encoded
// one at a time when their turn in the file comes, so a plan holds views: write it before weights move.
#pragma once

#include <deque>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "mixbit/io/hf_config.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_form.hpp"
#include "mixbit/io/hf_fused.hpp"
#include "mixbit/io/hf_loader_notes.hpp"
#include "mixbit/io/hf_output.hpp"
#include "mixbit/io/hf_values.hpp"
#include "mixbit/io/staged_output.hpp"
#include "mixbit/model/model.hpp"

namespace mixbit {

struct hf_export_options {
  bool scalar_single_block = false;  ///< a single 2-D block's scale is 0-d, as in ModelOpt's files, not [1,1,1,1]
  /// Layers that loaders fuse (q/k/v, gate/up) and that are a single 2-D block each get the largest of their scales, as
  /// in ModelOpt's files: fused, they may lie in one block. Their codes are then coarser than what the model simulates,
  /// so it has to be asked for; without it a note names the layers.
  bool share_fused_blocks = false;
  /// What fold_pre_quant_scales was given: norms and biases that it rewrote come from the host, not from the source.
  std::vector<preceding_op> preceding = {};
  std::int64_t shard_bytes = default_shard_bytes;  ///< above it the tensors go to several files
  hf_producer producer = {};
};

/// A checked export, ready to be written.
template <backend B>
class hf_export {
 public:
  /// Throws before anything is written: `state_folded`, `state_not_calibrated`, `state_nested`, `format_value` for a
  /// module whose quantizers no Hugging Face form exists for, for fused layers with several pre_quant_scales and for
  /// key/value caches of several formats, `file_content` for a module that the source has not, or in another shape, or
  /// without floats to write in their type.
  hf_export(model<B>& m, std::filesystem::path const& source, hf_export_options options = {})
      : model_{m}, options_{std::move(options)}, output_{m, source, options_.preceding} {
    for (auto const& module : output_.modules()) add_module(module);
    output_.take_the_rest();
    detail::hf::share_single_blocks(layers_, encodings_, options_.share_fused_blocks, output_.notes());
    detail::hf::require_one_pre_quant_scale(m, layers_);
    detail::hf::note_unshared(m, layers_, output_.notes());
    finish_notes();
  }

  /// The quantized modules, in the order of the walk.
  std::vector<hf_layer> const& layers() const { return layers_; }
  /// What loaders will not take, and what is unusual in the files; a line each.
  std::vector<std::string> const& notes() const { return output_.notes(); }

  /// Writes all files below `out`, which the caller commits; `inside` is a folder within it. Throws `file_open` where
  /// that folder and the source's lie in one another: the export would write over what it reads.
  void write(staged_output& out, std::filesystem::path const& inside = {}) {
    auto const quant = hf_quant_config(layers_, exclude(), caches_.format(), options_.producer);
    bool const quantized = !layers_.empty() || caches_.format();
    auto const quant_file = out.path(inside / "hf_quant_config.json");
    output_.write(out, inside, options_.shard_bytes,
                  quantized ? hf_quantization_config(layers_, quant) : json_document{});
    write_json_file(quant_file, quant, 4);
  }

 private:
  void add_module(module_ref<B> const& module) {
    auto* const recipe = hf_output<B>::exportable_recipe(module);
    if (recipe != nullptr && detail::hf::has_kv_cache(module, *recipe)) return add_cache(module, *recipe);
    if (recipe != nullptr && recipe->any_acts()) return add_quantized(module, *recipe);
    output_.keep(module);
  }

  void add_quantized(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = hf_form_of(module, recipe);
    if (recipe.branch)
      fail(error_id::format_value, module.name, ": svdquant computes a branch beside this weight, and these ",
           "checkpoints have no place for it");
    recipe.find(quantizer_role::weight)->refuse_learning("an export");
    const_tensor_ref const view = source_weight(module);
    output_.require_source(module);
    hf_layer layer{module.name,        form.format, view, form.weight->grouping(view), module.layout.kind,
                   form.scales_input != nullptr};
    if (form.format.is_packed() && view.rank != detail::hf::file_weight(module).rank)
      fail(error_id::format_value, module.name, ": no Hugging Face form exists for ", name_of(form.format.algorithm),
           " of a weight that is quantized as a matrix and of rank ", detail::hf::file_weight(module).rank,
           " in the file: two codes of different rows of the file would share a byte");
    if (form.format.is_int4() && view.rank == 3)
      fail(error_id::format_value, module.name, ": no Hugging Face form exists in this version for ",
           name_of(form.format.algorithm), " of a stack of matrices ", to_string(view), ": codes are packed along its ",
           "first axis, so two matrices would share a byte");
    std::vector<float> factors;
    if (form.scales_weight) factors = form.scales_weight->pre_quant_scale(model_.device());
    encodings_.emplace_back(model_.device(), *form.weight, view, layer.groups, factors);
    add_tensors(layer, detail::hf::file_weight(module), form);
    layers_.push_back(std::move(layer));
  }

  void add_tensors(hf_layer const& layer, geometry const& shape, hf_module_form<B> const& form) {
    auto const* const e = &encodings_.back();
    auto const scale_shape = hf_scale_shape(layer.format, layer.groups, options_.scalar_single_block);
    auto& device = model_.device();
    output_.replace(layer.name + ".weight", hf_code_shape(layer.format, shape),
                    [e, &device] { return e->codes(device); });
    output_.add(layer.name + ".weight_scale", scale_shape, [e, &device, type = scale_shape.type] {
      return type == dtype::f32 ? hf_output<B>::bytes_of(e->scales()) : e->block_scales(device);
    });
    if (layer.format.is_nvfp4()) add_scalar(layer.name + ".weight_scale_2", e->tensor_scale());
    if (form.then) add_scalar(layer.name + ".weight_scale_2", tensor_scale(*form.then));
    if (form.scales_input) add_pre_quant_scale(layer, form.scales_input->pre_quant_scale(device));
    if (!layer.format.has_input_scale()) return;
    float const scale = tensor_scale(*form.input);
    if (scale == 0.0f)
      output_.notes().push_back(
          layer.name + ": its input was always zero in calibration; loaders divide by input_scale, which is 0");
    add_scalar(layer.name + ".input_scale", scale);
  }

  void add_scalar(std::string const& name, float value) {
    output_.add_values(name, dense_geometry(dtype::f32, {}), std::vector{value});
  }

  float tensor_scale(tensor_quantizer<B>& q) {
    return detail::hf::tensor_scale(q.numerics(), detail::hf::tensor_amax(model_.device(), q));
  }

  void add_pre_quant_scale(hf_layer const& layer, std::vector<float> const& scale) {
    std::int64_t const columns = layer.weight.shape[layer.weight.rank - 1];
    if (std::ssize(scale) != columns)
      fail(error_id::tensor_shape, layer.name, ": its pre_quant_scale has ", scale.size(), " values, and its weight ",
           columns, " inputs");
    dtype const type = detail::hf::pre_quant_scale_type(layer.weight.type, scale);
    output_.add(layer.name + ".pre_quant_scale", dense_geometry(type, {columns}),
                [type, scale] { return detail::hf::bytes_in(type, scale); });
  }

  /// An attention without a weight: its key/value cache, or nothing.
  void add_cache(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = hf_kv_form_of(module, recipe);
    caches_.add(module.name, form ? std::optional{form->format} : std::nullopt);
    if (!form) return;
    for (auto const& [name, q] : {std::pair{".k_proj.k_scale", form->keys}, {".v_proj.v_scale", form->values}})
      add_scalar(module.name + name, output_.cache_scale(*q));
  }

  void finish_notes() {
    if (layers_.empty() && !caches_.format())
      output_.notes().push_back("no module is quantized: the checkpoint is an unquantized one");
    auto const loaders = hf_loader_notes(layers_, output_.unquantized());
    output_.notes().insert(output_.notes().end(), loaders.begin(), loaders.end());
  }

  std::vector<std::string> exclude() const {
    std::vector<std::string> quantized;
    for (auto const& l : layers_) quantized.push_back(l.name);
    return layers_.empty() ? quantized : exclude_patterns(output_.unquantized(), quantized);
  }

  model<B>& model_;
  hf_export_options options_;
  hf_output<B> output_;
  std::vector<hf_layer> layers_;
  std::deque<hf_encoding<B>> encodings_;  ///< of layers_; they stay in their place
  hf_kv_formats caches_;
};

/// Checks, then writes into a staged output that the caller commits. Returns the plan's notes.
template <backend B>
std::vector<std::string> export_hf_checkpoint(model<B>& m, std::filesystem::path const& source, staged_output& out,
                                              std::filesystem::path const& inside = {},
                                              hf_export_options options = {}) {
  hf_export<B> plan{m, source, std::move(options)};
  plan.write(out, inside);
  return plan.notes();
}

/// The same into a folder of its own, which changes as a whole or not at all.
template <backend B>
std::vector<std::string> export_hf_checkpoint(model<B>& m, std::filesystem::path const& source,
                                              std::filesystem::path const& folder, hf_export_options options = {}) {
  hf_export<B> plan{m, source, std::move(options)};
  staged_output out{folder};
  plan.write(out);
  out.commit();
  return plan.notes();
}

}  // namespace mixbit
