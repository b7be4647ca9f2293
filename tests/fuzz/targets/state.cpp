// A state, changed in one of its files while the other still fits: the digests that tie them together are made anew.
#include "mixbit/io/state.hpp"

#include "fuzz/target.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/checkpoint_host.hpp"

/// Reading a state runs no algorithm, and compiling them takes long.
template <>
mixbit::algorithm_registry<mixbit::test::cpu_backend> mixbit::default_algorithms<mixbit::test::cpu_backend>() {
  return {};
}

namespace {

using namespace mixbit;
using namespace mixbit::test;

/// The layers of tests/golden/state/1.
struct host {
  plain_tensor scaled{6, 10}, sequence{4, 10}, packed{5, 10}, learned{3, 10};
  quantizer_slots<cpu_backend> s_scaled, s_sequence, s_packed, s_learned, s_attention;

  void walk(module_visitor<cpu_backend> const& visit) {
    visit(linear("scaled", s_scaled, scaled));
    visit(linear("sequence", s_sequence, sequence));
    visit(linear("packed", s_packed, packed));
    visit(linear("learned", s_learned, learned));
    visit(module("attention", "attention", s_attention));
  }
  /// What was restored is used.
  void run() {
    plain_tensor const x{4, 10};
    plain_tensor k{2, 10};
    apply(s_scaled, x, scaled, multiply);
    apply(s_sequence, x, sequence, multiply);
    apply(s_packed, x, packed, multiply);
    apply(s_learned, x, learned, multiply);
    apply(s_attention, k, 1);
  }
};

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
  host net;
  model<cpu_backend> m{net};
  auto const restored = restore_state(folder, m);
  if (restored.training) scale_training<cpu_backend>{m, *restored.training};
  net.run();
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
