// Writing a checkpoint's tensors as Hugging Face's libraries lay them out: model.safetensors, or, where that would be
// larger than a shard may be, model-00001-of-0000N.safetensors and so on beside model.safetensors.index.json.
//
// Contract: tensors go to shards in the order given, each shard as full as the limit allows; a tensor larger than the
// limit has a shard to itself. Sizes are those of the data, without headers. Within a file the order is
// safetensors_writer's. What an earlier output left in the folder - shards, an index, a single file - goes when the
// staged output is committed. Errors are those of safetensors_writer, and `config_value` for a limit below one byte.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "mixbit/io/staged_output.hpp"

namespace mixbit {

/// What Hugging Face's libraries and ModelOpt put into a shard at most: 10 GB.
inline constexpr std::int64_t default_shard_bytes = 10'000'000'000;

namespace detail {

/// Is this the name of a file that a checkpoint's tensors lie in, or of their index?
inline bool is_checkpoint_file(std::string_view name) {
  return name == "model.safetensors" || name == "model.safetensors.index.json" ||
         (name.starts_with("model-") && name.ends_with(".safetensors") && name.find("-of-") != name.npos);
}

}  // namespace detail

/// Which file tensors go to that come one by one: each file as full as the limit allows. Throws `config_value` for a
/// limit below one byte.
class shard_division {
 public:
  explicit shard_division(std::int64_t shard_bytes) : shard_bytes_{shard_bytes} {
    if (shard_bytes < 1) fail(error_id::config_value, "shards of ", shard_bytes, " bytes hold nothing");
  }
  /// The file of the next tensor.
  std::size_t add(std::int64_t bytes) {
    if (!empty_ && bytes > shard_bytes_ - filled_) {
      ++file_;
      filled_ = 0;
    }
    empty_ = false;
    filled_ += bytes;
    return file_;
  }
  std::size_t file_count() const { return file_ + 1; }

 private:
  std::int64_t shard_bytes_, filled_ = 0;
  std::size_t file_ = 0;
  bool empty_ = true;  ///< the file of the next tensor, which is then the first
};

/// What goes into each file, in the order given; within a file as safetensors_writer lays it out. One file at least.
/// Throws what shard_division does.
inline std::vector<std::vector<named_geometry>> divided_into_shards(std::vector<named_geometry> tensors,
                                                                    std::int64_t shard_bytes) {
  shard_division files{shard_bytes};
  std::vector<std::vector<named_geometry>> shards(1);
  for (auto& t : tensors) {
    shards.resize(std::max(shards.size(), files.add(t.shape.bytes()) + 1));
    shards.back().push_back(std::move(t));
  }
  for (auto& shard : shards) sort_as_in_safetensors(shard);
  return shards;
}

/// Of the file `i` of `count`.
inline std::string shard_name(std::size_t i, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, count);
  return name;
}

/// model.safetensors.index.json of several files.
inline json_document shard_index(std::vector<std::vector<named_geometry>> const& shards) {
  std::int64_t total = 0;
  std::vector<std::pair<std::string_view, std::size_t>> files;
  for (std::size_t i = 0; i < shards.size(); ++i)
    for (auto const& t : shards[i]) {
      total += t.shape.bytes();
      files.emplace_back(t.name, i);
    }
  std::sort(files.begin(), files.end());
  json_document map = json_document::object();
  auto& members = map.get_ref<json_document::object_t&>();  // its own lookup is linear, and there may be thousands
  for (auto const& [name, file] : files)
    members.Container::emplace_back(std::string{name}, shard_name(file, shards.size()));
  return {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
}

/// Takes away what an earlier output left of a checkpoint in `inside`, unless this one writes it.
inline void remove_stale_shards(staged_output& out, std::filesystem::path const& inside) {
  std::error_code none;  // a folder that is not there yet holds nothing
  std::filesystem::directory_iterator it{out.folder() / inside, none};
  for (; !none && it != std::filesystem::directory_iterator{}; it.increment(none))
    if (auto const name = it->path().filename().string(); detail::is_checkpoint_file(name))
      out.remove_stale(inside / name);
}

/// Writes a checkpoint tensor by tensor into a folder of a staged output.
class safetensors_shards {
 public:
  safetensors_shards(staged_output& out, std::filesystem::path const& inside, std::vector<named_geometry> tensors,
                     safetensors_metadata metadata = {}, std::int64_t shard_bytes = default_shard_bytes)
      : out_{out},
        inside_{inside},
        metadata_{std::move(metadata)},
        shards_{divided_into_shards(std::move(tensors), shard_bytes)} {
    for (auto const& shard : shards_) order_.insert(order_.end(), shard.begin(), shard.end());
    remove_stale_shards(out, inside);
  }

  /// The order in which write() takes the tensors.
  std::vector<named_geometry> const& order() const noexcept { return order_; }
  std::size_t file_count() const noexcept { return shards_.size(); }

  /// Appends the next tensor of order().
  void write(const_tensor_ref const& tensor) {
    if (next_ == order_.size()) fail(error_id::file_content, "more tensors were written than announced");
    if (!writer_) start();
    writer_->write(tensor);
    ++next_;
    if (++in_file_ == shards_[file_].size()) finish();
  }

  /// After the last tensor: completes the files, and writes the index of several.
  void commit() {
    if (next_ != order_.size())
      fail(error_id::file_content, "tensor ", in_quotes(order_[next_].name), " was announced but not written");
    if (order_.empty()) finish();
    if (file_count() > 1) write_json_file(out_.path(inside_ / "model.safetensors.index.json"), shard_index(shards_));
  }

 private:
  void start() {
    writer_.emplace(out_.path(inside_ / shard_name(file_, file_count())), shards_[file_], metadata_);
  }

  void finish() {
    if (!writer_) start();
    writer_->commit();
    writer_.reset();
    ++file_;
    in_file_ = 0;
  }

  staged_output& out_;
  std::filesystem::path inside_;
  safetensors_metadata metadata_;
  std::vector<std::vector<named_geometry>> shards_;
  std::vector<named_geometry> order_;  ///< of all shards
  std::size_t next_ = 0, file_ = 0, in_file_ = 0;
  std::optional<safetensors_writer> writer_;
};

}  // namespace mixbit
