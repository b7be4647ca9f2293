// Named tensors in safetensors files, npy files and folders of npy files.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mixbit/io/npy.hpp"
#include "mixbit/io/safetensors.hpp"

namespace conformance {

class tensor_source {
 public:
  /// "FILE", "FILE:TENSOR" or a folder. Throws file errors; every message names the path.
  explicit tensor_source(std::string const& where);

  /// By name; an npy file is called by its stem. In place, as long as this object lives.
  std::map<std::string, mixbit::const_tensor_ref> const& tensors() const { return tensors_; }

  /// The tensor that belongs to one of the input's: the only one, or the one of its name. Throws file_content.
  mixbit::const_tensor_ref const& of(std::string const& name, bool only) const;

 private:
  void open(std::string const& path, std::string const& tensor);
  void open_npy(std::string const& path);

  std::string where_;
  std::vector<mixbit::npy_file> arrays_;
  std::vector<mixbit::safetensors_file> files_;
  std::map<std::string, mixbit::const_tensor_ref> tensors_;
};

}  // namespace conformance
