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
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mixbit/io/gguf_blocks.hpp"
#include "mixbit/io/gguf_form.hpp"
#include "mixbit/io/gguf_naming.hpp"
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

namespace detail::gguf {

/// llama.cpp's number of the file's type (LLAMA_FTYPE), where one says it; "guessed" for mixtures.
inline std::uint32_t file_type(std::set<gguf_type> const& used) {
  if (used.size() != 1) return used.empty() ? 0 : 1024;
  switch (*used.begin()) {
    case gguf_type::q4_0: return 2;
    case gguf_type::q8_0: return 7;
    case gguf_type::mxfp4: return 38;
    case gguf_type::nvfp4: return 39;
    default: return 1024;
  }
}

}  // namespace detail::gguf

/// A checked export, ready to be written. It holds views: write it before weights move.
template <backend B>
class gguf_export {
 public:
  /// Throws before anything is written: `format_value` for what GGUF cannot hold, `format_amax` for a scale that
  /// float16 does not have, `state_folded`, `state_not_calibrated`, `file_content` for tensors that the source has not,
  /// has in another shape or type, or that have no name in GGUF.
  gguf_export(model<B>& m, std::filesystem::path const& source, gguf_export_options options = {})
      : model_{m}, options_{std::move(options)}, source_{source}, modules_{m.modules()}, tied_{modules_} {
    bool const llama = is_llama(source_.config());
    if (!options_.names && !llama)
      fail(error_id::file_content, source_.tensors().label(), ": config.json is no LlamaForCausalLM's, whose names ",
           "and metadata are known; give gguf_export_options::names and metadata");
    if (llama && !options_.names) metadata_ = gguf_llama_metadata(source_.config());
    if (!options_.names) options_.names = gguf_llama_names(source_.config());
    for (auto const& module : modules_) add_module(module);
    for (auto const& module : modules_)
      for (auto const& name : module.slots->shared_site()->scales_folded_into) add_rewritten(module.name, name);
    for (auto const& name : source_.tensors().names())
      if (!items_.contains(name)) add_plain(name, source_.tensors().at(name), {});
    finish();
  }

  /// What is unusual in the file, a line each.
  std::vector<std::string> const& notes() const { return notes_; }
  /// What will be written, in order.
  std::vector<gguf_tensor> const& tensors() const { return tensors_; }
  gguf_metadata const& metadata() const { return metadata_; }

  void write(std::filesystem::path const& path) {
    gguf_writer writer{path, metadata_, tensors_};
    workspace_lock<B> const held{model_.scratch()};
    for (auto const* const i : order_) {
      writer.write(bytes_of(*i));
      if (i->scale) writer.write(std::as_bytes(std::span{&*i->scale, 1}));
    }
    writer.commit();
  }

 private:
  /// A tensor of the output: a weight to be encoded, or values as they are.
  struct item {
    gguf_place place;
    gguf_type type = gguf_type::f32;
    geometry shape;
    std::string from;                ///< the source's tensor
    const_tensor_ref host;           ///< instead of it, where it has data
    std::optional<hf_encoding<B>> encoding = {};
    element_type element = {};
    std::optional<float> scale = {};  ///< NVFP4's of the tensor, which is a tensor of its own
  };

  [[noreturn]] void refuse_source(std::string const& tensor, std::string const& why) const {
    fail(error_id::file_content, source_.tensors().label(), ": tensor ", in_quotes(tensor), why);
  }

  gguf_place place_of(std::string const& tensor, geometry const& shape) const {
    auto const place = options_.names(tensor);
    if (!place) refuse_source(tensor, " has no name in GGUF; gguf_export_options::names can give one, or leave it out");
    std::int64_t const rows = shape.rank == 0 ? 1 : shape.shape[0];
    if (place->heads < 0 || (place->heads > 0 && rows % (2 * place->heads) != 0))
      refuse_source(tensor, detail::concat(": ", rows, " rows are not an even number for each of ", place->heads,
                                           " heads"));
    return *place;
  }

  void add_module(module_ref<B> const& module) {
    if (module.slots->shared_site()->folded)
      fail(error_id::state_folded, module.name, ": fold_weight has replaced this weight by its quantized values; ",
           "export before folding");
    auto* const recipe = detail::gguf::acting_recipe(module);
    if (recipe == nullptr && module.weight.data == nullptr) return;
    std::optional<detail::gguf::module_form<B>> form;
    if (recipe != nullptr) form.emplace(module, *recipe);
    std::string const name = module.name + ".weight";
    const_tensor_ref const weight = detail::hf::file_weight(module);
    bool const there = source_.tensors().contains(name), tied = tied_.is_head(source_, module);
    if (!there && !tied)
      fail(error_id::file_content, source_.tensors().label(), ": has no tensor ", in_quotes(name), " for the module ",
           in_quotes(module.name));
    if (there && !source_.tensors().at(name).same_shape(weight))
      refuse_source(name, detail::concat(" is ", to_string(source_.tensors().at(name)), ", but the weight of the ",
                                         "module ", in_quotes(module.name), " is ", to_string(weight)));
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
    auto const info = gguf_info(form.type);
    if (view.rank != detail::hf::file_weight(module).rank)
      fail(error_id::format_value, module.name, ": a weight that is quantized as a matrix and of rank ",
           detail::hf::file_weight(module).rank, " in the file; GGUF's blocks lie along its last axis");
    if (view.shape[view.rank - 1] % info.block != 0)
      fail(error_id::format_value, module.name, ": rows of ", view.shape[view.rank - 1], " elements are no whole ",
           "blocks: ", info.name, " takes a multiple of ", info.block);
    item i{place_of(module.name + ".weight", view), form.type, view, {}, {}};
    i.element = form.weight->numerics().how.element;
    i.encoding.emplace(model_.device(), *form.weight, view, form.weight->grouping(view));
    if (has_half_scales(form.type)) require_half(form, i.encoding->scales());
    if (form.type == gguf_type::nvfp4) i.scale = i.encoding->tensor_scale();
    used_.insert(form.type);
    items_[module.name + ".weight"] = std::move(i);
  }

  static void require_half(detail::gguf::module_form<B> const& form, std::vector<float> const& scales) {
    for (std::size_t b = 0; b < scales.size(); ++b)
      if (!is_half(scales[b]))
        fail(error_id::format_amax, form.weight->name(), ": the scale of block ", b, " is ", scales[b], ", which ",
             "float16 does not hold exactly, and ", gguf_info(form.type).name, " has float16 scales; ",
             "round_gguf_scales(model) moves calibrated amaxes to those whose scales it holds");
  }

  /// In the type of `like`; vectors, which llama.cpp wants in float32, in that.
  void add_plain(std::string const& name, const_tensor_ref const& like, const_tensor_ref const& host) {
    geometry shape = like;
    auto const place = place_of(name, shape);
    if (shape.rank == 0) shape = dense_geometry(like.type, {1});
    if (!is_compute(like.type))
      refuse_source(name, detail::concat(" is ", name_of(like.type), "; float32, float16 and bfloat16 are written"));
    gguf_type const type = shape.rank == 1 || like.type == dtype::f32 ? gguf_type::f32
                           : like.type == dtype::f16                  ? gguf_type::f16
                                                                      : gguf_type::bf16;
    items_[name] = {place, type, shape, name, host};
  }

  void add_rewritten(std::string const& module, std::string const& name) {
    auto const written = hf_rewritten_tensor(options_.preceding, name);
    if (written.data == nullptr)
      fail(error_id::state_missing, name, ": was rewritten when the scale of ", module, " was folded into it, and the ",
           "source has it as it was before; give gguf_export_options::preceding what fold_pre_quant_scales was given");
    auto const there = source_.tensors().at(name);
    if (!there.same_shape(written))
      refuse_source(name, detail::concat(" is ", to_string(there), ", and the host's has ", written.size(), " values"));
    add_plain(name, there, written);
  }

  /// The order of the file: by the source's names.
  void finish() {
    std::vector<std::string> names;
    for (auto const& [name, i] : items_)
      if (!i.place.name.empty()) names.push_back(name);
    std::sort(names.begin(), names.end());
    for (auto const& name : names) {
      item const& i = items_.at(name);
      order_.push_back(&i);
      tensors_.push_back({i.place.name, i.type, i.shape});
      if (i.scale) tensors_.push_back({scale_name(i.place.name), gguf_type::f32, dense_geometry(dtype::f32, {1})});
    }
    metadata_.push_back({"general.quantization_version", std::uint32_t{2}});
    metadata_.push_back({"general.file_type", detail::gguf::file_type(used_)});
    metadata_.insert(metadata_.end(), options_.metadata.begin(), options_.metadata.end());
    bool const tokens = std::any_of(metadata_.begin(), metadata_.end(),
                                    [](auto const& e) { return e.key.starts_with("tokenizer."); });
    if (!tokens) notes_.push_back("no tokenizer is in the metadata (tokenizer.ggml.*), and llama.cpp needs one");
    if (used_.empty()) notes_.push_back("no module is quantized: the file holds an unquantized model");
    if (used_.contains(gguf_type::q4_0))
      notes_.push_back("Q4_0 is held as it was simulated, in codes from -7 to 7; llama.cpp's own uses -8 too");
  }

  /// Beside "blk.0.attn_q.weight": "blk.0.attn_q.scale".
  static std::string scale_name(std::string name) {
    constexpr std::string_view suffix = ".weight";
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
    return name + ".scale";
  }

  std::vector<std::byte> bytes_of(item const& i) {
    if (!i.encoding) return plain_bytes(i);
    auto const codes = i.encoding->codes(model_.device());
    detail::code_view const view{i.element, i.shape, codes};
    if (has_half_scales(i.type)) return detail::gguf::blocks_of_rows(i.type, view, i.encoding->scales(), i.place.heads);
    auto const scales = i.encoding->block_scales(model_.device());
    return detail::gguf::blocks_of_rows(i.type, view, scales, i.place.heads);
  }

  std::vector<std::byte> plain_bytes(item const& i) {
    auto const values =
        i.host.data == nullptr ? source_.tensors().read_as_float(i.from) : fetch_floats(model_.device(), i.host);
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
  std::unordered_map<std::string, item> items_;  ///< by the source's names
  std::vector<item const*> order_;
  std::vector<gguf_tensor> tensors_;
  gguf_metadata metadata_;
  std::vector<std::string> notes_;
  std::set<gguf_type> used_;
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
