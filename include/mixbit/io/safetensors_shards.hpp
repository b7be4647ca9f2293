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

/// Writes a checkpoint tensor by tensor into a folder of a staged output.
class safetensors_shards {
 public:
  safetensors_shards(staged_output& out, std::filesystem::path const& inside, std::vector<named_geometry> tensors,
                     safetensors_metadata metadata = {}, std::int64_t shard_bytes = default_shard_bytes)
      : out_{out}, inside_{inside}, metadata_{std::move(metadata)} {
    if (shard_bytes < 1) fail(error_id::config_value, "shards of ", shard_bytes, " bytes hold nothing");
    divide(std::move(tensors), shard_bytes);
    remove_stale();
  }

  /// The order in which write() takes the tensors.
  std::vector<named_geometry> const& order() const noexcept { return order_; }
  std::size_t file_count() const noexcept { return ends_.size(); }

  /// Appends the next tensor of order().
  void write(const_tensor_ref const& tensor) {
    if (next_ == order_.size()) fail(error_id::file_content, "more tensors were written than announced");
    if (!writer_) start();
    writer_->write(tensor);
    ++next_;
    if (next_ == ends_[file_]) finish();
  }

  /// After the last tensor: completes the files, and writes the index of several.
  void commit() {
    if (next_ != order_.size())
      fail(error_id::file_content, "tensor ", in_quotes(order_[next_].name), " was announced but not written");
    if (order_.empty()) finish();
    if (file_count() > 1) write_index();
  }

 private:
  void divide(std::vector<named_geometry> tensors, std::int64_t shard_bytes) {
    std::vector<named_geometry> shard;
    std::int64_t filled = 0;
    auto const close = [&] {
      sort_as_in_safetensors(shard);
      order_.insert(order_.end(), shard.begin(), shard.end());
      ends_.push_back(order_.size());
      shard.clear();
      filled = 0;
    };
    for (auto& t : tensors) {
      auto const bytes = t.shape.bytes();
      if (!shard.empty() && bytes > shard_bytes - filled) close();
      filled += bytes;
      shard.push_back(std::move(t));
    }
    if (!shard.empty() || ends_.empty()) close();
  }

  std::string name_of_file(std::size_t i) const {
    if (file_count() == 1) return "model.safetensors";
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, file_count());
    return name;
  }

  void remove_stale() {
    std::error_code none;  // a folder that is not there yet holds nothing
    std::filesystem::directory_iterator it{out_.folder() / inside_, none};
    for (; !none && it != std::filesystem::directory_iterator{}; it.increment(none))
      if (auto const name = it->path().filename().string(); detail::is_checkpoint_file(name))
        out_.remove_stale(inside_ / name);
  }

  void start() {
    auto const begin = order_.begin() + static_cast<std::ptrdiff_t>(file_ == 0 ? 0 : ends_[file_ - 1]);
    auto const end = order_.begin() + static_cast<std::ptrdiff_t>(ends_[file_]);
    writer_.emplace(out_.path(inside_ / name_of_file(file_)), std::vector<named_geometry>{begin, end}, metadata_);
  }

  void finish() {
    if (!writer_) start();
    writer_->commit();
    writer_.reset();
    ++file_;
  }

  void write_index() const {
    std::int64_t total = 0;
    std::vector<std::pair<std::string_view, std::size_t>> files;
    for (std::size_t i = 0, file = 0; i < order_.size(); ++i) {
      while (i == ends_[file]) ++file;
      total += order_[i].shape.bytes();
      files.emplace_back(order_[i].name, file);
    }
    std::sort(files.begin(), files.end());
    json_document map = json_document::object();
    auto& members = map.get_ref<json_document::object_t&>();  // its own lookup is linear, and there may be thousands
    for (auto const& [name, file] : files) members.Container::emplace_back(std::string{name}, name_of_file(file));
    write_json_file(out_.path(inside_ / "model.safetensors.index.json"),
                    {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}});
  }

  staged_output& out_;
  std::filesystem::path inside_;
  safetensors_metadata metadata_;
  std::vector<named_geometry> order_;
  std::vector<std::size_t> ends_;  ///< of each file, in order_
  std::size_t next_ = 0, file_ = 0;
  std::optional<safetensors_writer> writer_;
};

}  // namespace mixbit
