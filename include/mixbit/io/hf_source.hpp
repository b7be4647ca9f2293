// The unquantized Hugging Face checkpoint that an export starts from: config.json and the tensors, in one folder.
#pragma once

#include <filesystem>
#include <string>
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

  [[noreturn]] void fail_missing(std::string const& module) const {
    bool const unsaid = !says_tied() && module.ends_with("lm_head");
    fail(error_id::file_content, tensors_.label(), ": has no tensor ", in_quotes(module + ".weight"),
         " for the module ", in_quotes(module),
         unsaid ? ", and config.json does not say tie_word_embeddings, which here is false unless it says true" : "");
  }

  /// Of a tensor that is written in the source's type from the host's values. Throws `file_content`.
  void require_floats(std::string const& tensor, dtype type) const {
    if (!is_compute(type))
      fail(error_id::file_content, tensors_.label_of(tensor), ": tensor ", in_quotes(tensor), " is ", name_of(type),
           "; weights that are not quantized are float32, float16 or bfloat16");
  }

  /// Throws `file_content` where the tensor is not of the weight's shape, or not there.
  void require_shape(std::string const& module, std::string const& tensor, const_tensor_ref const& weight) const {
    auto const there = tensors_.at(tensor);
    if (!there.same_shape(weight))
      fail(error_id::file_content, tensors_.label_of(tensor), ": tensor ", in_quotes(tensor), " is ", to_string(there),
           ", but the weight of the module ", in_quotes(module), " is ", to_string(weight));
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
