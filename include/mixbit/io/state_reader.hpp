// Reading a quantized model's state; io/state.hpp says what of it and how the files look.
#pragma once

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mixbit/io/state_writer.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit::detail {

/// Both files of a state, whole and undamaged.
class state_files {
 public:
  /// Throws `file_open` and `file_format`.
  explicit state_files(std::filesystem::path const& folder)
      : json_path_{folder / state_json_name},
        json_(read_json()),  // braces would make an array
        tensors_{safetensors_file::open(folder / state_tensors_name)} {
    require_pair();
    std::unordered_set<std::string> listed;
    for (auto const& t : list(json_, "tensors")) {
      std::string const name = text(t, "name");
      listed.insert(name);
      if (!tensors_.contains(name)) refuse_damaged(tensors_.label(), "has no tensor " + in_quotes(name));
      if (digest_of(tensors_.bytes(name)) != text(t, "digest"))
        refuse_damaged(tensors_.label(), "tensor " + in_quotes(name) + " is not what was written");
    }
    for (auto const& name : tensors_.names())
      if (!listed.contains(name)) refuse_damaged(tensors_.label(), "has a tensor more: " + in_quotes(name));
  }

  json_document const& json() const { return json_; }
  safetensors_file const& tensors() const { return tensors_; }
  std::string where() const { return in_quotes(json_path_); }

  /// Members of the document. Throw `file_format` naming it and the key.
  json_document const& at(json_document const& j, char const* key) const {
    if (!j.is_object() || !j.contains(key)) fail(error_id::file_format, where(), ": needs ", in_quotes(key));
    return j.at(key);
  }
  json_document const& list(json_document const& j, char const* key) const {
    auto const& found = at(j, key);
    if (!found.is_array()) fail(error_id::file_format, where(), ": ", key, " is no list, but ", excerpt(found));
    return found;
  }
  std::string text(json_document const& j, char const* key) const {
    auto const& found = at(j, key);
    if (!found.is_string()) fail(error_id::file_format, where(), ": ", key, " is no text, but ", excerpt(found));
    return found.get<std::string>();
  }
  bool flag(json_document const& j, char const* key) const {
    auto const& found = at(j, key);
    if (!found.is_boolean()) fail(error_id::file_format, where(), ": ", key, " is no flag, but ", excerpt(found));
    return found.get<bool>();
  }
  std::uint64_t count(json_document const& j, char const* key) const {
    auto const& found = at(j, key);
    if (!found.is_number_unsigned())
      fail(error_id::file_format, where(), ": ", key, " is no count, but ", excerpt(found));
    return found.get<std::uint64_t>();
  }

 private:
  json_document read_json() {
    mapped_file const file{json_path_};
    digest_ = digest_of(file.bytes());
    auto j = parse_json_strict(file.text(), where(), error_id::file_format);
    if (std::uint64_t const v = count(j, "version"); v < 1 || v > state_version)
      fail(error_id::file_format, where(), ": a state of version ", v, " is another mixbit's; this one reads versions ",
           "up to ", state_version);
    return j;
  }
  /// Are the two of one save, and is the document as it was written?
  void require_pair() const {
    for (auto const& [key, value] : tensors_.metadata())
      if (key == state_json_name && value == digest_) return;
    refuse_damaged(where(), "is not what was written together with " + tensors_.label());
  }
  [[noreturn]] static void refuse_damaged(std::string const& file, std::string const& what) {
    fail(error_id::file_format, file, ": ", what, "; the state is damaged, or its files are not of one save");
  }

  std::filesystem::path json_path_;
  std::string digest_;  ///< of state.json
  json_document json_;
  safetensors_file tensors_;
};

/// What a state makes of a model: built and checked beside what is there, and put in its place at the end.
template <backend B>
class state_restoration {
 public:
  state_restoration(state_files const& files, model<B>& m) : files_{files}, model_{m}, modules_{m.modules()} {
    require_numerics();
    std::unordered_map<std::string, std::size_t> by_name;
    for (std::size_t i = 0; i < modules_.size(); ++i) by_name.emplace(modules_[i].name, i);
    std::vector<bool> found(modules_.size());
    restored_.resize(modules_.size());
    for (auto const& layer : files_.list(files_.json(), "layers")) {
      auto const at = by_name.find(files_.text(layer, "name"));
      if (at == by_name.end()) refuse(files_.text(layer, "name"), "is missing: the model has no such layer");
      if (found[at->second]) refuse(at->first, "is there twice");
      found[at->second] = true;
      restored_[at->second] = read(modules_[at->second], layer);
    }
    share_packed();
    for (std::size_t i = 0; i < modules_.size(); ++i)
      if (!found[i]) refuse(modules_[i].name, "is extra: the model has it, and the state knows no such layer");
  }

  std::vector<std::string>& notes() { return notes_; }

  void commit() {
    workspace_lock<B> const locked{model_.scratch()};
    auto* const one = static_cast<float*>(model_.scratch().scratch.allocate(sizeof(float)));
    float const value = 1.0f;
    model_.device().copy_from_host(one, &value, sizeof value);
    recipe_transaction<B> change{sites_of(modules_)};
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      auto& s = *modules_[i].slots->shared_site();
      if (restored_[i].recipe) s.recipes.push_back(std::move(*restored_[i].recipe));
      s.folded = restored_[i].folded;
    }
    change.commit();  // nothing throws from here on
    for (std::size_t i = 0; i < modules_.size(); ++i)
      std::swap(modules_[i].slots->shared_site()->scales_folded_into, restored_[i].scales_folded_into);
    for (auto const& [to, from] : weights_) model_.device().scale_channels({from, to, 0, 1, one});
  }

 private:
  struct restored_layer {
    std::optional<recipe_quantizers<B>> recipe;
    bool folded = false;
    std::set<std::string> scales_folded_into;
  };

  [[noreturn]] void refuse(std::string const& layer, std::string const& how) const {
    fail(error_id::file_content, files_.where(), ": layer ", in_quotes(layer), " ", how);
  }

  void require_numerics() const {
    auto const& n = model_.options().numerics;
    auto const& saved = files_.at(files_.json(), "numerics");
    auto const rules = files_.text(saved, "policy"), mx = files_.text(saved, "mx");
    if (rules != name_of(n.rules) || mx != name_of(n.mx))
      fail(error_id::file_content, files_.where(), ": was saved under numerics ", rules, ' ', mx,
           ", and the model computes ", name_of(n.rules), ' ', name_of(n.mx), "; set model_options::numerics");
  }

  restored_layer read(module_ref<B> const& module, json_document const& layer) {
    restored_layer made;
    made.folded = layer.contains("folded") && files_.flag(layer, "folded");
    if (layer.contains("scales_folded_into"))
      for (auto const& name : files_.list(layer, "scales_folded_into"))
        made.scales_folded_into.insert(read_string(name, files_.where() + ": scales_folded_into"));
    require_weight(module, files_.at(layer, "weight"));
    if (layer.contains("quantizers")) made.recipe.emplace(read_recipe(module, layer));
    bool const packed = made.recipe && made.recipe->packed;
    if (has_weight(module) && module.weight.data == nullptr && !packed)
      refuse(module.name, "is not compressed in the state, and the host has given up its weight");
    take_weight(module, files_.at(layer, "weight"), made);
    return made;
  }

  /// One that is compressed may be given up already.
  static bool has_weight(module_ref<B> const& module) {
    return module.weight.data != nullptr || module.slots->packed() != nullptr;
  }
  static std::string text_of(module_ref<B> const& module) {
    if (!has_weight(module)) return "none";
    geometry const w = canonical_weight(module);
    return concat(name_of(w.type), ' ', to_string(w));
  }

  void require_weight(module_ref<B> const& module, json_document const& saved) const {
    bool const has = has_weight(module);
    if (saved.is_null() && !has) return;
    if (!saved.is_null() && has) {
      geometry const w = canonical_weight(module);
      bool const same_shape = files_.list(saved, "shape") == shape_json(w);
      if (same_shape && files_.text(saved, "dtype") == name_of(w.type)) return;
    }
    std::string const text =
        saved.is_null() ? "none" : files_.text(saved, "dtype") + ' ' + files_.list(saved, "shape").dump();
    refuse(module.name, "has another weight: " + text + " in the state, " + text_of(module) + " in the model");
  }

  void require_slots(module_ref<B> const& module, json_document const& quantizers) const {
    std::string there, here;
    for (auto const& q : quantizers) there += (there.empty() ? "" : ", ") + files_.text(q, "name");
    for (auto const& p : model_.options().classes.at(module.class_name)) here += (here.empty() ? "" : ", ") + p.name;
    if (there != here)
      refuse(module.name, "has other quantizers: " + there + " in the state, " + here + " in the model (class " +
                              module.class_name + ")");
  }

  recipe_quantizers<B> read_recipe(module_ref<B> const& module, json_document const& layer) {
    auto const& quantizers = files_.list(layer, "quantizers");
    require_slots(module, quantizers);
    recipe_quantizers<B> recipe{files_.text(layer, "recipe"), {}};
    std::string const where = files_.where() + ": " + module.name;
    if (auto const& a = files_.at(layer, "algorithm"); !a.is_null())
      recipe.algorithm = algorithm_from_json(a, where + ".algorithm");
    if (layer.contains("tokens")) recipe.tokens = files_.count(layer, "tokens");
    for (auto const& q : quantizers) recipe.quantizers.push_back(read_quantizer(module, q, where));
    geometry const weight = has_weight(module) ? geometry{canonical_weight(module)} : geometry{};
    take_recipe(files_.tensors(), module.name + ".", recipe, weight, model_.device());
    return recipe;
  }

  sequential_quantizer<B> read_quantizer(module_ref<B> const& module, json_document const& j, std::string where) const {
    std::string const leaf = files_.text(j, "name");
    where += "." + leaf;
    auto const read_all = [&](char const* key) {
      std::vector<quantizer_attribute_config> several;
      for (auto const& a : files_.list(j, key)) several.push_back(attributes_from_json(a, where));
      return several;
    };
    std::uint64_t const members = files_.count(j, "members");
    auto const& numerics = model_.options().numerics;
    sequential_quantizer<B> q{leaf,         module.name + "." + leaf, role_of(leaf),
                              members != 0, read_all("attributes"),   numerics};
    if (q.members().size() != members)
      fail(error_id::file_format, where, ": has ", members, " member(s), and attributes of ", q.members().size());
    if (j.contains("configured")) q.set_configured(read_all("configured"));
    q.enable(files_.flag(j, "enabled"), numerics);
    return q;
  }

  /// The host's weight is written where the state has it; else it should be what it was.
  void take_weight(module_ref<B> const& module, json_document const& saved, restored_layer const& made) {
    if (saved.is_null()) return;
    tensor_ref const w = canonical_weight(module);
    if (saved.contains("stored_as")) {
      if (w.size() != 0) weights_.push_back({w, weight_of_file(files_.text(saved, "stored_as"), w)});
      return;
    }
    if (!saved.contains("digest")) return;  // compressed: it is not read
    if (w.data != nullptr && files_.text(saved, "digest") == weight_digest(model_.device(), w)) return;
    bool const written = made.folded || !made.scales_folded_into.empty();
    if (written)
      refuse(module.name, "has other weights than when this state was saved, and those had been written by " +
                              std::string{made.folded ? "fold_weight" : "fold_pre_quant_scales"} +
                              "; load them first, or save them with the state");
    notes_.push_back(module.name + ": its weight has other values than when this state was saved");
  }
  /// Tied weights that are compressed alike share their codes, as compress makes them.
  void share_packed() {
    std::multimap<void const*, std::shared_ptr<packed_weight<B> const>> users;
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      if (!restored_[i].recipe || !restored_[i].recipe->packed || modules_[i].weight.data == nullptr) continue;
      auto& packed = restored_[i].recipe->packed;
      auto const tied = users.equal_range(modules_[i].weight.data);
      auto const same = std::find_if(tied.first, tied.second,
                                     [&](auto const& u) { return u.second->same_as(*packed, model_.device()); });
      if (same != tied.second) packed = same->second;
      else users.emplace(modules_[i].weight.data, packed);
    }
  }
  const_tensor_ref weight_of_file(std::string const& name, geometry const& like) {
    auto const t = files_.tensors().at(name);
    bool const in_place = B::place == device::cpu && is_aligned(t) && t.same_shape(like) && t.type == like.type;
    if (in_place) return t;
    return std::as_const(copies_.emplace_back(read_like(files_.tensors(), name, model_.device(), like))).view();
  }

  state_files const& files_;
  model<B>& model_;
  std::vector<module_ref<B>> modules_;
  std::vector<restored_layer> restored_;  ///< of modules_
  std::vector<std::pair<tensor_ref, const_tensor_ref>> weights_;  ///< the host's, and what they become
  std::deque<held_tensor<B>> copies_;                             ///< of what cannot be read where it lies in the file
  std::vector<std::string> notes_;
};

}  // namespace mixbit::detail
