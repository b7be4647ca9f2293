// Suite lm: logits, validation loss, amax and pre_quant_scale values of data/byte-lm, unquantized and under presets,
// against ModelOpt's. One flipped rounding of an activation spreads, so presets that quantize activations are held to
// the bounds that recomputing in another order needs (tests/golden/README.md); weights are held bit for bit, and where
// an algorithm scales them to 1e-5.
#pragma once

#include <cmath>
#include <map>

#include "golden_suites/lm_model.hpp"
#include "golden_suites/suite.hpp"

namespace golden {

class lm_suite {
 public:
  lm_suite(std::filesystem::path const& dir, std::filesystem::path const& data) : lm_{dir, data} {
    result_.name = "lm";
  }

  suite_result run() {
    auto const& cases = lm_.file.cases();
    unquantized(cases);
    for (auto const& c : cases.at("cases")) {
      std::string const preset = c.at("id");
      auto const config = mixbit::preset(preset);
      quantized(preset, config, c);
    }
    return result_;
  }

 private:
  using backend = lm_model::backend;

  byte_lm::matrix logits() {
    auto const ids = lm_.file.tensor("ids");
    if (ids.type != mixbit::dtype::i32 || ids.rank != 2) refuse("ids", "a matrix of int32");
    std::int64_t const count = ids.shape[0], length = ids.shape[1];
    tokens_.assign(ids.as<std::int32_t>(), ids.as<std::int32_t>() + count * length);
    return lm_.host.logits({tokens_.data(), count, length, length});
  }

  [[noreturn]] void refuse(std::string const& tensor, char const* wanted) const {
    auto const t = lm_.file.tensor(tensor);
    mixbit::fail(mixbit::error_id::file_content, lm_.file.tensors().label(), ": tensor '", tensor, "' is ",
                 to_string(t), " of ", name_of(t.type), ", not ", wanted);
  }

  byte_lm::matrix golden_matrix(std::string const& name) {
    auto const values = lm_.file.floats(name);
    auto const shape = lm_.file.tensor(name);
    if (shape.rank == 0 || shape.size() == 0) refuse(name, "logits");
    std::int64_t const columns = shape.shape[shape.rank - 1];
    return Eigen::Map<byte_lm::matrix const>(values.data(), static_cast<std::int64_t>(values.size()) / columns,
                                             columns);
  }

  void close(double ours, double theirs, double bound, std::string const& what) {
    result_.check(std::abs(ours - theirs) <= bound,
                  mixbit::detail::concat(what, ": ", ours, " against ", theirs, ", bound ", bound));
  }

  void unquantized(mixbit::json_document const& cases) {
    auto const theirs = golden_matrix("logits");
    close((logits() - theirs).cwiseAbs().maxCoeff(), 0, 1e-5 * theirs.cwiseAbs().maxCoeff(), "unquantized logits");
    close(lm_.validation_loss(), cases.at("validation_loss"), 1e-5, "unquantized validation loss");
  }

  void quantized(std::string const& preset, mixbit::quantize_config const& config, mixbit::json_document const& c) {
    auto model = lm_.quantized(mixbit::policy::modelopt);
    mixbit::quantize(model, config, [&] {
      for (auto const& step : lm_.calibration) (void)lm_.host.logits(step.inputs());
    });
    auto const theirs = golden_matrix(c.at("logits"));
    byte_lm::matrix const difference = logits() - theirs;
    bool const activations = quantizers(model, preset, c.at("quantizers"));
    if (c.contains("weight")) weights(model, preset, c["weight"]);
    if (activations) {
      close(difference.norm() / theirs.norm(), 0, 2e-2, preset + " logit norm");
      close(lm_.validation_loss(), c.at("validation_loss"), 1e-3, preset + " validation loss");
    } else {
      close(difference.cwiseAbs().maxCoeff(), 0, 1e-5 * theirs.cwiseAbs().maxCoeff(), preset + " logits");
      close(lm_.validation_loss(), c.at("validation_loss"), 1e-5, preset + " validation loss");
    }
  }

  /// Compares every quantizer; returns whether any quantizes activations.
  bool quantizers(mixbit::model<backend>& model, std::string const& preset, mixbit::json_document const& golden) {
    bool activations = false;
    std::size_t enabled = 0;
    for (auto const& module : model.modules())
      for (auto& q : module.slots->shared_site()->quantizers().quantizers) {
        if (!q.enabled() && (!q.has_pre_quant_scale() || q.role() != mixbit::quantizer_role::input)) continue;
        activations = activations || (q.enabled() && q.role() == mixbit::quantizer_role::input);
        for (auto const& member : q.members()) {
          ++enabled;
          bool const there = golden.contains(member.name());
          result_.check(there, preset + ": " + member.name() + " is on here and not in ModelOpt");
          if (there) amax(model, preset, q, member, golden[member.name()]);
        }
        if (!q.enabled()) ++enabled;
        pre_quant_scale(model, preset, q, golden);
      }
    result_.check(enabled == golden.size(),
                  mixbit::detail::concat(preset, ": ", enabled, " quantizers are on, ", golden.size(), " in ModelOpt"));
    return activations;
  }

  void amax(mixbit::model<backend>& model, std::string const& preset, mixbit::sequential_quantizer<backend>& q,
            mixbit::tensor_quantizer<backend> const& member, mixbit::json_document const& golden) {
    auto const ours = member.amax(model.device());
    if (!golden.contains("amax")) {
      result_.check(ours.empty(), preset + ": " + q.path() + " has an amax, ModelOpt's has none");
      return;
    }
    bool const exact = q.role() == mixbit::quantizer_role::weight && !q.has_pre_quant_scale();
    near(ours, golden["amax"], preset + ": " + member.name() + " amax", exact ? 0 : bound_of(q));
  }

  void pre_quant_scale(mixbit::model<backend>& model, std::string const& preset,
                       mixbit::sequential_quantizer<backend>& q, mixbit::json_document const& golden) {
    if (q.role() != mixbit::quantizer_role::input) return;
    bool const theirs = golden.contains(q.path()) && golden[q.path()].contains("pre_quant_scale");
    result_.check(theirs == q.has_pre_quant_scale(), preset + ": " + q.path() + ": only one has a pre_quant_scale");
    if (theirs)
      near(q.pre_quant_scale(model.device()), golden[q.path()]["pre_quant_scale"],
           preset + ": " + q.path() + " pre_quant_scale", 1e-5);
  }

  /// Weights that ModelOpt has rewritten, as our quantizers scale them.
  void weights(mixbit::model<backend>& model, std::string const& preset, mixbit::json_document const& golden) {
    for (auto const& module : model.modules()) {
      if (!golden.contains(module.name)) continue;
      auto& q = *module.slots->shared_site()->quantizers().find(mixbit::quantizer_role::weight);
      mixbit::workspace_lock<backend> const held{model.scratch()};
      auto const w = q.scaled(model.device(), model.scratch().scratch, mixbit::source_weight(module));
      near({w.as<float>(), w.as<float>() + w.size()}, golden[module.name], preset + ": " + module.name + ".weight",
           1e-5);
    }
  }

  static double bound_of(mixbit::sequential_quantizer<backend> const& q) {
    bool const deep = q.role() == mixbit::quantizer_role::input && !q.path().starts_with("model.layers.0.");
    return deep ? 1e-2 : 1e-5;
  }

  void near(std::vector<float> const& ours, mixbit::json_document const& tensor, std::string const& what,
            double bound) {
    auto const theirs = lm_.file.floats(tensor.get<std::string>());
    double worst = ours.size() == theirs.size() ? 0 : INFINITY;
    for (std::size_t i = 0; i < theirs.size() && i < ours.size(); ++i)
      if (ours[i] != theirs[i]) worst = std::max(worst, std::abs(double{ours[i]} - theirs[i]) / std::abs(theirs[i]));
    result_.check(worst <= bound, mixbit::detail::concat(what, " differs by ", worst, " relative, bound ", bound));
  }

  lm_model lm_;
  std::vector<std::uint8_t> tokens_;
  suite_result result_;
};

}  // namespace golden

inline suite_result run_lm(std::filesystem::path const& dir, std::filesystem::path const& data) {
  return golden::lm_suite{dir, data}.run();
}
