// One suite of golden files: NAME.json, with the cases, and NAME.safetensors, with the tensors that they name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors.hpp"

namespace mixbit::test {

#ifdef MIXBIT_GOLDEN_DIR
/// The project's own copy of the golden files.
inline std::filesystem::path golden_folder() { return MIXBIT_GOLDEN_DIR; }
#endif

class golden_file {
 public:
  /// Whether `folder` holds the suite, so that a program can skip it.
  static bool exists(std::filesystem::path const& folder, std::string const& name) {
    return std::filesystem::exists(folder / (name + ".json"));
  }

  /// Opens both files; suites without tensors have only the first.
  golden_file(std::filesystem::path const& folder, std::string const& name)
      : cases_(read_json_file(folder / (name + ".json"))) {  // in braces nlohmann would make a list of it
    auto const tensors = folder / (name + ".safetensors");
    if (std::filesystem::exists(tensors)) tensors_ = safetensors_file::open(tensors);
  }

#ifdef MIXBIT_GOLDEN_DIR
  explicit golden_file(std::string const& name) : golden_file{golden_folder(), name} {}
#endif

  json_document const& cases() const { return cases_; }

  /// In place, as long as this object lives. Throws mixbit::error if there is none.
  const_tensor_ref tensor(std::string_view name) const { return tensors().at(name); }

  /// The same, converted from float32, float16 or bfloat16.
  std::vector<float> floats(std::string_view name) const { return tensors().read_as_float(name); }

  safetensors_file const& tensors() const {
    if (!tensors_) fail(error_id::file_content, "this golden suite has no tensors");
    return *tensors_;
  }

 private:
  json_document cases_;
  std::optional<safetensors_file> tensors_;
};

}  // namespace mixbit::test
