// byte_lm's scales of SmoothQuant and AWQ, folded into its norms and into up_proj, and the checkpoints that come of it.
#include <doctest/doctest.h>

#include <cmath>

#include "byte_lm/preceding.hpp"
#include "golden_suites/lm_model.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/fold_scales.hpp"
#include "mixbit/model/postprocess.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

namespace {

using byte_lm::matrix;
using mixbit::algorithm_step;
using model_of = mixbit::model<byte_lm::backend>;

struct bench {
  golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
  model_of m = lm.quantized(mixbit::policy::stored);

  matrix logits() { return lm.host.logits(lm.calibration[0].slice(0, 2).inputs()); }

  /// Scales shared by what reads one norm. o_proj stays as it is: byte_lm knows nothing that could take its scale.
  void quantize(char const* preset, algorithm_step const& step) {
    auto config = mixbit::preset(preset);
    config.algorithm = std::vector<algorithm_step>{step, {"share_state"}};
    config.entries.push_back({"*o_proj*", std::nullopt, std::nullopt, false});
    mixbit::quantize(m, config, [&] { logits(); });
  }
};

/// The model with quantized weights and plain inputs, where rounding stays rounding: an input that is quantized may, an
/// ulp off, be cast to the next of 255 codes.
matrix with_plain_inputs(bench& b) {
  mixbit::quantizer_guard const keep{b.m, "*input_quantizer"};
  disable_quantizer(b.m, "*input_quantizer");
  return b.logits();
}

float distance(matrix const& a, matrix const& b) { return (a - b).norm() / b.norm(); }

}  // namespace

TEST_CASE("byte_lm: folded scales leave its output as it is, quantized or not, and the checkpoint has none") {
  struct {
    char const* preset;
    algorithm_step step;
    char const* algorithm;
  } const cases[] = {{"INT4_AWQ_CFG", {"awq_lite"}, "W4A16_AWQ"},
                     {"INT8_SMOOTHQUANT_CFG", {"smoothquant", {{"alpha", 0.5}}}, "W8A8_SQ_PER_CHANNEL"}};
  for (auto const& c : cases) {
    CAPTURE(c.preset);
    bench b;
    matrix const plain = b.logits();
    b.quantize(c.preset, c.step);
    matrix const y = b.logits();
    bool const has_inputs = std::string_view{c.preset} == "INT8_SMOOTHQUANT_CFG";
    matrix const weights_only = with_plain_inputs(b);
    mixbit::test::temporary_folder const folder;
    auto const source = std::filesystem::path{MIXBIT_DATA_DIR} / "byte-lm";
    auto const ops = byte_lm::preceding_ops(b.lm.host);
    auto const refused = [&](mixbit::hf_export_options const& options, mixbit::error_id id) {
      return mixbit::test::error_text(id, [&] { mixbit::hf_export{b.m, source, options}; });
    };
    auto const report = mixbit::fold_pre_quant_scales(b.m, ops);
    CHECK(report.folded == 12);
    CHECK(report.notes.empty());
    matrix const folded = b.logits();
    if (has_inputs) CHECK(distance(folded, plain) == doctest::Approx(distance(y, plain)).epsilon(0.05));
    else CHECK(distance(folded, y) < 1e-5f);
    CHECK(mixbit::test::says(refused({}, mixbit::error_id::state_missing), "layernorm.weight", "preceding"));

    mixbit::hf_export_options options;
    options.preceding = ops;
    mixbit::export_hf_checkpoint(b.m, source, folder / "out", options);
    auto const file = mixbit::safetensors_file::open(folder / "out" / "model.safetensors");
    for (auto const& name : file.names()) CHECK(name.find("pre_quant_scale") == name.npos);
    auto const& norm = b.lm.host.layers[1].input_layernorm.weight->value;
    CHECK(file.read_as_float("model.layers.1.input_layernorm.weight") ==
          std::vector<float>(norm.data(), norm.data() + norm.size()));
    auto const config = mixbit::read_json_file(folder / "out" / "hf_quant_config.json");
    CHECK(config["quantization"]["quant_algo"] == c.algorithm);

    CHECK(distance(with_plain_inputs(b), weights_only) < 1e-5f);
    disable_quantizer(b.m, "*");
    CHECK(distance(b.logits(), plain) < 1e-5f);
  }
}
