// Square linear layers one after another, under whatever names a test of rules needs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "support/small_network.hpp"

namespace mixbit::test {

struct named_chain {
  static constexpr Eigen::Index width = 32;
  std::vector<std::string> names;
  std::vector<linear_layer> layers;

  explicit named_chain(std::vector<std::string> of) : names{std::move(of)} {
    for (unsigned i = 0; i < names.size(); ++i) {
      auto& layer = layers.emplace_back();
      layer.weight = random_matrix(width, width, 100 + i) / 6.0f;
    }
  }
  matrix forward(matrix x) {
    for (auto& layer : layers) x = layer.forward(x);
    return x;
  }
  matrix backward(matrix grad) {
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) grad = layer->backward(grad);
    return grad;
  }
  template <class Visit>
  void walk(Visit&& visit) {
    for (std::size_t i = 0; i < layers.size(); ++i) visit(linear(names[i], layers[i].slots, layers[i].weight));
  }

  static matrix batch(int i) { return random_matrix(6, width, 7 + static_cast<unsigned>(i)); }
  search_steps steps(int calibration = 2, int scoring = 2) {
    return {.calibration = calibration,
            .scoring = scoring,
            .calibrate = [this](int i) { forward(batch(i)); },
            .score =
                [this](int i) {
                  forward(batch(i));
                  backward(random_matrix(6, width, 40 + static_cast<unsigned>(i)));
                },
            .logits = [this](int i, logits_sink const& take) { take(read_view(forward(batch(i)))); },
            .metric = [this](int i) { return static_cast<double>(forward(batch(i)).squaredNorm()); }};
  }
};

/// The group with this name in front of ".quant_recipe".
inline group_stats const& group_named(candidate_stats const& stats, std::string const& name) {
  for (auto const& g : stats)
    if (g.name == name + ".quant_recipe") return g;
  throw std::runtime_error{"no group " + name};
}

inline std::vector<std::string> formats_of(group_stats const& g) {
  std::vector<std::string> names;
  for (auto const& c : g.candidates) names.push_back(c.format.substr(0, c.format.find('(')));
  return names;
}

}  // namespace mixbit::test
