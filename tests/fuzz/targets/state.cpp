// A state, changed in one of its files while the other still fits: the digests that tie them together are made anew.
#include "mixbit/io/state.hpp"

#include "fuzz/target.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/state_host.hpp"

/// Reading a state runs no algorithm, and compiling them takes long.
template <>
mixbit::algorithm_registry<mixbit::test::cpu_backend> mixbit::default_algorithms<mixbit::test::cpu_backend>() {
  return {};
}

namespace {

using namespace mixbit;
using namespace mixbit::test;

std::filesystem::path golden(char const* name) { return std::filesystem::path{MIXBIT_GOLDEN_DIR} / "state/1" / name; }

void restore(std::string const& json, safetensors_file const& tensors) {
  static auto const folder = [] {
    std::filesystem::create_directory(fuzz::folder() / "state");
    return fuzz::folder() / "state";
  }();
  std::vector<named_tensor> all;
  for (auto const& name : tensors.names()) all.push_back({name, tensors.at(name)});
  test::write_text(folder / "state.json", json);
  auto const digest = digest_of(std::as_bytes(std::span{json}));
  write_safetensors(folder / "state.safetensors", all, {{"format", "mixbit_state"}, {"state.json", digest}});
  state_host net;
  model<cpu_backend> m{net};
  auto const restored = restore_state(folder, m);
  if (restored.training) scale_training<cpu_backend>{m, *restored.training};
  plain_tensor k{2, 10};
  net.run(plain_tensor{4, 10}, k, multiply);  // what was restored is used
}

fuzz::target const state{"state", fuzz::kind::json, [](fuzz::bytes input) {
  static auto const tensors = safetensors_file::open(golden("state.safetensors"));
  restore(std::string{fuzz::text_of(input)}, tensors);
}};

fuzz::target const state_tensors{"state_tensors", fuzz::kind::safetensors, [](fuzz::bytes input) {
  static auto const saved = read_json_file(golden("state.json"));
  auto const tensors = safetensors_file::from_bytes(input, "it");
  auto json = saved;
  auto& listed = json["tensors"] = json_document::array();
  for (auto const& name : tensors.names())
    listed.push_back({{"name", name}, {"digest", digest_of(tensors.bytes(name))}});
  restore(json.dump(), tensors);
}};

}  // namespace
