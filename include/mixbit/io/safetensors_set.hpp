// A checkpoint's tensors as one set, whether they lie in one safetensors file or in shards with an index, as Hugging
// Face's libraries lay them out: model.safetensors, or model.safetensors.index.json with
// {"metadata": {..}, "weight_map": {tensor: shard}} and the shards beside it. Where a folder has both, the single file
// is the checkpoint, as for those libraries.
//
// Contract: open() maps every file and checks each as safetensors_file does, and that the index tells the truth: every
// tensor lies in the shard that it names and in no other, and no tensor of a shard is left out. Shards are names of
// files in the folder itself: a path that leads elsewhere is refused. `metadata.total_size` is not looked at; writers
// disagree about what it counts. Errors: `file_open`, `file_format`, `file_content`, naming file and tensor.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors.hpp"

namespace mixbit {

class safetensors_set {
 public:
  /// Opens the checkpoint in a folder.
  static safetensors_set open(std::filesystem::path const& folder) {
    auto const single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
    std::error_code unknown;  // of what cannot be looked at, opening says why
    if (std::filesystem::exists(single, unknown) || !std::filesystem::exists(index, unknown)) return of_file(single);
    return of_index(index);
  }

  /// One file as a set.
  static safetensors_set of_file(std::filesystem::path const& path) {
    safetensors_set set{in_quotes(path)};
    set.add(path.filename().string(), safetensors_file::open(path));
    return set;
  }

  /// The shards that an index names, in the order of their names.
  static safetensors_set of_index(std::filesystem::path const& index) {
    auto const document = read_json_file(index);
    auto const map = document.is_object() ? document.find("weight_map") : document.end();
    if (map == document.end() || !map->is_object())
      fail(error_id::file_content, in_quotes(index), ": has no object 'weight_map'");
    safetensors_set set{in_quotes(index)};
    std::map<std::string, std::string> first_of;  // a tensor of each shard, for messages
    for (auto const& [tensor, shard] : map->items()) first_of.try_emplace(set.shard_name(tensor, shard), tensor);
    for (auto const& [shard, tensor] : first_of) set.add_shard(index.parent_path() / shard, tensor);
    std::unordered_set<std::string_view> listed;
    for (auto const& [tensor, shard] : map->items()) {
      listed.insert(tensor);
      if (set.file_of(tensor) != shard.get_ref<std::string const&>())
        fail(error_id::file_content, set.label_, ": tensor ", in_quotes(tensor), " is said to be in ",
             in_quotes(shard.get_ref<std::string const&>()), ", which has none of this name");
    }
    for (auto const& name : set.names_)
      if (!listed.contains(name))
        fail(error_id::file_content, set.label_, ": does not list tensor ", in_quotes(name), " of ",
             in_quotes(set.file_of(name)));
    return set;
  }

  /// Names in the order of the data, shard by shard.
  std::vector<std::string> const& names() const noexcept { return names_; }
  bool contains(std::string_view name) const { return owner_.contains(name); }
  /// Throws `file_content` if there is none of this name.
  const_tensor_ref at(std::string_view name) const { return owner(name).at(name); }
  std::span<std::byte const> bytes(std::string_view name) const { return owner(name).bytes(name); }
  /// As safetensors_file::read_as_float.
  std::vector<float> read_as_float(std::string_view name) const { return owner(name).read_as_float(name); }

  struct shard {
    std::string name;  ///< of the file, without its folder
    safetensors_file file;
  };
  std::vector<shard> const& shards() const noexcept { return shards_; }

  /// Runs what reads tensors. Throws `file_open` where one of the files was changed meanwhile, whatever came of that:
  /// of a torn file it is no use to say that it holds a NaN.
  template <class Read>
  void while_unchanged(Read const& read) const {
    try {
      read();
    } catch (...) {
      require_unchanged();
      throw;
    }
    require_unchanged();
  }
  /// As mapped_file::require_unchanged, of every file.
  void require_unchanged() const {
    for (auto const& s : shards_) s.file.require_unchanged();
  }
  /// Of the file that holds a tensor.
  void require_unchanged(std::string_view tensor) const { owner(tensor).require_unchanged(); }

  /// How messages name the checkpoint: its file, or the index.
  std::string const& label() const noexcept { return label_; }
  /// How they name the file that holds a tensor. Throws `file_content` if there is none of this name.
  std::string const& label_of(std::string_view name) const { return owner(name).label(); }

 private:
  explicit safetensors_set(std::string label) : label_{std::move(label)} {}

  safetensors_file const& owner(std::string_view name) const {
    auto const found = owner_.find(name);
    if (found == owner_.end()) fail(error_id::file_content, label_, ": has no tensor ", in_quotes(name));
    return shards_[found->second].file;
  }

  /// The shard with this tensor; empty where there is none.
  std::string_view file_of(std::string_view tensor) const {
    auto const found = owner_.find(tensor);
    return found == owner_.end() ? std::string_view{} : std::string_view{shards_[found->second].name};
  }

  /// The file that an entry of the index names.
  std::string const& shard_name(std::string const& tensor, json_document const& entry) const {
    if (!entry.is_string())
      fail(error_id::file_content, label_, ": the shard of tensor ", in_quotes(tensor), " is not a string");
    auto const& name = entry.get_ref<std::string const&>();
    if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos || name.find('\0') != name.npos)
      fail(error_id::file_content, label_, ": the shard ", in_quotes(name), " of tensor ", in_quotes(tensor),
           " is not the name of a file in the folder");
    return name;
  }

  void add_shard(std::filesystem::path const& path, std::string const& tensor) {
    std::error_code why;
    if (!std::filesystem::exists(path, why))
      fail(error_id::file_open, label_, ": the shard ", in_quotes(path.filename().string()), " of tensor ",
           in_quotes(tensor), why ? " cannot be opened: " + why.message() : std::string{" is missing"});
    add(path.filename().string(), safetensors_file::open(path));
  }

  void add(std::string name, safetensors_file file) {
    std::size_t const at = shards_.size();
    for (auto const& tensor : file.names()) {
      auto const [there, is_new] = owner_.emplace(tensor, at);
      if (!is_new)
        fail(error_id::file_content, label_, ": tensor ", in_quotes(tensor), " is in ",
             in_quotes(shards_[there->second].name), " and in ", in_quotes(name));
      names_.push_back(tensor);
    }
    shards_.push_back({std::move(name), std::move(file)});
  }

  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  std::string label_;
  std::vector<shard> shards_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::size_t, text_hash, std::equal_to<>> owner_;  ///< a tensor's, in shards_
};

}  // namespace mixbit
