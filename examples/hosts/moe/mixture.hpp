// A mixture of experts on mixbit: a router sends each token to two of six experts.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/quantizer/apply.hpp"
#include "mixbit/reference/scalar.hpp"

namespace moe {

using backend = mixbit::reference::scalar;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline constexpr Eigen::Index width = 32, hidden = 64;
inline constexpr std::size_t expert_count = 6, chosen = 2, shunned = 4;  // no token of the calibration suits expert 4

struct random_source {
  std::mt19937 bits{7};
  std::normal_distribution<float> normal{};

  matrix operator()(Eigen::Index rows, Eigen::Index columns, float size) {
    return matrix::NullaryExpr(rows, columns, [&] { return size * normal(bits); });
  }
};

struct layer {
  matrix weight;  ///< [out, in]
  mixbit::quantizer_slots<backend> slots = {};

  static auto product() {
    return [](auto const& x, auto const& w) -> matrix { return x * w.transpose(); };
  }
  matrix forward(matrix const& x) const {
    return apply(slots, x, weight, product());
  }
};

struct expert {
  layer up, down;

  matrix forward(matrix const& x) const { return down.forward(up.forward(x).cwiseMax(0.0f)); }
};

class mixture {
 public:
  explicit mixture(random_source& random) : router_{random(expert_count, width, 0.1f)} {
    for (std::size_t e = 0; e < expert_count; ++e)
      experts_.push_back({{random(hidden, width, 0.2f)}, {random(width, hidden, 0.2f)}});
    router_.weight.row(shunned).setZero();
    router_.weight(shunned, 0) = 4.0f;  // it is for tokens whose first feature is large
  }

  /// [tokens, width] to the same: each token through its experts, weighted by the softmax over their logits.
  matrix forward(matrix const& tokens) const {
    matrix const logits = router_.forward(tokens);
    std::vector<std::vector<Eigen::Index>> rows(expert_count);
    matrix share = matrix::Zero(tokens.rows(), expert_count);
    for (Eigen::Index t = 0; t < tokens.rows(); ++t)
      for (std::size_t const e : choose(logits, t, share)) rows[e].push_back(t);
    matrix y = matrix::Zero(tokens.rows(), width);
    for (std::size_t e = 0; e < expert_count; ++e) {
      if (rows[e].empty()) continue;
      matrix const answer = experts_[e].forward(tokens(rows[e], Eigen::all));
      for (std::size_t i = 0; i < rows[e].size(); ++i)
        y.row(rows[e][i]) += share(rows[e][i], static_cast<Eigen::Index>(e)) * answer.row(static_cast<Eigen::Index>(i));
    }
    return y;
  }

  static constexpr char const* name = "layers.0.mlp";

  /// How mixbit sees it. The presets leave a layer of this name unquantized: routing is sensitive.
  template <class Visit>
  void walk(Visit&& visit) {
    visit(mixbit::linear(std::string{name} + ".router", router_.slots, router_.weight));
    for (std::size_t e = 0; e < expert_count; ++e) {
      auto const expert = std::string{name} + ".experts." + std::to_string(e);
      visit(mixbit::linear(expert + ".up_proj", experts_[e].up.slots, experts_[e].up.weight));
      visit(mixbit::linear(expert + ".down_proj", experts_[e].down.slots, experts_[e].down.weight));
    }
  }

 private:
  /// The experts with the largest logits of token t; their shares are written to its row.
  static std::vector<std::size_t> choose(matrix const& logits, Eigen::Index t, matrix& share) {
    std::vector<std::size_t> best(expert_count);
    std::iota(best.begin(), best.end(), std::size_t{0});
    auto const logit = [&](std::size_t e) { return logits(t, static_cast<Eigen::Index>(e)); };
    std::ranges::stable_sort(best, std::greater{}, logit);
    best.resize(chosen);
    float sum = 0;
    for (std::size_t const e : best) sum += std::exp(logit(e) - logit(best[0]));
    for (std::size_t const e : best) share(t, static_cast<Eigen::Index>(e)) = std::exp(logit(e) - logit(best[0])) / sum;
    return best;
  }

  layer router_;
  std::vector<expert> experts_;
};

/// Tokens whose first feature is `first`: the calibration's are unlike some that come later.
inline matrix tokens_with(random_source& random, Eigen::Index count, float first) {
  matrix x = random(count, width, 1.0f);
  x.col(0).setConstant(first);
  return x;
}

}  // namespace moe
