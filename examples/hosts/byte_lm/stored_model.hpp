// A model in a folder as Hugging Face writes it: config.json and its tensors, in one file or in shards. What reads them
// is compiled in files.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"

namespace byte_lm {

/// Everything here throws `file_open`, `file_format` or `file_content`, naming file, field or tensor.
class stored_model {
 public:
  /// Holds config.json to the tensors' headers, before memory is taken by it.
  explicit stored_model(std::string const& folder);
  ~stored_model();

  config const& shapes() const;

  /// The finite values of the tensor of this name and shape, as float32.
  void read(std::string const& name, std::vector<std::int64_t> const& shape, std::span<float> values);

  /// A tensor that nobody read is an error too, because the model would not be the one that was trained.
  void require_all_read() const;

 private:
  struct files;
  std::unique_ptr<files> files_;
};

}  // namespace byte_lm
