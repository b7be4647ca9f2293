// bench_losses [--json]: what calibration algorithms are worth. byte_lm's validation loss under every preset, and
// with its weights in 2, 3, 4 and 8 bits (integers in blocks of 32, as W4A16 has them) under every algorithm; those
// that take no such weights say so, and get a network that they take where its bits are those. lsq learns its scales
// on the calibration windows, weights as they are. Prints the tables of docs/losses.md, or one JSON object a line.
// Windows are those of tests/golden.
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

#include "block_weights.hpp"
#include "byte_lm/loss.hpp"
#include "byte_lm/training.hpp"
#include "golden_suites/lm_model.hpp"
#include "json_option.hpp"
#include "mixbit/adapters/eigen_linalg.hpp"
#include "mixbit/config/json.hpp"
#include "mixbit/model/scale_training.hpp"

namespace {

struct outcome {
  double loss = 0;
  std::string refusal;  ///< why there is no loss
};

/// Four passes over the calibration windows by which weight scales alone are learned.
void learn_scales(golden::lm_model& lm, mixbit::model<byte_lm::backend>& model) {
  byte_lm::adam const gradients{lm.host};  // backwards find them while it lives; weights stay, for it takes no step
  mixbit::scale_training<byte_lm::backend> scales{model};
  for (int pass = 0; pass < 4; ++pass)
    for (auto const& batch : lm.calibration) {
      auto const logits = lm.host.logits(batch.inputs());
      lm.host.backward(byte_lm::cross_entropy_gradient(lm.pool, logits, batch.targets()));
      scales.step(1e-2);
    }
  scales.finish();
}

outcome loss_of(golden::lm_model& lm, mixbit::quantize_config const& config) {
  mixbit::model_options<byte_lm::backend> options{.device = byte_lm::backend{lm.pool}};
  options.linalg = mixbit::eigen_linalg{lm.pool};
  mixbit::model<byte_lm::backend> model{lm.host, options};
  try {
    quantize(model, config, [&] {
      for (auto const& batch : lm.calibration) (void)lm.host.logits(batch.inputs());
    });
  } catch (mixbit::error const& e) {
    return {0, std::string{e.message()}};
  }
  for (auto const& step : config.algorithm.steps())
    if (step.method == "lsq") learn_scales(lm, model);
  outcome const measured{byte_lm::evaluate(lm.host, lm.validation), {}};
  mixbit::disable_quantizer(model, "*");  // the next one starts from an unquantized model
  return measured;
}

struct row {
  std::string weights;
  mixbit::quantize_config config;
};

/// What an algorithm is measured on. SmoothQuant takes INT8 weights and inputs, headroom NVFP4 inputs: where the bits
/// are theirs they get them, beside max on the same.
std::vector<row> rows_of(int bits) {
  std::string const name = "INT" + std::to_string(bits) + " b32";
  std::vector<row> rows;
  for (char const* algorithm : {"max", "mse", "awq_lite", "awq_clip", "awq_full", "gptq", "svdquant", "lsq"})
    rows.push_back({name, bench::block_weights(bits, algorithm)});
  mixbit::algorithm_step const hessian{"local_hessian", {{"fp8_scale_sweep", false}}};  // the default is NVFP4's alone
  rows.push_back({name, bench::block_weights(bits, hessian)});
  for (auto const& [algorithm, preset, takes] :
       {std::tuple{"smoothquant", "INT8_DEFAULT_CFG", 8}, {"nvfp4_act_headroom", "NVFP4_DEFAULT_CFG", 4}}) {
    if (bits != takes) {
      rows.push_back({name, bench::block_weights(bits, algorithm)});
      continue;
    }
    for (char const* method : {"max", algorithm}) {
      rows.push_back({preset, mixbit::preset(preset)});
      rows.back().config.algorithm = method;
    }
  }
  return rows;
}

void print(std::string const& what, std::string const& algorithm, outcome const& o, bool json) {
  if (json)
    std::printf("{\"weights\": \"%s\", \"algorithm\": \"%s\", \"validation_loss\": %s}\n", what.c_str(),
                algorithm.c_str(), o.refusal.empty() ? std::to_string(o.loss).c_str() : "null");
  else
    std::printf("| %s | %s | %s |\n", what.c_str(), algorithm.c_str(),
                o.refusal.empty() ? std::to_string(o.loss).c_str() : o.refusal.c_str());
  std::fflush(stdout);
}

void bits_table(golden::lm_model& lm, bool json) {
  if (!json) std::puts("| weights | algorithm | validation loss |\n|---|---|---|");
  print("none quantized", "", {byte_lm::evaluate(lm.host, lm.validation), {}}, json);
  for (int const bits : {8, 4, 3, 2})
    for (auto const& [weights, config] : rows_of(bits))
      print(weights, config.algorithm.steps().front().method, loss_of(lm, config), json);
}

void presets_table(golden::lm_model& lm, bool json) {
  if (!json) std::puts("\n| preset | algorithm | validation loss |\n|---|---|---|");
  for (auto const& name : mixbit::preset_names()) {
    auto const config = mixbit::preset(name);
    std::string algorithms;
    for (auto const& step : config.algorithm.steps()) algorithms += (algorithms.empty() ? "" : ", ") + step.method;
    print(std::string{name}, algorithms, loss_of(lm, config), json);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::with_json_option("bench_losses", argc, argv, [](bool json) {
    golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
    bits_table(lm, json);
    presets_table(lm, json);
  });
}
