// The checkpoint that an export makes of a source checkpoint and a model, whatever form its quantized weights have:
// what stays as it is, the output layer that was tied to the embedding, and the writing of all of it.
//
// Contract: module names are those of the source. Each tensor of the output is a view of the source's memory map, the
// host's values in the type of the source's tensor, or bytes that are made when their turn in the file comes; it holds
// views, so it is written before weights move. An export adds its tensors while it walks (keep, replace, add) and then
// calls take_the_rest() once. Every check is before write().
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mixbit/core/order.hpp"
#include "mixbit/io/exportable.hpp"
#include "mixbit/io/folders.hpp"
#include "mixbit/io/copy_file.hpp"
#include "mixbit/io/hf_config.hpp"
#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_kv_cache.hpp"
#include "mixbit/io/hf_rewritten.hpp"
#include "mixbit/io/hf_source.hpp"
#include "mixbit/io/hf_tied.hpp"
#include "mixbit/io/hf_values.hpp"
#include "mixbit/io/safetensors_shards.hpp"
#include "mixbit/io/staged_output.hpp"
#include "mixbit/model/model.hpp"

namespace mixbit {

template <backend B>
class hf_output {
 public:
  /// A tensor's bytes, made when they are written.
  using maker = std::function<std::vector<std::uint8_t>()>;

  hf_output(model<B>& m, std::filesystem::path const& source, std::vector<preceding_op> preceding)
      : model_{m}, preceding_{std::move(preceding)}, source_{source}, modules_{m.modules()}, tied_{modules_} {}

  hf_source const& source() const { return source_; }
  std::vector<module_ref<B>> const& modules() const { return modules_; }
  /// Modules with a matrix, table or kernel that stays as it is; complete after take_the_rest().
  std::vector<std::string> const& unquantized() const { return unquantized_; }
  std::vector<std::string>& notes() { return notes_; }
  std::vector<std::string> const& notes() const { return notes_; }

  static recipe_quantizers<B>* exportable_recipe(module_ref<B> const& module) {
    return detail::exportable_recipe(module);
  }

  /// The scale of a cache's keys or values, with a note where it is 0.
  float cache_scale(tensor_quantizer<B>& q) {
    float const scale = hf_kv_scale(detail::hf::tensor_amax(model_.device(), q));
    if (scale == 0.0f)
      notes_.push_back(q.name() + ": was always shown zeros in calibration; loaders divide by its scale, which is 0");
    return scale;
  }

  /// A module that is not quantized.
  void keep(module_ref<B> const& module) {
    if (module.weight.data == nullptr) return;
    unquantized_.push_back(module.name);
    bool const there = source_.tensors().contains(module.name + ".weight");
    if (tied_.is_head(source_, module)) heads_.push_back(module);
    else if (!there) source_.fail_missing(module.name);
    if (there) add_unquantized(module, module.name + ".weight");
  }

  /// Of a module that is quantized: the source has its weight, in its shape. A tied output layer becomes a tensor of
  /// its own, and the config says so.
  void require_source(module_ref<B> const& module) {
    std::string const name = module.name + ".weight";
    bool const there = source_.tensors().contains(name), tied = tied_.is_head(source_, module);
    if (there) source_.require_shape(module.name, name, detail::hf::file_weight(module));
    else if (!tied || tied_.table_of(source_, module).empty()) source_.fail_missing(module.name);
    gone_.insert(name);
    if (tied) untie(module.name);
    else if (!source_.says_tied() && module.name.ends_with("lm_head")) say_untied(module.name);
  }

  /// In the place of the source's tensor, of a module that require_source has passed.
  void replace(std::string const& name, geometry const& shape, maker make) {
    items_[name] = {{shape, nullptr}, std::move(make)};
  }
  /// A tensor that the source does not have.
  void add(std::string const& name, geometry const& shape, maker make) {
    if (source_.tensors().contains(name))
      fail(error_id::file_content, source_.tensors().label_of(name), ": has a tensor ", in_quotes(name), " already");
    items_[name] = {{shape, nullptr}, std::move(make)};
  }
  /// The same of values that there are already, of the shape's type.
  template <class T>
  void add_values(std::string const& name, geometry const& shape, std::vector<T> const& values) {
    add(name, shape, [bytes = bytes_of(values)] { return bytes; });
  }

  template <class T>
  static std::vector<std::uint8_t> bytes_of(std::vector<T> const& values) {
    std::vector<std::uint8_t> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }

  /// Everything that no module has taken: norms and biases that were rewritten, what the host does not walk, heads.
  void take_the_rest() {
    for (auto const& module : modules_)
      for (auto const& name : module.slots->shared_site()->scales_folded_into) add_rewritten(module.name, name);
    for (auto const& name : source_.tensors().names())
      if (!gone_.contains(name) && items_.try_emplace(name, item{source_.tensors().at(name), {}}).second)
        note_unwalked(name);
    for (auto const& head : heads_) add_head(head);
  }

  /// Tensors, config.json with `quantization_config` (null: without), and generation_config.json of models that
  /// generate. Throws `file_open` where the output's folder and the source's lie in one another.
  void write(staged_output& out, std::filesystem::path const& inside, std::int64_t shard_bytes,
             json_document const& quantization_config) {
    if (lie_in_one_another(out.folder() / inside, source_.folder()))
      fail(error_id::file_open, "cannot write a checkpoint to ", in_quotes(out.folder() / inside),
           ": it and the source ", in_quotes(source_.folder()), " lie in one another; write to a folder apart from it");
    auto const config_file = out.path(inside / "config.json"),  // where they cannot be, nothing is written
        generation_file = out.path(inside / "generation_config.json");
    out.publish_last(inside / "config.json");
    source_.tensors().while_unchanged([&] { write_tensors(out, inside, shard_bytes); });
    json_document config = source_.config();
    if (untied_) config["tie_word_embeddings"] = false;
    if (!quantization_config.is_null()) config["quantization_config"] = quantization_config;
    write_json_file(config_file, config, 4);
    write_generation_config(generation_file);
  }

 private:
  struct item {
    const_tensor_ref view;  ///< without data where the bytes are made
    maker make;
  };

  /// A tensor outside of the walk, into which a scale of this module was folded.
  void add_rewritten(std::string const& module, std::string const& name) {
    auto const written = hf_rewritten_tensor(preceding_, name);
    if (written.data == nullptr)
      fail(error_id::state_missing, name, ": was rewritten when the scale of ", module, " was folded into it, and the ",
           "source has it as it was before; give the export's option `preceding` what fold_pre_quant_scales was given");
    auto const there = source_.tensors().at(name);
    if (!there.same_shape(written))
      fail(error_id::file_content, source_.tensors().label_of(name), ": tensor ", in_quotes(name), " is ",
           to_string(there), ", and the host's has ", written.size(), " values");
    source_.require_floats(name, there.type);
    items_[name] = {there, {}};
    host_weights_[name] = written;
  }

  /// In the type of the source's tensor `like`, which is the module's own but for a head that was tied.
  void add_unquantized(module_ref<B> const& module, std::string const& like) {
    auto const there = source_.tensors().at(like);
    const_tensor_ref const weight = detail::hf::file_weight(module);
    source_.require_shape(module.name, like, weight);
    source_.require_floats(like, there.type);
    items_[module.name + ".weight"] = {there, {}};
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
    auto const at = items_.find(name);
    if (at == items_.end() || at->second.make) return false;  // it is quantized
    auto const host = host_weights_.find(name);
    auto const& other = host == host_weights_.end() ? at->second.view : host->second;
    if (weight.data == other.data && weight.type == other.type && weight.stride == other.stride) return true;
    if (!is_compute(other.type)) return false;
    dtype const type = size_of(weight.type) < size_of(other.type) ? weight.type : other.type;
    return converted(weight, type) == converted(other, type);
  }

  void untie(std::string const& head) {
    untied_ = true;
    notes_.push_back(head + ": was tied to the embedding; it is now a tensor of its own, tie_word_embeddings false");
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

  /// The source's own, byte for byte, or what transformers would derive from its config.
  void write_generation_config(std::filesystem::path const& path) const {
    auto const own = source_.file("generation_config.json");
    if (std::error_code none; std::filesystem::exists(own, none))
      return copy_file_atomically(own, path);
    if (generates(source_.config())) write_json_file(path, generation_config_from(source_.config()), 2);
  }

  void write_tensors(staged_output& out, std::filesystem::path const& inside, std::int64_t shard_bytes) {
    std::vector<named_geometry> shapes;
    for (auto const& [name, i] : items_) shapes.push_back({name, i.view});
    detail::sort_stably(shapes, [](auto const& a, auto const& b) { return a.name < b.name; });
    safetensors_shards writer{out, inside, std::move(shapes), {{"format", "pt"}}, shard_bytes};
    workspace_lock<B> const held{model_.scratch()};
    for (auto const& due : writer.order()) write_item(writer, due, items_.at(due.name));
    writer.commit();
  }

  void write_item(safetensors_shards& writer, named_geometry const& due, item const& i) {
    if (i.make) return writer.write({due.shape, i.make().data()});
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
  std::vector<preceding_op> preceding_;
  hf_source source_;
  std::vector<module_ref<B>> modules_;  ///< of the walk
  detail::hf::tied_weights<B> tied_;
  std::unordered_map<std::string, item> items_;
  std::unordered_set<std::string> gone_;  ///< of the source: weights that are quantized
  std::unordered_map<std::string, const_tensor_ref> host_weights_;  ///< unquantized, from the walk
  std::vector<module_ref<B>> heads_;  ///< unquantized, and tied in the source
  std::vector<std::string> unquantized_, notes_;
  bool untied_ = false;
};

}  // namespace mixbit
