#include "files.hpp"

#include <filesystem>

namespace conformance {

using namespace mixbit;

namespace {

bool is_there(std::string const& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

tensor_source::tensor_source(std::string const& where) : where_{where} {
  std::size_t colon = where.size();
  while (!is_there(where.substr(0, colon)) && colon != std::string::npos && colon > 0)
    colon = where.rfind(':', colon - 1);
  if (colon == std::string::npos || colon == 0 || colon == where.size()) open(where, "");
  else if (colon + 1 == where.size()) fail(error_id::usage, in_quotes(where), " names no tensor behind its colon");
  else open(where.substr(0, colon), where.substr(colon + 1));
  if (tensors_.empty()) fail(error_id::file_content, in_quotes(where), " holds no tensors");
}

void tensor_source::open(std::string const& path, std::string const& tensor) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    for (auto const& entry : std::filesystem::directory_iterator{path})
      if (entry.path().extension() == ".npy") open_npy(entry.path().string());
    if (!tensor.empty()) {
      auto const found = tensors_.find(tensor);
      if (found == tensors_.end())
        fail(error_id::file_content, in_quotes(path), ": has no ", in_quotes(tensor + ".npy"));
      tensors_ = {{tensor, found->second}};
    }
    return;
  }
  if (std::filesystem::path{path}.extension() == ".npy") {
    if (!tensor.empty()) fail(error_id::usage, in_quotes(path), " is an npy file, which names no tensors");
    return open_npy(path);
  }
  files_.push_back(safetensors_file::open(path));
  if (!tensor.empty()) tensors_.emplace(tensor, files_.back().at(tensor));
  else
    for (auto const& name : files_.back().names()) tensors_.emplace(name, files_.back().at(name));
}

void tensor_source::open_npy(std::string const& path) {
  arrays_.push_back(npy_file::open(path));
  tensors_.emplace(std::filesystem::path{path}.stem().string(), arrays_.back().tensor());
}

const_tensor_ref const& tensor_source::of(std::string const& name, bool only) const {
  if (only && tensors_.size() == 1) return tensors_.begin()->second;
  auto const found = tensors_.find(name);
  if (found == tensors_.end())
    fail(error_id::file_content, in_quotes(where_), ": has no tensor ", in_quotes(name), ", which the input has");
  return found->second;
}

}  // namespace conformance
