// Experts scored at the output of their mixture: the scores are those of the output's difference there, with a gradient
// that finite differences of the loss agree with.
#include "moe/regression.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/experts.hpp"
#include "mixbit/config/presets.hpp"

using namespace moe;

namespace {

struct bench {
  static constexpr int steps = 2;
  random_source random;
  regression net{random};
  std::vector<matrix> tokens, targets;
  mixbit::model<backend> m;

  bench() : m{net, with_siblings()} {
    for (int i = 0; i < steps; ++i) {
      tokens.push_back(tokens_with(random, 16, -1.0f));
      targets.push_back(random(16, 8, 1.0f));
    }
  }
  static mixbit::model_options<backend> with_siblings() {
    mixbit::model_options<backend> o;
    o.unseen = mixbit::unseen_quantizers::take_from(mixbit::expert_siblings());
    return o;
  }
  void run(mixbit::search<backend>& s) {
    auto const at = [](int i) { return static_cast<std::size_t>(i); };
    s.run({.calibration = steps,
           .scoring = steps,
           .calibrate = [&, at](int i) { net.forward(tokens[at(i)]); },
           .score = [&, at](int i) { net.score_step(s, tokens[at(i)], targets[at(i)]); }});
  }

  /// The loss's gradient at the mixture's output, by central differences.
  matrix gradient(std::size_t step, matrix const& mixed) const {
    matrix g(mixed.rows(), mixed.cols()), moved = mixed;
    for (Eigen::Index i = 0; i < mixed.size(); ++i) {
      float& value = moved.data()[i];
      float const at = value;
      value = at + 0.25f;
      float const above = value;
      double const more = net.loss(moved, targets[step]);
      value = at - 0.25f;
      g.data()[i] = static_cast<float>((more - net.loss(moved, targets[step])) / (double{above} - value));
      value = at;
    }
    return g;
  }

  /// The score of candidate k of group g alone, by its definition.
  double expected(mixbit::search<backend>& s, std::size_t g, int k) {
    mixbit::allocation none{std::vector<int>(s.stats().size())};
    for (std::size_t i = 0; i < none.choice.size(); ++i)
      none.choice[i] = static_cast<int>(s.stats()[i].candidates.size()) - 1;
    auto one = none;
    one.choice[g] = k;
    double sum = 0;
    for (std::size_t step = 0; step < tokens.size(); ++step) {
      s.apply(none);
      matrix const y = net.mlp.forward(tokens[step]), at_mixture = gradient(step, y);
      s.apply(one);
      sum += (net.mlp.forward(tokens[step]) - y).cast<double>().cwiseProduct(at_mixture.cast<double>()).squaredNorm();
    }
    s.apply(none);
    return sum;
  }
};

std::vector<mixbit::quantize_config> formats() {
  return {mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), mixbit::preset("INT8_DEFAULT_CFG"),
          mixbit::preset("FP8_DEFAULT_CFG")};
}
bool is_experts(mixbit::group_stats const& g) { return g.modules.front().find(".experts.") != std::string::npos; }

/// Compares each group of experts, and returns how many there are.
int check_experts(bench& b, mixbit::search<backend>& s) {
  int groups = 0;
  for (std::size_t g = 0; g < s.stats().size(); ++g) {
    auto const& group = s.stats()[g];
    if (!is_experts(group)) continue;
    ++groups;
    for (std::size_t k = 0; k + 1 < group.candidates.size(); ++k) {
      CAPTURE(group.name);
      CAPTURE(group.candidates[k].format);
      CHECK(group.candidates[k].score == doctest::Approx(b.expected(s, g, static_cast<int>(k))).epsilon(1e-4));
    }
  }
  return groups;
}

}  // namespace

TEST_CASE("moe search: each expert's formats are scored by what they change at the mixture's output") {
  bench b;
  mixbit::search<backend> s{b.m, by_expert(formats())};
  b.run(s);
  CHECK(check_experts(b, s) == static_cast<int>(expert_count));
  for (auto const& g : s.stats()) {
    if (!is_experts(g)) continue;
    bool const shunned_one = g.modules.front().find("experts." + std::to_string(shunned) + ".") != std::string::npos;
    CHECK((g.candidates.front().score == 0) == shunned_one);  // no token runs through it
  }
}

TEST_CASE("moe search: experts in one group are scored together, not as the sum of each alone") {
  bench b;
  auto options = by_expert(formats());
  options.grouping.clear();
  mixbit::search<backend> together{b.m, options};
  b.run(together);
  CHECK(check_experts(b, together) == 1);
  REQUIRE(is_experts(together.stats()[1]));
  double const joint = together.stats()[1].candidates.front().score;
  bench c;
  mixbit::search<backend> apart{c.m, by_expert(formats())};
  c.run(apart);
  double sum = 0;
  for (auto const& g : apart.stats())
    if (is_experts(g)) sum += g.candidates.front().score;
  CHECK(std::abs(joint - sum) > 0.01 * sum);
}
