// States as each version wrote them, in tests/golden/state: they are read for as long as there are any.
#include "mixbit/io/state.hpp"

#include <doctest/doctest.h>

#include <cstdlib>

#include "mixbit/model/compress.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/state_host.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A digest of all operands as their ops get them.
std::string digest_of_run(state_host& net) {
  content_digest seen;
  plain_tensor x{4, 10}, k{2, 10};
  for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] = static_cast<float>((i * 7) % 23) / 8 - 1;
  for (std::size_t i = 0; i < k.values.size(); ++i) k.values[i] = static_cast<float>((i * 5) % 17) / 4 - 1;
  net.run(x, k, [&](plain_tensor const& xq, plain_tensor const& wq) {
    seen.add(xq.values);
    seen.add(wq.values);
    return multiply(xq, wq);
  });
  seen.add(k.values);
  return seen.text();
}

model_options<cpu_backend> with_rewriting() {
  model_options<cpu_backend> options;
  options.algorithms.add("acme.rewrite", [](calibration<cpu_backend>& c, algorithm_step const&) {
    calibrate_max(c);
    for (auto& layer : c.layers) {
      if (layer.name() != "scaled") continue;
      cpu_backend device;
      std::vector<float> scale(10, 0.5f);
      scale[3] = 2.0f;
      for (auto& q : layer.quantizers().quantizers)
        if (q.role() == quantizer_role::input) q.set_pre_quant_scale(device, scale);
      auto& w = layer.quantizers().weight.emplace(device, layer.weight);
      for (std::int64_t i = 0; i < 60; ++i) w.view().as<float>()[i] = layer.weight.as<float>()[i] + 0.25f;
      geometry const down = dense_geometry(dtype::f32, {2, 10}), up = dense_geometry(dtype::f32, {6, 2});
      layer.quantizers().branch.emplace(low_rank_branch<cpu_backend>{{device, down}, {device, up}, {device, w.view()}});
    }
  });
  return options;
}

quantize_config config() {
  auto c = nothing_on();
  quantizer_attribute_config const int8{.num_bits = 8, .axis = 0}, fp8{.num_bits = bit_spec{4, 3}};
  block_config const fives{.axes = {{-1, 5}}};
  block_config nf4 = fives;
  nf4.scale_bits = bit_spec{8};
  nf4.scale_block_sizes = {{-1, 4}};
  quantizer_attribute_config shifted = fp8;
  shifted.bias = bias_config{.axes = {-2}};
  turn_on(c, "scaled.weight_quantizer", int8);
  turn_on(c, "scaled.input_quantizer", {.num_bits = 8});
  c.entries.push_back({"sequence.weight_quantizer", std::nullopt,
                       std::vector{quantizer_attribute_config{.num_bits = 4, .block_sizes = fives}, fp8}, true});
  turn_on(c, "packed.weight_quantizer", {.num_bits = 4, .block_sizes = nf4});
  turn_on(c, "learned.weight_quantizer", int8);
  turn_on(c, "attention.k_bmm_quantizer", shifted);
  c.algorithm = "acme.rewrite";
  return c;
}

void check_version(char const* folder, std::string const& digest) {
  state_host net;
  model<cpu_backend> m{net};
  auto const was = restore_state(std::filesystem::path{MIXBIT_GOLDEN_DIR} / "state" / folder, m);
  CHECK(was.notes.empty());
  CHECK(net.s_packed.packed() != nullptr);
  CHECK(net.s_scaled.shared_site()->quantizers().algorithm == algorithm_config{"acme.rewrite"});
  REQUIRE(was.plan);
  CHECK(was.plan->modules.front().name == "scaled");
  REQUIRE(was.training);
  scale_training<cpu_backend> scales{m, *was.training};
  CHECK(scales.parameters().front()->after.front() == 3.25f);
  digest_of_run(net);  // layouts are probed at the first call
  CHECK(digest_of_run(net) == digest);
}

}  // namespace

TEST_CASE("state: a file of version 1 is restored to the bits that it was saved with") {
  check_version("1", "a583c4d08c56fcbd");
}

// Writes a file of the version that is written now, and prints the digest for a case above:
//   MIXBIT_STATE_OUT=tests/golden/state/N test_io --no-skip -tc="state: writes*"
TEST_CASE("state: writes a file to keep" * doctest::skip()) {
  char const* const out = std::getenv("MIXBIT_STATE_OUT");
  REQUIRE(out != nullptr);
  state_host net;
  for (auto* const w : {&net.scaled, &net.sequence, &net.packed, &net.learned})
    for (std::size_t i = 0; i < w->values.size(); ++i) w->values[i] = static_cast<float>((i * 11) % 29) / 8 - 1.5f;
  model<cpu_backend> m{net, with_rewriting()};
  quantize(m, config(), [&] { digest_of_run(net); });
  compress(m, "packed.weight_quantizer");
  quantization_plan plan;
  plan.formats = {{"INT8", preset("INT8_DEFAULT_CFG"), 8}};
  plan.recipe = {{"scaled.quant_recipe", "INT8"}};
  plan.modules = {{"scaled", "INT8", "searched"}};
  scale_training<cpu_backend> scales{m, learned_scales::both, "learned.weight_quantizer"};
  scales.parameters().front()->after.front() = 3.25f;
  scales.update();
  save_state(out, m, {.plan = &plan, .weights = true, .training = scales.state()});
  digest_of_run(net);
  MESSAGE(digest_of_run(net));
}
