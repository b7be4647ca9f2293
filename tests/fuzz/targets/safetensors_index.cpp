#include "fuzz/target.hpp"
#include "mixbit/io/hf_source.hpp"

namespace {

using namespace mixbit;

constexpr std::string_view head =
    R"({"a.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
    R"("b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}} )";

/// A folder with one shard, s.safetensors with the tensors a.weight and b.
std::filesystem::path const& folder() {
  static std::filesystem::path const made = [] {
    auto const path = fuzz::folder() / "sharded";
    std::filesystem::create_directory(path);
    std::string file(sizeof(std::uint64_t), '\0');
    file[0] = static_cast<char>(head.size());
    test::write_text(path / "s.safetensors", file.append(head).append(4, '\0'));
    test::write_text(path / "config.json", "{}");
    return path;
  }();
  return made;
}

fuzz::target const index{"safetensors_index", fuzz::kind::json, [](fuzz::bytes input) {
  test::write_text(folder() / "model.safetensors.index.json", fuzz::text_of(input));
  auto const set = safetensors_set::open(folder());
  for (auto const& name : set.names()) set.read_as_float(name);
}};

fuzz::target const model_config{"model_config", fuzz::kind::json, [](fuzz::bytes input) {
  test::write_text(folder() / "model.safetensors", test::read_text(folder() / "s.safetensors"));
  test::write_text(folder() / "config.json", fuzz::text_of(input));
  hf_source const source{folder()};
  static_cast<void>(source.is_tied());
}};

}  // namespace
