// A mixture of experts: a router sends each token to two of six experts, so calibration reaches them unevenly, and one
// of them not at all. The library counts the tokens of each layer and completes who saw too few from the others.
//
//   moe        prints the counts, what is completed, and how far the quantized outputs are from the unquantized
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/autoquant/experts.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"

namespace {

using backend = mixbit::reference::scalar;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr Eigen::Index width = 32, hidden = 64;
constexpr std::size_t expert_count = 6, chosen = 2, shunned = 4;  // no token of the calibration suits expert 4

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

  matrix forward(matrix const& x) const {
    return apply(slots, x, weight, [](auto const& a, auto const& w) -> matrix { return a * w.transpose(); });
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

  /// How mixbit sees it. The presets leave a layer of this name unquantized: routing is sensitive.
  template <class Visit>
  void walk(Visit&& visit) {
    visit(mixbit::linear("layers.0.mlp.router", router_.slots, router_.weight));
    for (std::size_t e = 0; e < expert_count; ++e) {
      auto const name = "layers.0.mlp.experts." + std::to_string(e);
      visit(mixbit::linear(name + ".up_proj", experts_[e].up.slots, experts_[e].up.weight));
      visit(mixbit::linear(name + ".down_proj", experts_[e].down.slots, experts_[e].down.weight));
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
matrix tokens_with(random_source& random, Eigen::Index count, float first) {
  matrix x = random(count, width, 1.0f);
  x.col(0).setConstant(first);
  return x;
}

float relative_error(matrix const& y, matrix const& exact) { return (y - exact).norm() / exact.norm(); }

/// The counts of a calibration, and what the experts with fewer than `least` tokens got from their siblings.
void report(mixbit::token_counts const& counts, std::vector<mixbit::completed_quantizer> const& completed) {
  std::puts("tokens of the calibration:");
  for (auto const& l : counts.layers)
    std::printf("  %-34s %4llu\n", l.layer.c_str(), static_cast<unsigned long long>(l.tokens));
  std::puts("completed from their siblings:");
  for (auto const& c : completed)
    std::printf("  %-50s after %llu token(s), by %zu\n", c.name.c_str(), static_cast<unsigned long long>(c.tokens),
                c.siblings);
}

int run() {
  random_source random;
  mixture net{random};
  matrix const calibration = tokens_with(random, 96, -1.0f), later = tokens_with(random, 64, 1.0f);
  matrix const exact = net.forward(calibration), exact_later = net.forward(later);

  mixbit::model_options<backend> options;
  options.unseen = mixbit::unseen_quantizers::take_from(mixbit::expert_siblings());  // without it: an error
  mixbit::model<backend> m{net, options};
  auto const result = quantize(m, mixbit::preset("INT8_DEFAULT_CFG"), [&] { net.forward(calibration); });
  for (auto const& note : result.notes)
    if (note.find("saw no data") != std::string::npos) std::printf("note: %s\n", note.c_str());

  std::uint64_t const least = 32;
  auto const counts = calibration_tokens(m);
  auto const completed = complete_experts(m, {.least_tokens = least});
  report(counts, completed);

  float const error = relative_error(net.forward(calibration), exact);
  float const error_later = relative_error(net.forward(later), exact_later);
  std::printf("relative error: %.4f on the calibration's tokens, %.4f on tokens for expert %zu\n", error, error_later,
              shunned);
  bool const as_told = counts.below(1).size() == 2 && completed.size() == counts.below(least).size();
  return as_told && error < 0.05f && error_later < 0.05f ? 0 : 1;  // NaN is not below either
}

}  // namespace

int main() {
  try {
    return run();
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "moe: %s\n", e.what());
    return 1;
  }
}
