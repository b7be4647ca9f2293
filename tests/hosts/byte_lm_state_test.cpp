// byte_lm saved in the middle of its training and restored into a fresh one; and with its weights compressed.
#include <doctest/doctest.h>

#include <map>

#include "byte_lm/training.hpp"
#include "golden_suites/lm_model.hpp"
#include "mixbit/io/state.hpp"
#include "mixbit/model/compress.hpp"
#include "support/temporary_folder.hpp"

namespace {

using byte_lm::matrix;

struct bench {
  golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
  mixbit::model<byte_lm::backend> m = lm.quantized(mixbit::policy::stored);

  byte_lm::byte_windows batch(std::size_t i) { return lm.calibration[i].slice(0, 2); }
  matrix logits() { return lm.host.logits(batch(0).inputs()); }
  void quantize(char const* preset) {
    mixbit::quantize(m, mixbit::preset(preset), [&] { logits(); });
  }
  /// A host of its own makes its optimizer anew where it goes on.
  void train() {
    byte_lm::adam optimizer{lm.host, 2e-4f};
    for (std::size_t i = 0; i < 2; ++i) byte_lm::train_step(lm.host, optimizer, batch(i));
  }
};

}  // namespace

TEST_CASE("byte_lm: training goes on from a state to the same bits, beside what the host itself saves") {
  mixbit::test::temporary_folder const folder;
  bench whole, fresh;
  whole.quantize("INT8_DEFAULT_CFG");
  whole.train();
  std::map<std::string, matrix> parameters;  // its own checkpoint: norms and the embedding too
  whole.lm.host.for_each_parameter([&](std::string const& n, byte_lm::parameter& p) { parameters[n] = p.value; });
  save_state(folder.path(), whole.m);
  whole.train();
  std::size_t weights = 0;
  for (auto const& module : fresh.m.modules()) weights += module.weight.data != nullptr;
  CHECK(restore_state(folder.path(), fresh.m).notes.size() == weights);  // they are others so far
  fresh.lm.host.for_each_parameter([&](std::string const& n, byte_lm::parameter& p) { p.value = parameters.at(n); });
  CHECK(restore_state(folder.path(), fresh.m).notes.empty());
  fresh.train();
  CHECK(fresh.logits() == whole.logits());
}

TEST_CASE("byte_lm: with compressed weights, which it gives up, its logits are the same bits in the accounted bytes") {
  mixbit::test::temporary_folder const folder;
  bench b, fresh;
  b.quantize("NVFP4_DEFAULT_CFG");
  matrix const expected = b.logits();
  std::int64_t bits = 0;
  for (auto const& module : b.m.modules()) {
    auto& recipe = module.slots->shared_site()->quantizers();
    if (recipe.find(mixbit::quantizer_role::weight))
      bits += mixbit::cost_bits(mixbit::cost_model::exact, recipe, canonical_weight(module));
  }
  auto const report = mixbit::compress(b.m);
  CHECK(report.bytes() == bits / 8);
  std::int64_t given_up = 0;
  b.lm.host.for_each_parameter([&](std::string const& name, byte_lm::parameter& p) {
    for (auto const& layer : report.layers)
      if (layer.name + ".weight" == name) p.value.resize(0, 0), given_up += layer.host_bytes;
  });
  MESSAGE(report.layers.size(), " layers: ", given_up, " bytes of float32 given up, ", report.bytes(), " held");
  CHECK(report.bytes() * 7 < given_up);
  CHECK(b.logits() == expected);
  save_state(folder.path(), b.m);
  restore_state(folder.path(), fresh.m);
  CHECK(fresh.logits() == expected);
}
