// The unquantized Hugging Face checkpoint that an export starts from: config.json and the tensors, in one folder.
#pragma once

#include <filesystem>
#include <utility>

#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors_set.hpp"

namespace mixbit {

/// A checkpoint on disk, one file or shards, that gives the names, the types and what passes through.
class hf_source {
 public:
  /// Throws `file_open`, `file_format`, or `file_content` for what is no unquantized checkpoint.
  explicit hf_source(std::filesystem::path folder)
      : folder_{std::move(folder)},
        config_(read_config()),  // braces would make an array
        tensors_{safetensors_set::open(folder_)} {}

  json_document const& config() const { return config_; }
  safetensors_set const& tensors() const { return tensors_; }
  std::filesystem::path const& folder() const { return folder_; }
  std::filesystem::path file(char const* name) const { return folder_ / name; }

  /// Does the config say whether the output layer is tied? Models differ in what they are where it does not.
  bool says_tied() const { return config_.contains("tie_word_embeddings"); }

  /// Does the output layer share the embedding's weight? Then the file has it once. Not where the config does not say.
  bool is_tied() const {
    auto const at = config_.find("tie_word_embeddings");
    return at != config_.end() && at->is_boolean() && at->get<bool>();
  }

 private:
  json_document read_config() const {
    auto config = read_json_file(file("config.json"));
    if (!config.is_object()) fail(error_id::file_content, in_quotes(file("config.json")), ": not a JSON object");
    if (config.contains("quantization_config"))
      fail(error_id::file_content, in_quotes(file("config.json")), ": has a quantization_config; the source of an ",
           "export is an unquantized checkpoint");
    return config;
  }

  std::filesystem::path folder_;
  json_document config_;
  safetensors_set tensors_;
};

}  // namespace mixbit
