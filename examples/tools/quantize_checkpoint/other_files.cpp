#include "other_files.hpp"

#include <functional>
#include <set>
#include <string>

#include "mixbit/io/staged_output.hpp"

namespace quantize_checkpoint {

namespace fs = std::filesystem;

std::vector<fs::path> other_files(fs::path const& folder) {
  std::set<std::string, std::less<>> const weights{".safetensors", ".bin", ".pt",   ".pth", ".onnx",
                                                   ".h5",          ".gguf", ".ot", ".msgpack"};
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator it{folder}, end; it != end; ++it) {
    auto const relative = it->path().lexically_relative(folder);
    std::string const name = relative.filename().string();
    bool const written = relative == "config.json" || relative == "hf_quant_config.json" ||
                         relative == "plan.json" || name.ends_with(".index.json");
    if (name.starts_with(".")) it.disable_recursion_pending();
    if (!it->is_regular_file() || written || name.starts_with(".") ||
        weights.contains(relative.extension().string()))
      continue;
    files.push_back(relative);
  }
  return files;
}

void require_places(fs::path const& out, std::vector<fs::path> const& files) {
  mixbit::staged_output places{out};  // not committed: it removes what it made
  for (auto const& file : files) (void)places.path(file);
}

std::vector<fs::path> known_files(options const& o) {
  auto files = o.to == "gguf" ? std::vector<fs::path>{"model.gguf"} : other_files(o.model);
  if (o.to != "gguf") files.insert(files.end(), {"config.json", "model.safetensors", "model.safetensors.index.json"});
  if (o.to == "modelopt") files.push_back("hf_quant_config.json");
  if (o.target) files.push_back("plan.json");
  return files;
}

}  // namespace quantize_checkpoint
