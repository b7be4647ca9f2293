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

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "mixbit/io/folders.hpp"
#include "mixbit/io/hf_config.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_form.hpp"
#include "mixbit/io/hf_fused.hpp"
#include "mixbit/io/hf_loader_notes.hpp"
#include "mixbit/io/hf_rewritten.hpp"
#include "mixbit/io/hf_source.hpp"
#include "mixbit/io/hf_tied.hpp"
#include "mixbit/io/hf_values.hpp"
#include "mixbit/io/safetensors_shards.hpp"
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
      : model_{m}, options_{std::move(options)}, source_{source}, modules_{m.modules()}, tied_{modules_} {
    for (auto const& module : modules_) add_module(module);
    for (auto const& module : modules_)
      for (auto const& name : module.slots->shared_site()->scales_folded_into) add_rewritten(module.name, name);
    for (auto const& name : source_.tensors().names())
      if (items_.try_emplace(name, item{source_.tensors().at(name), {}, {}}).second) note_unwalked(name);
    for (auto const& head : heads_) add_head(head);
    for (auto const i : detail::hf::share_single_blocks(layers_, encodings_, options_.share_fused_blocks, notes_))
      items_.at(layers_[i].name + ".weight_scale").scales = encodings_[i].scales();
    detail::hf::require_one_pre_quant_scale(m, layers_);
    detail::hf::note_unshared(m, layers_, notes_);
    finish_notes();
  }

  /// The quantized modules, in the order of the walk.
  std::vector<hf_layer> const& layers() const { return layers_; }
  /// What loaders will not take, and what is unusual in the files; a line each.
  std::vector<std::string> const& notes() const { return notes_; }

  /// Writes all files below `out`, which the caller commits; `inside` is a folder within it. Throws `file_open` where
  /// that folder and the source's lie in one another: the export would write over what it reads.
  void write(staged_output& out, std::filesystem::path const& inside = {}) {
    if (lie_in_one_another(out.folder() / inside, source_.folder()))
      fail(error_id::file_open, "cannot write a checkpoint to ", in_quotes(out.folder() / inside),
           ": it and the source ", in_quotes(source_.folder()), " lie in one another; write to a folder apart from it");
    auto const quant = hf_quant_config(layers_, exclude(), caches_.format(), options_.producer);
    write_tensors(out, inside);
    write_json_file(out.path(inside / "hf_quant_config.json"), quant, 4);
    write_json_file(out.path(inside / "config.json"), config_with(quant), 4);
    write_generation_config(out.path(inside / "generation_config.json"));
  }

 private:
  /// A tensor of the output: one that is there (a view), values of our own, or a weight to be encoded.
  struct item {
    const_tensor_ref view;
    std::vector<float> scales;
    std::optional<std::size_t> encode;  ///< index into layers_
    bool block_scales = false;          ///< what encoding gives beside the codes: the blocks' E4M3 or E8M0 scales
  };

  void add_module(module_ref<B> const& module) {
    auto& s = *module.slots->shared_site();
    if (s.folded)
      fail(error_id::state_folded, module.name, ": fold_weight has replaced this weight by its quantized values; ",
           "export before folding");
    s.refuse_packed("of which no checkpoint is made; export before compressing");
    auto* const recipe = s.recipes.empty() ? nullptr : &s.quantizers();
    if (recipe != nullptr && detail::hf::has_kv_cache(module, *recipe)) return add_cache(module, *recipe);
    if (recipe != nullptr && recipe->any_acts()) return add_quantized(module, *recipe);
    if (module.weight.data == nullptr) return;
    unquantized_.push_back(module.name);
    bool const there = source_.tensors().contains(module.name + ".weight");
    if (tied_.is_head(source_, module)) heads_.push_back(module);
    else if (!there) source_.fail_missing(module.name);
    if (there) add_unquantized(module, module.name + ".weight");
  }

  /// A tensor outside of the walk, into which a scale of this module was folded.
  void add_rewritten(std::string const& module, std::string const& name) {
    auto const written = hf_rewritten_tensor(options_.preceding, name);
    if (written.data == nullptr)
      fail(error_id::state_missing, name, ": was rewritten when the scale of ", module, " was folded into it, and the ",
           "source has it as it was before; give hf_export_options::preceding what fold_pre_quant_scales was given");
    auto const there = source_.tensors().at(name);
    if (!there.same_shape(written))
      fail(error_id::file_content, source_.tensors().label(), ": tensor ", in_quotes(name), " is ", to_string(there),
           ", and the host's has ", written.size(), " values");
    source_.require_floats(name, there.type);
    items_[name] = {there, {}, {}};
    host_weights_[name] = written;
  }

  /// In the type of the source's tensor `like`, which is the module's own but for a head that was tied.
  void add_unquantized(module_ref<B> const& module, std::string const& like) {
    auto const there = source_.tensors().at(like);
    const_tensor_ref const weight = detail::hf::file_weight(module);
    source_.require_shape(module.name, like, weight);
    source_.require_floats(like, there.type);
    items_[module.name + ".weight"] = {there, {}, {}};
    host_weights_[module.name + ".weight"] = weight;
  }

  /// An unquantized head that was tied, once it is known what the file has of its table.
  void add_head(module_ref<B> const& head) {
    std::string const table = tied_.table_of(source_, head), name = head.name + ".weight";
    bool const there = source_.tensors().contains(name);
    if (table.empty() && !there) source_.fail_missing(head.name);
    if (!table.empty() && is_written_as(detail::hf::file_weight(head), table)) return;
    if (!there) add_unquantized(head, table);
    untie(head.name);
  }

  /// Will the tensor `name` have these values, as far as the narrower of both types tells?
  bool is_written_as(const_tensor_ref const& weight, std::string const& name) {
    if (items_.at(name).encode) return false;
    auto const host = host_weights_.find(name);
    auto const& other = host == host_weights_.end() ? items_.at(name).view : host->second;
    if (weight.data == other.data && weight.type == other.type && weight.stride == other.stride) return true;
    if (!is_compute(other.type)) return false;
    dtype const type = size_of(weight.type) < size_of(other.type) ? weight.type : other.type;
    return converted(weight, type) == converted(other, type);
  }

  void untie(std::string const& head) {
    untied_ = true;
    notes_.push_back(head + ": was tied to the embedding; it is now a tensor of its own, tie_word_embeddings false");
  }

  void add_quantized(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = hf_form_of(module, recipe);
    if (recipe.branch)
      fail(error_id::format_value, module.name, ": svdquant computes a branch beside this weight, and these ",
           "checkpoints have no place for it");
    recipe.find(quantizer_role::weight)->refuse_learning("an export");
    const_tensor_ref const view = source_weight(module);
    require_source(module);
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
    auto const& e = encodings_.back();
    auto const scale_shape = hf_scale_shape(layer.format, layer.groups, options_.scalar_single_block);
    auto const scalar = dense_geometry(dtype::f32, {});
    add(layer.name + ".weight", {{hf_code_shape(layer.format, shape), nullptr}, {}, layers_.size()});
    if (scale_shape.type == dtype::f32) add(layer.name + ".weight_scale", {{scale_shape, nullptr}, e.scales(), {}});
    else add(layer.name + ".weight_scale", {{scale_shape, nullptr}, {}, layers_.size(), true});
    if (layer.format.is_nvfp4()) add(layer.name + ".weight_scale_2", {{scalar, nullptr}, {e.tensor_scale()}, {}});
    if (form.then) add(layer.name + ".weight_scale_2", {{scalar, nullptr}, {tensor_scale(*form.then)}, {}});
    if (form.scales_input) add_pre_quant_scale(layer, form.scales_input->pre_quant_scale(model_.device()));
    if (!layer.format.has_input_scale()) return;
    float const scale = tensor_scale(*form.input);
    if (scale == 0.0f)
      notes_.push_back(layer.name +
                       ": its input was always zero in calibration; loaders divide by input_scale, which is 0");
    add(layer.name + ".input_scale", {{scalar, nullptr}, {scale}, {}});
  }

  float tensor_scale(tensor_quantizer<B>& q) {
    return detail::hf::tensor_scale(q.numerics(), detail::hf::tensor_amax(model_.device(), q));
  }

  void add_pre_quant_scale(hf_layer const& layer, std::vector<float> scale) {
    std::int64_t const columns = layer.weight.shape[layer.weight.rank - 1];
    if (std::ssize(scale) != columns)
      fail(error_id::tensor_shape, layer.name, ": its pre_quant_scale has ", scale.size(), " values, and its weight ",
           columns, " inputs");
    add(layer.name + ".pre_quant_scale", {{dense_geometry(dtype::f32, {columns}), nullptr}, std::move(scale), {}});
  }

  /// An attention without a weight: its key/value cache, or nothing.
  void add_cache(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = hf_kv_form_of(module, recipe);
    caches_.add(module.name, form ? std::optional{form->format} : std::nullopt);
    if (!form) return;
    auto const scalar = dense_geometry(dtype::f32, {});
    for (auto const& [name, q] : {std::pair{".k_proj.k_scale", form->keys}, {".v_proj.v_scale", form->values}}) {
      float const scale = hf_kv_scale(detail::hf::tensor_amax(model_.device(), *q));
      if (scale == 0.0f)
        notes_.push_back(q->name() +
                         ": was always shown zeros in calibration; loaders divide by its scale, which is 0");
      add(module.name + name, {{scalar, nullptr}, {scale}, {}});
    }
  }

  void add(std::string name, item i) {
    bool const is_weight = i.encode && !i.block_scales;  // takes the place of the source's
    if (!is_weight && source_.tensors().contains(name))
      fail(error_id::file_content, source_.tensors().label(), ": has a tensor ", in_quotes(name), " already");
    items_[std::move(name)] = std::move(i);
  }

  /// A tied output layer that is quantized becomes a tensor of its own, and the config says so.
  void require_source(module_ref<B> const& module) {
    std::string const name = module.name + ".weight";
    bool const there = source_.tensors().contains(name), tied = tied_.is_head(source_, module);
    if (there) source_.require_shape(module.name, name, detail::hf::file_weight(module));
    else if (!tied || tied_.table_of(source_, module).empty()) source_.fail_missing(module.name);
    if (tied) untie(module.name);
    else if (!source_.says_tied() && module.name.ends_with("lm_head")) say_untied(module.name);
  }

  /// Some models' configs that do not say it are read as tied, and the quantized weight would then be passed by.
  void say_untied(std::string const& head) {
    untied_ = true;
    notes_.push_back(head + ": is quantized, and config.json does not say tie_word_embeddings; it now says false, " +
                     "since loaders of some models take it as true");
  }

  /// Tables and matrices that the host does not walk stay unquantized, and loaders are told.
  void note_unwalked(std::string const& name) {
    auto const module = detail::hf::module_of(name);
    if (module && source_.tensors().at(name).rank >= 2 && !tied_.is_walked(*module)) unquantized_.push_back(*module);
  }

  void finish_notes() {
    if (layers_.empty() && !caches_.format())
      notes_.push_back("no module is quantized: the checkpoint is an unquantized one");
    auto const loaders = hf_loader_notes(layers_, unquantized_);
    notes_.insert(notes_.end(), loaders.begin(), loaders.end());
  }

  std::vector<std::string> exclude() const {
    std::vector<std::string> quantized;
    for (auto const& l : layers_) quantized.push_back(l.name);
    return layers_.empty() ? quantized : exclude_patterns(unquantized_, quantized);
  }

  json_document config_with(json_document const& quant) const {
    json_document config = source_.config();
    if (untied_) config["tie_word_embeddings"] = false;
    if (!layers_.empty() || caches_.format()) config["quantization_config"] = hf_quantization_config(layers_, quant);
    return config;
  }

  /// The source's own, byte for byte, or what transformers would derive from its config.
  void write_generation_config(std::filesystem::path const& path) const {
    auto const own = source_.file("generation_config.json");
    if (std::error_code none; std::filesystem::exists(own, none))
      return write_file_atomically(path, mapped_file{own}.text());
    if (generates(source_.config())) write_json_file(path, generation_config_from(source_.config()), 2);
  }

  void write_tensors(staged_output& out, std::filesystem::path const& inside) {
    std::vector<named_geometry> shapes;
    for (auto const& [name, i] : items_) shapes.push_back({name, i.view});
    std::sort(shapes.begin(), shapes.end(), [](auto const& a, auto const& b) { return a.name < b.name; });
    safetensors_shards writer{out, inside, std::move(shapes), {{"format", "pt"}}, options_.shard_bytes};
    workspace_lock<B> const held{model_.scratch()};
    for (auto const& due : writer.order()) write_item(writer, due, items_.at(due.name));
    writer.commit();
  }

  void write_item(safetensors_shards& writer, named_geometry const& due, item const& i) {
    if (i.encode) {
      auto const& e = encodings_[*i.encode];
      auto const bytes = i.block_scales ? e.block_scales(model_.device()) : e.codes(model_.device());
      return writer.write({due.shape, bytes.data()});
    }
    if (!i.scales.empty()) return writer.write({due.shape, i.scales.data()});
    auto const host = host_weights_.find(due.name);
    if (host == host_weights_.end()) return writer.write(i.view);
    if (host->second.where == device::cpu && host->second.type == due.shape.type) return writer.write(host->second);
    auto const bytes = converted(host->second, due.shape.type);
    writer.write({due.shape, bytes.data()});
  }

  std::vector<std::byte> converted(const_tensor_ref const& w, dtype type) {
    return detail::hf::converted(model_.device(), w, type);
  }

  model<B>& model_;
  hf_export_options options_;
  hf_source source_;
  std::vector<module_ref<B>> modules_;  ///< of the walk
  detail::hf::tied_weights<B> tied_;
  std::unordered_map<std::string, item> items_;
  std::unordered_map<std::string, const_tensor_ref> host_weights_;  ///< unquantized, from the walk
  std::vector<module_ref<B>> heads_;  ///< unquantized, and tied in the source
  std::vector<std::string> unquantized_, notes_;
  std::vector<hf_layer> layers_;
  std::vector<hf_encoding<B>> encodings_;  ///< of layers_
  hf_kv_formats caches_;
  bool untied_ = false;
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
