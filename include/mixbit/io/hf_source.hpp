// The unquantized Hugging Face checkpoint that an export starts from: config.json and model.safetensors in one folder.
#pragma once

#include <filesystem>
#include <utility>

#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors.hpp"

namespace mixbit {

/// A checkpoint on disk that gives the names, the types and what passes through. One file today: a sharded source would
/// be opened here, by its index, behind the same three questions.
class hf_source {
 public:
  /// Throws `file_open`, `file_format`, or `file_content` for what is no unquantized checkpoint.
  explicit hf_source(std::filesystem::path folder)
      : folder_{std::move(folder)}, config_(read_config()), tensors_{open_tensors()} {}  // braces would make an array

  json_document const& config() const { return config_; }
  safetensors_file const& tensors() const { return tensors_; }
  std::filesystem::path const& folder() const { return folder_; }
  std::filesystem::path file(char const* name) const { return folder_ / name; }

  /// Does the output layer share the embedding's weight? Then the file has it once.
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
  safetensors_file open_tensors() const {
    auto const whole = file("model.safetensors");
    if (!std::filesystem::exists(whole) && std::filesystem::exists(file("model.safetensors.index.json")))
      fail(error_id::file_content, in_quotes(folder_), ": sharded checkpoints are not read by this version; it needs ",
           "model.safetensors");
    return safetensors_file::open(whole);
  }

  std::filesystem::path folder_;
  json_document config_;
  safetensors_file tensors_;
};

}  // namespace mixbit
