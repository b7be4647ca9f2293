// Writing a quantized model as a Hugging Face checkpoint in ModelOpt's unified form, which vLLM, TensorRT-LLM and
// SGLang read: model.safetensors, config.json, hf_quant_config.json and, for models that generate text,
// generation_config.json.
//
//   mixbit::hf_export plan{m, "byte-lm"};               // every check is here, and nothing is written
//   for (auto const& line : plan.notes()) std::cerr << line << '\n';
//   plan.write(staged);                                 // into a staged_output, or to a folder at once
//
// Contract: module names are those of the source checkpoint. `NAME.weight` is taken from the walk (the host may have
// trained it); everything else of the source - norms, biases, modules that are not walked - passes through byte for
// byte from its memory map. Codes and scales are those of policy `stored` whatever the model simulates: scale =
// amax/bound in float32, code = round to even of clamp(x/scale). Weights are encoded one at a time when their turn in
// the file comes, so a plan holds views: write it before weights move.
#pragma once

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "mixbit/formats/check.hpp"
#include "mixbit/io/hf_config.hpp"
#include "mixbit/io/hf_form.hpp"
#include "mixbit/io/hf_source.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "mixbit/io/staged_output.hpp"
#include "mixbit/model/model.hpp"

namespace mixbit {

struct hf_export_options {
  bool scalar_single_block = false;  ///< a single 2-D block's scale is 0-d, as in ModelOpt's files, not [1,1,1,1]
  /// Layers that loaders fuse (q/k/v, gate/up) and that are a single 2-D block each get the largest of their scales, as
  /// in ModelOpt's files: fused, they may lie in one block. Their codes are then coarser than what the model simulates,
  /// so it has to be asked for; without it a note names the layers.
  bool share_fused_blocks = false;
  hf_producer producer = {};
};

/// A checked export, ready to be written.
template <backend B>
class hf_export {
 public:
  /// Throws before anything is written: `state_folded`, `state_not_calibrated`, `format_value` for a module whose
  /// quantizers no Hugging Face form exists for, `file_content` for one that the source has not, or in another shape.
  hf_export(model<B>& m, std::filesystem::path const& source, hf_export_options options = {})
      : model_{m}, options_{std::move(options)}, source_{source} {
    for (auto& module : m.modules()) add_module(std::move(module));
    for (auto const& name : source_.tensors().names())
      if (items_.try_emplace(name, item{source_.tensors().at(name), {}, {}}).second) note_unwalked(name);
    fused_blocks();
    finish_notes();
  }

  /// The quantized modules, in the order of the walk.
  std::vector<hf_layer> const& layers() const { return layers_; }
  /// What loaders will not take, and what is unusual in the files; a line each.
  std::vector<std::string> const& notes() const { return notes_; }

  /// Writes all files below `out`, which the caller commits; `inside` is a folder within it.
  void write(staged_output& out, std::filesystem::path const& inside = {}) {
    auto const quant = hf_quant_config(layers_, exclude(), options_.producer);
    write_tensors(out.path(inside / "model.safetensors"));
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
  };
  /// What encoding needs beyond hf_layer.
  struct encoding {
    const_tensor_ref weight;
    format how;
    std::vector<float> amax;
  };

  void add_module(module_ref<B> module) {
    walked_.insert(module.name);
    auto& s = *module.slots->shared_site();
    if (s.folded)
      fail(error_id::state_folded, module.name, ": fold_weight has replaced this weight by its quantized values; ",
           "export before folding");
    auto* const recipe = s.recipes.empty() ? nullptr : &s.quantizers();
    if (recipe != nullptr && recipe->any_enabled()) return add_quantized(module, *recipe);
    if (module.weight.data == nullptr) return;
    unquantized_.push_back(module.name);
    std::string const name = module.name + ".weight";
    if (!source_.tensors().contains(name)) {
      if (source_.is_tied()) return;  // its values are the embedding's
      fail_missing(module.name);
    }
    require_shape(module.name, canonical_weight(module));
    auto const type = source_.tensors().at(name).type;
    if (!is_compute(type))
      fail(error_id::file_content, source_.tensors().label(), ": tensor ", in_quotes(name), " is ", name_of(type),
           "; weights that are not quantized are float32, float16 or bfloat16");
    items_[name] = {source_.tensors().at(name), {}, {}};
    host_weights_[name] = canonical_weight(module);
  }

  void add_quantized(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    auto const form = hf_form_of(module, recipe);
    const_tensor_ref const view = canonical_weight(module);
    require_source(module.name, view);
    hf_layer layer{module.name, form.format, view, form.weight->grouping(view), module.layout.kind};
    encodings_.push_back({view, file_format_of(form.weight->numerics()), amax_of(*form.weight, view, layer.groups)});
    add_tensors(layer, form.input);
    layers_.push_back(std::move(layer));
  }

  void add_tensors(hf_layer const& layer, tensor_quantizer<B>* input) {
    auto const& e = encodings_.back();
    add(layer.name + ".weight", {{hf_code_shape(layer.format, layer.weight), nullptr}, {}, layers_.size()});
    add_scales(layer.name + ".weight_scale",
               hf_scale_shape(layer.format, layer.groups, options_.scalar_single_block), e.how, e.amax);
    if (!layer.format.has_input_scale()) return;
    auto const how = file_format_of(input->numerics());
    auto const amax = input->numerics().amax_from == amax_source::constant
                          ? std::vector{input->numerics().constant_amax} : calibrated(*input);
    if (amax.front() == 0.0f)
      notes_.push_back(layer.name +
                       ": its input was always zero in calibration; loaders divide by input_scale, which is 0");
    add_scales(layer.name + ".input_scale", dense_geometry(dtype::f32, {}), how, amax);
  }

  void add_scales(std::string name, geometry const& shape, format const& how, std::vector<float> const& amax) {
    add(std::move(name), {{shape, nullptr}, scales_of(how, amax), {}});
  }

  static std::vector<float> scales_of(format const& how, std::vector<float> const& amax) {
    std::vector<float> scales;
    formats::visit_rule<float>(how, [&](auto const& rule) {
      for (float const a : amax) scales.push_back(rule.file_scale(a));
    });
    return scales;
  }

  void fused_blocks() {
    for (auto const& group : detail::hf::fused_groups(layers_)) {
      float largest = 0;
      bool const single = std::all_of(group.begin(), group.end(), [&](std::size_t i) {
        largest = std::max(largest, encodings_[i].amax.empty() ? 0.0f : encodings_[i].amax.front());
        return layers_[i].format.algorithm == hf_algorithm::fp8_2d_blocks && encodings_[i].amax.size() == 1;
      });
      if (!single) continue;
      for (std::size_t const i : group) {
        auto& amax = encodings_[i].amax;
        if (amax.front() == largest) continue;
        if (!options_.share_fused_blocks) {
          notes_.push_back(layers_[i].name +
                           ": its one block keeps its own scale; a loader that fuses it needs share_fused_blocks");
          continue;
        }
        notes_.push_back(layers_[i].name + ": its one block takes the scale of the layers that it is fused with");
        amax.front() = largest;
        items_.at(layers_[i].name + ".weight_scale").scales = scales_of(encodings_[i].how, amax);
      }
    }
  }

  void add(std::string name, item i) {
    if (i.encode == std::nullopt && source_.tensors().contains(name))
      fail(error_id::file_content, source_.tensors().label(), ": has a tensor ", in_quotes(name), " already");
    items_[std::move(name)] = std::move(i);
  }

  /// Files hold `stored` codes with float32 scales whatever the model simulates.
  static format file_format_of(quantizer_numerics const& n) {
    return {n.how.element, policy::stored, dtype::f32, n.how.layout};
  }

  std::vector<float> calibrated(tensor_quantizer<B>& q) {
    if (!q.ready())
      fail(error_id::state_not_calibrated, q.name(), ": a static quantizer that saw no data has no scale to export; ",
           "calibrate it");
    return q.amax(model_.device());
  }

  /// One a group; a dynamic weight quantizer's is that of the weight as it is now.
  std::vector<float> amax_of(tensor_quantizer<B>& q, const_tensor_ref const& w, partition const& groups) {
    auto const count = static_cast<std::size_t>(groups.group_count());
    if (q.numerics().amax_from == amax_source::constant) return std::vector<float>(count, q.numerics().constant_amax);
    std::vector<float> amax;
    if (q.numerics().amax_from == amax_source::calibration) {
      amax = calibrated(q);
    } else {
      buffer<B, float> found{model_.device(), count};
      model_.device().amax({w, groups, found.data(), nullptr});
      amax.resize(count);
      model_.device().copy_to_host(amax.data(), found.data(), count * sizeof(float));
    }
    if (amax.size() != count)
      fail(error_id::tensor_shape, q.name(), ": calibrated on ", amax.size(), " groups, but its weight has ", count);
    check_amax(amax, file_format_of(q.numerics()), w.type, q.name());
    return amax;
  }

  [[noreturn]] void fail_missing(std::string const& module) const {
    fail(error_id::file_content, source_.tensors().label(), ": has no tensor ", in_quotes(module + ".weight"),
         " for the module ", in_quotes(module));
  }

  void require_shape(std::string const& module, const_tensor_ref const& weight) const {
    auto const there = source_.tensors().at(module + ".weight");
    if (!there.same_shape(weight))
      fail(error_id::file_content, source_.tensors().label(), ": tensor ", in_quotes(module + ".weight"), " is ",
           to_string(there), ", but the module's weight is ", to_string(weight));
  }

  /// A tied output layer that is quantized becomes a tensor of its own, and the config says so.
  void require_source(std::string const& module, const_tensor_ref const& weight) {
    auto const& file = source_.tensors();
    bool const there = file.contains(module + ".weight");
    if (there) require_shape(module, weight);
    if (there && !(source_.is_tied() && module.ends_with("lm_head"))) return;
    bool const twin = std::any_of(file.names().begin(), file.names().end(),
                                  [&](auto const& name) { return file.at(name).same_shape(weight); });
    if (!source_.is_tied() || !twin) fail_missing(module);
    untied_ = true;
    notes_.push_back(module + ": was tied to the embedding; it is now a tensor of its own, tie_word_embeddings false");
  }

  /// Tables and matrices that the host does not walk stay unquantized, and loaders are told.
  void note_unwalked(std::string const& name) {
    constexpr std::string_view suffix = ".weight";
    if (!name.ends_with(suffix) || source_.tensors().at(name).rank < 2) return;
    std::string module = name.substr(0, name.size() - suffix.size());
    if (!walked_.contains(module)) unquantized_.push_back(std::move(module));
  }

  void finish_notes() {
    if (layers_.empty()) notes_.push_back("no module is quantized: the checkpoint is an unquantized one");
    auto const loaders = hf_loader_notes(layers_);
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
    if (!layers_.empty()) config["quantization_config"] = hf_quantization_config(layers_, quant);
    return config;
  }

  /// The source's own, byte for byte, or what transformers would derive from its config.
  void write_generation_config(std::filesystem::path const& path) const {
    auto const own = source_.file("generation_config.json");
    if (std::filesystem::exists(own)) return write_file_atomically(path, mapped_file{own}.text());
    if (generates(source_.config())) write_json_file(path, generation_config_from(source_.config()), 2);
  }

  /// The seam for shards: one writer a file, each with its share of the items.
  void write_tensors(std::filesystem::path const& path) {
    std::vector<named_geometry> shapes;
    for (auto const& [name, i] : items_) shapes.push_back({name, i.view});
    safetensors_writer writer{path, std::move(shapes), {{"format", "pt"}}};
    workspace_lock<B> const held{model_.scratch()};
    for (auto const& due : writer.order()) write_item(writer, due, items_.at(due.name));
    writer.commit();
  }

  void write_item(safetensors_writer& writer, named_geometry const& due, item const& i) {
    if (i.encode) {
      auto const codes = encode(*i.encode, static_cast<std::size_t>(due.shape.bytes()));
      return writer.write({due.shape, codes.data()});
    }
    if (!i.scales.empty()) return writer.write({due.shape, i.scales.data()});
    auto const host = host_weights_.find(due.name);
    if (host == host_weights_.end()) return writer.write(i.view);
    if (host->second.where == device::cpu && host->second.type == due.shape.type) return writer.write(host->second);
    auto const bytes = converted(host->second, due.shape.type);
    writer.write({due.shape, bytes.data()});
  }

  std::vector<std::uint8_t> encode(std::size_t layer, std::size_t bytes) {
    auto& device = model_.device();
    auto const& e = encodings_[layer];
    buffer<B, float> amax{device, e.amax.size()}, scales{device, e.amax.size()};
    buffer<B, std::uint8_t> codes{device, bytes};
    device.copy_from_host(amax.data(), e.amax.data(), e.amax.size() * sizeof(float));
    device.encode({e.weight, layers_[layer].groups, amax.data(), e.how, codes.data(), scales.data(), nullptr});
    std::vector<std::uint8_t> host(bytes);
    device.copy_to_host(host.data(), codes.data(), bytes);
    return host;
  }

  /// A host's weight dense in PyTorch's order and in the source's type; exact where the host's type is no narrower.
  std::vector<std::byte> converted(const_tensor_ref const& w, dtype type);

  model<B>& model_;
  hf_export_options options_;
  hf_source source_;
  std::unordered_map<std::string, item> items_;
  std::unordered_map<std::string, const_tensor_ref> host_weights_;  ///< unquantized, from the walk
  std::unordered_set<std::string> walked_;
  std::vector<std::string> unquantized_, notes_;
  std::vector<hf_layer> layers_;
  std::vector<encoding> encodings_;  ///< of layers_
  bool untied_ = false;
};

template <backend B>
std::vector<std::byte> hf_export<B>::converted(const_tensor_ref const& w, dtype type) {
  std::int64_t reach = 1;  // elements from the first to the last in memory
  for (int a = 0; a < w.rank; ++a) reach += (w.shape[a] - 1) * w.stride[a];
  std::vector<std::byte> memory(w.size() == 0 ? 0 : static_cast<std::size_t>(reach) * size_of(w.type));
  model_.device().copy_to_host(memory.data(), w.data, memory.size());
  std::vector<std::byte> dense(static_cast<std::size_t>(w.size()) * size_of(type));
  visit_compute(w.type, [&]<class From>(From) {
    visit_compute(type, [&]<class To>(To) {
      for (std::int64_t i = 0; i < w.size(); ++i) {
        std::int64_t offset = 0;
        for (std::int64_t a = w.rank - 1, rest = i; a >= 0; rest /= w.shape[a], --a)
          offset += rest % w.shape[a] * w.stride[a];
        From from;
        std::memcpy(&from, memory.data() + static_cast<std::size_t>(offset) * sizeof from, sizeof from);
        To const to = from_float<To>(to_float(from));
        std::memcpy(dense.data() + static_cast<std::size_t>(i) * sizeof to, &to, sizeof to);
      }
    });
  });
  return dense;
}

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
