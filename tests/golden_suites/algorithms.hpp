// Suite algorithms: every calibration algorithm through quantize() on fc2(gelu(fc1(x))) with outlier channels, against
// ModelOpt's amax, pre_quant_scale, rewritten weights and output. To add a method: register it
// (calib/default_algorithms.hpp); its cases then run. AWQ searches with and without a linalg.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "golden_suites/algorithms_net.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/json.hpp"

namespace golden {

class algorithms_suite {
  using backend = algorithms_net::backend;
  using matrix = algorithms_net::matrix;
  using quantizer = mixbit::sequential_quantizer<backend>;

 public:
  explicit algorithms_suite(std::filesystem::path const& dir) : file_{dir, "algorithms"} {
    result_.name = "algorithms";
    test_ = algorithms_net::matrix_of(file_, "test");
    unquantized_ = algorithms_net::matrix_of(file_, "test_output");
  }

  suite_result run() {
    algorithms_net const plain{file_};
    close(plain.forward(test_), unquantized_, "unquantized output", 1e-5);
    for (auto const& c : file_.cases().at("cases")) {
      auto const algorithm = mixbit::algorithm_from_json(mixbit::config_json::parse(c.at("algorithm").dump()));
      std::string const method = algorithm.steps().front().method, id = c.at("id");
      if (method == "gptq" || method == "svdquant") continue;  // suite rewritten_weights
      compare(id, c, algorithm, {});
      if (method.starts_with("awq")) compare(id + " with a linalg", c, algorithm, mixbit::eigen_linalg{});
    }
    order();
    return result_;
  }

 private:
  struct outcome {
    double ours, theirs;
  };

  /// Element by element relative to ModelOpt's; `bound` of the largest for what cancels.
  void close(std::vector<float> const& ours, std::vector<float> const& theirs, std::string const& what, double bound,
             bool of_largest = false) {
    double worst = ours.size() == theirs.size() ? 0 : INFINITY, largest = 0;
    for (float const t : theirs) largest = std::max(largest, std::abs(double{t}));
    for (std::size_t i = 0; i < theirs.size() && i < ours.size(); ++i)
      if (ours[i] != theirs[i])
        worst = std::max(worst, std::abs(double{ours[i]} - theirs[i]) / (of_largest ? largest : std::abs(theirs[i])));
    result_.check(worst <= bound, mixbit::detail::concat(what, " differs by ", worst, " relative, bound ", bound));
  }
  void close(matrix const& ours, matrix const& theirs, std::string const& what, double bound) {
    double const difference = (ours - theirs).norm() / theirs.norm();
    result_.check(difference <= bound, mixbit::detail::concat(what, " differs by ", difference, ", bound ", bound));
  }

  void compare(std::string const& id, mixbit::json_document const& c, mixbit::algorithm_config const& algorithm,
               mixbit::any_linalg linalg) {
    algorithms_net host{file_};
    mixbit::model_options<backend> options;
    options.numerics = mixbit::policy::modelopt;
    options.linalg = std::move(linalg);
    mixbit::model<backend> model{host, options};
    mixbit::quantize_config config{.name = id};
    config.entries = mixbit::quant_cfg_from_json(mixbit::config_json::parse(c.at("quant_cfg").dump()));
    config.algorithm = algorithm;
    mixbit::quantize(model, config, [&] {
      for (auto const& x : host.batches) (void)host.forward(x);
    });
    auto const& golden = c.at("state");
    std::size_t seen = 0;
    for (auto const& module : model.modules()) seen += state(id, model, module, golden);
    result_.check(seen == golden.size(),
                  mixbit::detail::concat(id, ": ", golden.size(), " quantizers and weights there, ", seen, " here"));
    clip_ratios(id, c, model);
    output(id, c, host.forward(test_));
  }

  /// One module's quantizers and weight. Returns how many of ModelOpt's it has.
  std::size_t state(std::string const& id, mixbit::model<backend>& m, mixbit::module_ref<backend> const& module,
                    mixbit::json_document const& golden) {
    std::size_t seen = 0;
    auto& recipe = module.slots->shared_site()->quantizers();
    for (auto& q : recipe.quantizers) {
      if (!q.enabled() && !q.has_pre_quant_scale()) continue;
      if (q.enabled())
        for (auto const& member : q.members()) seen += amax(id, m, member, golden);
      else
        seen += golden.contains(q.path());
      if (q.role() == mixbit::quantizer_role::input) pre_quant_scale(id, m, q, golden);
    }
    std::string const weight = module.name + ".weight";
    close(scaled_weight(m, module), file_.floats(golden.at(weight).get<std::string>()), id + ": " + weight, 1e-5);
    return seen + 1;
  }

  std::size_t amax(std::string const& id, mixbit::model<backend>& m, mixbit::tensor_quantizer<backend> const& q,
                   mixbit::json_document const& golden) {
    bool const there = golden.contains(q.name());
    result_.check(there, id + ": " + q.name() + " is on here and not in ModelOpt");
    if (!there) return 0;
    std::string const name = golden[q.name()].at("amax");
    close(q.amax(m.device()), file_.floats(name), id + ": " + q.name() + " amax", 1e-5);
    return 1;
  }

  void pre_quant_scale(std::string const& id, mixbit::model<backend>& m, quantizer& q,
                       mixbit::json_document const& golden) {
    bool const theirs = golden.contains(q.path()) && golden[q.path()].contains("pre_quant_scale");
    result_.check(theirs == q.has_pre_quant_scale(), id + ": " + q.path() + ": only one has a pre_quant_scale");
    if (theirs)  // another alpha's scale differs by far more
      close(q.pre_quant_scale(m.device()), file_.floats(golden[q.path()]["pre_quant_scale"].get<std::string>()),
            id + ": " + q.path() + " pre_quant_scale", 1e-5);
  }

  /// The weight that is quantized, as its quantizer scales it.
  static std::vector<float> scaled_weight(mixbit::model<backend>& m, mixbit::module_ref<backend> const& module) {
    auto const source = mixbit::source_weight(module);
    auto* const q = module.slots->shared_site()->quantizers().find(mixbit::quantizer_role::weight);
    mixbit::workspace_lock<backend> const held{m.scratch()};
    auto const scaled = q ? q->scaled(m.device(), m.scratch().scratch, source) : source;
    return {scaled.as<float>(), scaled.as<float>() + scaled.size()};
  }

  /// awq_clip: each block's ratio to the amax of max on the same weight must be ModelOpt's.
  void clip_ratios(std::string const& id, mixbit::json_document const& c, mixbit::model<backend>& m) {
    if (!id.starts_with("awq_clip")) return;
    for (auto const& module : m.modules()) {
      auto& q = *module.slots->shared_site()->quantizers().find(mixbit::quantizer_role::weight);
      auto const weight = scaled_weight(m, module);
      auto const ours = q.members().front().amax(m.device());
      auto const theirs = file_.floats(c.at("state").at(q.path()).at("amax").get<std::string>());
      std::size_t const block = weight.size() / theirs.size();
      int other = 0;
      for (std::size_t b = 0; b < theirs.size() && b < ours.size(); ++b) {
        float top = 0;
        for (std::size_t i = b * block; i < (b + 1) * block; ++i) top = std::max(top, std::abs(weight[i]));
        other += std::lround(20 * ours[b] / top) != std::lround(20 * theirs[b] / top);
      }
      result_.check(other == 0, mixbit::detail::concat(id, ": ", q.path(), ": ", other, " other clip ratios"));
    }
  }

  void output(std::string const& id, mixbit::json_document const& c, matrix const& y) {
    auto const error = (y - unquantized_).squaredNorm() / unquantized_.squaredNorm();
    double const theirs = c.at("relative_output_error");
    errors_[id] = {error, theirs};
    // one flipped rounding of an activation moves an output by a step
    close(y, algorithms_net::matrix_of(file_, c.at("output").get<std::string>()), id + ": output", 2e-3);
    result_.check(std::abs(error - theirs) <= 1e-2 * theirs,
                  mixbit::detail::concat(id, ": relative output error ", error, ", ModelOpt's ", theirs));
  }

  /// Of two methods that ModelOpt finds more than 1 % apart, the same one is better here.
  void order() {
    for (auto const& [a, x] : errors_)
      for (auto const& [b, y] : errors_)
        if (x.theirs < 0.99 * y.theirs)
          result_.check(x.ours < y.ours, a + " should have a smaller output error than " + b);
  }

  mixbit::test::golden_file file_;
  matrix test_, unquantized_;
  std::map<std::string, outcome> errors_;
  suite_result result_;
};

}  // namespace golden

inline suite_result run_algorithms(std::filesystem::path const& dir) { return golden::algorithms_suite{dir}.run(); }
