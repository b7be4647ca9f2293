// Suite rewritten_weights: what GPTQ and SVDQuant make of the weights of suite algorithms' network, through quantize(),
// against ModelOpt. Apart from that suite, because float noise decides ties in GPTQ, and a branch is known up to signs.
#pragma once

#include <map>
#include <string>

#include "golden_suites/algorithms_net.hpp"
#include "golden_suites/gptq_tie.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/json.hpp"

namespace golden {

class rewritten_weights_suite {
 public:
  explicit rewritten_weights_suite(std::filesystem::path const& dir) : file_{dir, "algorithms"} {
    result_.name = "rewritten_weights";
  }

  suite_result run() {
    using suite = rewritten_weights_suite;
    using kind = void (rewritten_weights_suite::*)(one const&);
    std::map<std::string, std::vector<kind>> const kinds{
        {"gptq", {&suite::amaxes, &suite::gptq_weights}},
        {"svdquant", {&suite::amaxes, &suite::branches, &suite::output}}};
    for (auto const& c : file_.cases().at("cases")) {
      auto const algorithm = mixbit::algorithm_from_json(mixbit::config_json::parse(c.at("algorithm").dump()));
      auto const& method = algorithm.given_steps.front().method;
      auto const known = kinds.find(method);
      if (known == kinds.end()) continue;
      one const quantized{file_, c, algorithm};
      for (auto const check : known->second) (this->*check)(quantized);
    }
    return result_;
  }

 private:
  using backend = algorithms_net::backend;
  using matrix = algorithms_net::matrix;

  /// One case: the network, quantized.
  struct one {
    algorithms_net net;
    mixbit::model<backend> model;
    mixbit::json_document const& golden;
    std::string id;
    mixbit::algorithm_step step;

    one(mixbit::test::golden_file const& file, mixbit::json_document const& c,
        mixbit::algorithm_config const& algorithm)
        : net{file}, model{net, options()}, golden{c}, id{c.at("id")}, step{algorithm.given_steps.front()} {
      mixbit::quantize_config config;
      config.entries = mixbit::quant_cfg_from_json(mixbit::config_json::parse(c.at("quant_cfg").dump()));
      config.algorithm = algorithm;
      quantize(model, config, [&] {
        for (auto const& x : net.batches) (void)net.forward(x);
      });
    }
    static mixbit::model_options<backend> options() {
      mixbit::model_options<backend> o;
      o.numerics = mixbit::policy::modelopt;
      o.linalg = mixbit::eigen_linalg{};
      return o;
    }
    algorithms_net::layer const& layer(std::string const& name) const { return name == "fc1" ? net.fc1 : net.fc2; }
  };

  void close(double worst, double bound, std::string const& what) {
    result_.check(worst <= bound, mixbit::detail::concat(what, " differs by ", worst, " relative, bound ", bound));
  }
  static double worst_of(std::vector<float> const& ours, std::vector<float> const& theirs) {
    double worst = ours.size() == theirs.size() ? 0 : INFINITY;
    for (std::size_t i = 0; i < ours.size() && i < theirs.size(); ++i)
      worst = std::max(worst, std::abs(double{ours[i]} - theirs[i]) / (theirs[i] == 0 ? 1 : std::abs(theirs[i])));
    return worst;
  }

  /// Of every quantizer that is on, of each member of a sequence.
  void amaxes(one const& c) {
    std::size_t enabled = 0;
    auto& device = const_cast<mixbit::model<backend>&>(c.model).device();
    for (std::string const name : {"fc1", "fc2"})
      for (auto& q : c.layer(name).slots.shared_site()->quantizers().quantizers) {
        if (!q.enabled()) continue;
        for (std::size_t i = 0; i < q.members().size(); ++i, ++enabled) {
          std::string const path = q.members().size() == 1 ? q.path() : q.path() + "." + std::to_string(i);
          bool const there = c.golden.at("state").contains(path) && c.golden.at("state").at(path).contains("amax");
          result_.check(there, c.id + ": " + path + " has an amax here and none in ModelOpt");
          if (!there) continue;
          auto const theirs = file_.floats(c.golden.at("state").at(path).at("amax").get<std::string>());
          close(worst_of(q.members()[i].amax(device), theirs), 1e-5, c.id + ": " + path + " amax");
        }
      }
    result_.check(enabled > 0, c.id + ": no quantizer is on");
  }

  /// What the quantized network computes. Where inputs are quantized, float noise flips a rounding here and there.
  void output(one const& c) {
    matrix const theirs = algorithms_net::matrix_of(file_, c.golden.at("output").get<std::string>());
    matrix const test = algorithms_net::matrix_of(file_, "test");
    matrix const plain = algorithms_net::matrix_of(file_, "test_output");
    matrix const difference = c.net.forward(test) - theirs;
    bool const activations = c.golden.at("state").contains("fc1.input_quantizer");
    close(difference.norm() / theirs.norm(), activations ? 2e-3 : 1e-5, c.id + ": output");
    double const error = (c.net.forward(test) - plain).squaredNorm() / plain.squaredNorm();
    double const golden_error = c.golden.at("relative_output_error");
    close(std::abs(error - golden_error) / golden_error, 5e-2, c.id + ": output error");
  }

  /// Rows are independent. Where one differs, its first different column must be a near tie: of 32768 roundings some
  /// lie where float noise decides, and what follows in that row follows from it.
  void gptq_weights(one const& c) {
    for (std::string const name : {"fc1", "fc2"}) {
      auto const& s = *c.layer(name).slots.shared_site();
      auto const* const held = s.rewritten(s.active);
      result_.check(held != nullptr, c.id + ": " + name + " has no rewritten weight");
      if (held == nullptr) continue;
      std::string const golden_weight = c.golden.at("state").at(name + ".weight");
      matrix const theirs = algorithms_net::matrix_of(file_, golden_weight);
      matrix const ours = Eigen::Map<matrix const>(held->view().as<float>(), theirs.rows(), theirs.cols());
      std::vector<Eigen::Index> different;
      for (Eigen::Index row = 0; row < ours.rows(); ++row)
        if (!same_row(ours.row(row), theirs.row(row))) different.push_back(row);
      result_.check(different.size() <= 1, mixbit::detail::concat(c.id, ": ", different.size(), " rows of ", name,
                                                                  " differ"));
      for (Eigen::Index const row : different) {
        double const margin = tie_margin(c, name, row, ours.row(row), theirs.row(row));
        result_.check(margin < 1e-4, mixbit::detail::concat(c.id, ": ", name, " row ", row, " differs where the value ",
                                                            "is ", margin, " of a step away from a tie"));
      }
    }
  }
  /// What is left of the weights, and the branches: signs of singular vectors are free, so their product.
  void branches(one const& c) {
    for (std::string const name : {"fc1", "fc2"}) {
      auto& s = *c.layer(name).slots.shared_site();
      auto const& recipe = s.quantizers();
      result_.check(recipe.branch.has_value(), c.id + ": " + name + " has no branch");
      if (!recipe.branch) continue;
      auto const golden = [&](std::string const& key) {
        return algorithms_net::matrix_of(file_, c.golden.at("state").at(name + key).get<std::string>());
      };
      matrix const weight = golden(".weight"), product = golden(".svdquant_lora_b") * golden(".svdquant_lora_a");
      auto const& b = *recipe.branch;
      result_.check(b.down.view().shape[0] == c.step.integer("lowrank"), c.id + ": rank of " + name);
      matrix const ours = map(b.up.view()) * map(b.down.view());
      close((map(recipe.weight->view()) - weight).cwiseAbs().maxCoeff() / weight.cwiseAbs().maxCoeff(), 1e-5,
            c.id + ": " + name + " weight");
      close((ours - product).cwiseAbs().maxCoeff() / product.cwiseAbs().maxCoeff(), 1e-5,
            c.id + ": " + name + " branch");
    }
  }
  static Eigen::Map<matrix const> map(mixbit::const_tensor_ref t) { return {t.as<float>(), t.shape[0], t.shape[1]}; }

  static bool same_row(Eigen::RowVectorXf const& a, Eigen::RowVectorXf const& b) {
    for (Eigen::Index k = 0; k < a.size(); ++k)
      if (std::abs(a[k] - b[k]) > 1e-5f * std::abs(b[k])) return false;
    return true;
  }

  /// How far from a tie the first value was that was rounded to different codes, by GPTQ in float64: in steps.
  double tie_margin(one const& c, std::string const& name, Eigen::Index row, Eigen::RowVectorXf const& ours,
                    Eigen::RowVectorXf const& theirs) {
    Eigen::Index first = 0;
    while (std::abs(ours[first] - theirs[first]) <= 1e-5f * std::abs(theirs[first])) ++first;
    auto const& q = c.layer(name).slots.shared_site()->quantizers().find(mixbit::quantizer_role::weight)->members()[0];
    auto const amax = q.amax(const_cast<mixbit::model<backend>&>(c.model).device());
    auto const groups = static_cast<Eigen::Index>(amax.size()) / c.layer(name).weight.rows();
    double const bound = mixbit::formats::integer_bound(q.numerics().how.element);
    Eigen::RowVectorXd steps(ours.size());
    for (Eigen::Index k = 0; k < ours.size(); ++k)
      steps[k] = amax[static_cast<std::size_t>(row * groups + k * groups / ours.size())] / bound;
    Eigen::MatrixXd const h = hessian_of(c, name);
    double const value = value_before_rounding(c.layer(name).weight.row(row).cast<double>(), h, steps, bound,
                                               c.step.number("perc_damp"), first);
    return std::abs(value - std::floor(value) - 0.5);
  }
  /// Of unquantized inputs: the cases that quantize them have no row that differs.
  Eigen::MatrixXd hessian_of(one const& c, std::string const& name) {
    Eigen::MatrixXd h = Eigen::MatrixXd::Zero(c.layer(name).weight.cols(), c.layer(name).weight.cols());
    double tokens = 0;
    for (auto const& x : c.net.batches) {
      matrix seen = x;
      if (name == "fc2")
        seen = algorithms_net::gelu((x * c.net.fc1.weight.transpose()).rowwise() + c.net.fc1.bias);
      h += seen.cast<double>().transpose() * seen.cast<double>();
      tokens += static_cast<double>(x.rows());
    }
    return h * (2 / tokens);
  }

  mixbit::test::golden_file file_;
  suite_result result_;
};

}  // namespace golden

inline suite_result run_rewritten_weights(std::filesystem::path const& dir) {
  return golden::rewritten_weights_suite{dir}.run();
}
