// Writing a quantized model as a GGUF file, from the Hugging Face checkpoint that it was read from.
//
//   mixbit::quantize(m, config);                         // int8 or int4 in blocks of 32, MXFP4, NVFP4
//   mixbit::round_gguf_scales(m);                        // scales of Q8_0 and Q4_0 become float16: measure from here
//   mixbit::gguf_export plan{m, "llama-hf"};             // every check is here, and nothing is written
//   for (auto const& line : plan.notes()) std::cerr << line << '\n';
//   plan.write("llama.gguf");
//
// Contract: module names are those of the source. A weight that is quantized is held exactly: code times scale is what
// fake quantization under policy `stored` gives (io/gguf_format.hpp says which formats; of NVFP4 readers multiply in
// another order, so the last bit of a product may differ), but that -0 becomes +0 in MXFP4 and NVFP4. What GGUF cannot
// hold is refused by name: other formats, rows that are no whole blocks, scales that float16 does not have, quantizers
// of inputs, outputs and caches, pre_quant_scale, rotations, branches. Everything else is written as it is: float32,
// float16 and bfloat16 in their type, vectors as float32. Weights are encoded one at a time when their turn comes.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mixbit/io/exportable.hpp"
#include "mixbit/io/gguf_blocks.hpp"
#include "mixbit/io/gguf_form.hpp"
#include "mixbit/io/gguf_outline.hpp"
#include "mixbit/io/gguf_writer.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_rewritten.hpp"
#include "mixbit/io/hf_source.hpp"
#include "mixbit/io/hf_tied.hpp"
#include "mixbit/io/hf_values.hpp"
#include "mixbit/model/model.hpp"

namespace mixbit {

struct gguf_export_options {
  gguf_naming names = {};       ///< none: those of Llama, where config.json is one's
  gguf_metadata metadata = {};  ///< behind what the family says; tokenizer.ggml.* among it
  /// What fold_pre_quant_scales was given: norms and biases that it rewrote come from the host, not from the source.
  std::vector<preceding_op> preceding = {};
};

/// A checked export, ready to be written. It holds views: write it before weights move.
template <backend B>
class gguf_export {
 public:
  /// Throws before anything is written: `format_value` for what GGUF cannot hold, `format_amax` for a scale that
  /// float16 does not have, `state_folded`, `state_not_calibrated`, `file_content` for tensors that the source has not,
  /// has in another shape or type, or that have no name in GGUF.
  gguf_export(model<B>& m, std::filesystem::path const& source, gguf_export_options options = {})
      : model_{m},
        options_{std::move(options)},
        source_{source},
        modules_{m.modules()},
        tied_{modules_},
        outline_{source_, family(), "; gguf_export_options::names can give one, or leave it out"} {
    for (auto const& module : modules_) add_module(module);
    for (auto const& module : modules_)
      for (auto const& name : module.slots->shared_site()->scales_folded_into) add_rewritten(module.name, name);
    outline_.take_the_rest();
    metadata_ = outline_.metadata();
    metadata_.insert(metadata_.end(), options_.metadata.begin(), options_.metadata.end());
    for (auto& note : outline_.notes(metadata_)) notes_.push_back(std::move(note));
  }

  /// What is unusual in the file, a line each.
  std::vector<std::string> const& notes() const { return notes_; }
  /// What will be written, in order.
  std::vector<gguf_tensor> const& tensors() const { return outline_.tensors(); }
  gguf_metadata const& metadata() const { return metadata_; }

  void write(std::filesystem::path const& path) {
    gguf_writer writer{path, metadata_, outline_.tensors()};
    source_.tensors().while_unchanged([&] { write_tensors(writer); });
    writer.commit();
  }

 private:
  void write_tensors(gguf_writer& writer) {
    workspace_lock<B> const held{model_.scratch()};
    for (auto const& i : outline_.items()) {
      auto const at = quantized_.find(i.from);
      if (at == quantized_.end()) {
        writer.write(plain_bytes(i));
        continue;
      }
      writer.write(block_bytes(i, at->second));
      if (i.type != gguf_type::nvfp4) continue;
      float const scale = at->second.encoding.tensor_scale();
      writer.write(std::as_bytes(std::span{&scale, 1}));
    }
  }

  struct quantized {
    hf_encoding<B> encoding;
    element_type element;
  };

  gguf_family family() const {
    if (options_.names) return {options_.names, {}};
    auto known = gguf_family_of(source_.config(), "; give gguf_export_options::metadata and names");
    if (!known)
      fail(error_id::file_content, source_.tensors().label(), ": config.json is no LlamaForCausalLM's, whose names ",
           "and metadata are known; give gguf_export_options::names and metadata");
    return *std::move(known);
  }

  void add_module(module_ref<B> const& module) {
    auto* recipe = detail::exportable_recipe(module);
    if (recipe != nullptr && !recipe->any_acts()) recipe = nullptr;
    if (recipe == nullptr && module.weight.data == nullptr) return;
    std::optional<detail::gguf::module_form<B>> form;
    if (recipe != nullptr) form.emplace(module, *recipe);
    std::string const name = module.name + ".weight";
    const_tensor_ref const weight = detail::hf::file_weight(module);
    bool const there = source_.tensors().contains(name), tied = tied_.is_head(source_, module);
    if (!there && !tied) source_.fail_missing(module.name);
    if (there) source_.require_shape(module.name, name, weight);
    if (form) return add_quantized(module, *recipe, *form);
    if (!there && shares_embedding(module)) return;  // llama.cpp takes the embedding for it
    if (!there) notes_.push_back(module.name + ": was tied to the embedding; it is now a tensor of its own");
    add_plain(name, there ? source_.tensors().at(name) : weight, weight);
  }

  /// Does a tied head lie in the memory of an embedding that is written as it is?
  bool shares_embedding(module_ref<B> const& head) const {
    return std::any_of(modules_.begin(), modules_.end(), [&](auto const& e) {
      return e.layout.kind == site_kind::lookup && e.weight.data == head.weight.data &&
             detail::gguf::acting_recipe(e) == nullptr;
    });
  }

  void add_quantized(module_ref<B> const& module, recipe_quantizers<B>& recipe,
                     detail::gguf::module_form<B> const& form) {
    recipe.find(quantizer_role::weight)->refuse_learning("an export");
    const_tensor_ref const view = source_weight(module);
    if (view.rank != detail::hf::file_weight(module).rank)
      fail(error_id::format_value, module.name, ": a weight that is quantized as a matrix and of rank ",
           detail::hf::file_weight(module).rank, " in the file; GGUF's blocks lie along its last axis");
    detail::gguf::require_whole_blocks(module.name, form.type, view.shape[view.rank - 1]);
    std::string const name = module.name + ".weight";
    outline_.add_quantized(name, view, form.type);
    hf_encoding<B> encoding{model_.device(), *form.weight, view, form.weight->grouping(view)};
    if (has_half_scales(form.type)) require_half(form, encoding.scales());
    quantized_.emplace(name, quantized{std::move(encoding), form.weight->numerics().how.element});
  }

  static void require_half(detail::gguf::module_form<B> const& form, std::vector<float> const& scales) {
    for (std::size_t b = 0; b < scales.size(); ++b)
      if (!is_half(scales[b]))
        fail(error_id::format_amax, form.weight->name(), ": the scale of block ", b, " is ", scales[b], ", which ",
             "float16 does not hold exactly, and ", gguf_info(form.type).name, " has float16 scales; ",
             "round_gguf_scales(model) moves calibrated amaxes to those whose scales it holds");
  }

  /// The host's values, where it has any, in the type of `like`.
  void add_plain(std::string const& name, const_tensor_ref const& like, const_tensor_ref const& host) {
    outline_.add_plain(name, like);
    hosts_[name] = host;
  }

  void add_rewritten(std::string const& module, std::string const& name) {
    auto const written = hf_rewritten_tensor(options_.preceding, name);
    if (written.data == nullptr)
      fail(error_id::state_missing, name, ": was rewritten when the scale of ", module, " was folded into it, and the ",
           "source has it as it was before; give gguf_export_options::preceding what fold_pre_quant_scales was given");
    auto const there = source_.tensors().at(name);
    if (!there.same_shape(written))
      fail(error_id::file_content, source_.tensors().label_of(name), ": tensor ", in_quotes(name), " is ",
           to_string(there), ", and the host's has ", written.size(), " values");
    add_plain(name, there, written);
  }

  std::vector<std::byte> block_bytes(gguf_item const& i, quantized const& q) {
    auto const parts = q.encoding.encode(model_.device());
    detail::code_view const codes{q.element, i.shape, parts.codes};
    auto const threads = executor_of(model_.device());
    if (!has_half_scales(i.type))
      return detail::gguf::blocks_of_rows(i.type, codes, parts.block_scales, i.place.heads, threads);
    return detail::gguf::blocks_of_rows(i.type, codes, q.encoding.scales(), i.place.heads, threads);
  }

  std::vector<std::byte> plain_bytes(gguf_item const& i) {
    auto const host = hosts_.find(i.from);
    bool const of_host = host != hosts_.end() && host->second.data != nullptr;
    auto const values =
        of_host ? fetch_floats(model_.device(), host->second) : source_.tensors().read_as_float(i.from);
    std::int64_t const rows = i.shape.shape[0], width = i.shape.size() / std::max<std::int64_t>(rows, 1);
    dtype const type = i.type == gguf_type::f32 ? dtype::f32 : i.type == gguf_type::f16 ? dtype::f16 : dtype::bf16;
    std::vector<std::byte> bytes(values.size() * size_of(type));
    visit_compute(type, [&]<class To>(To) {
      std::byte* out = bytes.data();
      for (std::int64_t r = 0; r < rows; ++r) {
        auto const* const from = values.data() + detail::gguf::permuted_row(r, rows, i.place.heads) * width;
        for (std::int64_t k = 0; k < width; ++k, out += sizeof(To)) {
          To const to = from_float<To>(from[k]);
          std::memcpy(out, &to, sizeof to);
        }
      }
    });
    return bytes;
  }

  model<B>& model_;
  gguf_export_options options_;
  hf_source source_;
  std::vector<module_ref<B>> modules_;  ///< of the walk
  detail::hf::tied_weights<B> tied_;
  gguf_outline outline_;
  std::unordered_map<std::string, quantized> quantized_;       ///< by the source's names
  std::unordered_map<std::string, const_tensor_ref> hosts_;  ///< unquantized, from the walk
  gguf_metadata metadata_;
  std::vector<std::string> notes_;
};

/// Checks, then writes. Returns the plan's notes.
template <backend B>
std::vector<std::string> export_gguf(model<B>& m, std::filesystem::path const& source,
                                     std::filesystem::path const& file, gguf_export_options options = {}) {
  gguf_export<B> plan{m, source, std::move(options)};
  plan.write(file);
  return plan.notes();
}

}  // namespace mixbit
