// Adam (Kingma and Ba 2015, algorithm 1), enough to fine-tune the model under fake quantization.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "model.hpp"

namespace byte_lm {

class adam {
 public:
  float learning_rate = 1e-3f, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;

  /// From here on backward() computes the gradient of every parameter. The model must outlive this.
  explicit adam(language_model& model, float rate = 1e-3f) : learning_rate{rate} {
    model.for_each_parameter([&](std::string const&, parameter& p) {
      p.clear_gradient();
      states_.push_back({&p, p.gradient, p.gradient});
    });
  }
  adam(adam const&) = delete;
  adam& operator=(adam const&) = delete;
  /// Backward is for inputs alone again.
  ~adam() {
    for (auto& s : states_) s.target->gradient.resize(0, 0);
  }

  /// Moves every parameter against its gradient, and clears the gradients.
  void step() {
    ++steps_;
    float const rate = learning_rate * std::sqrt(1.0f - std::pow(beta2, static_cast<float>(steps_))) /
                       (1.0f - std::pow(beta1, static_cast<float>(steps_)));
    for (auto& [p, mean, variance] : states_) {
      mean += (1.0f - beta1) * (p->gradient - mean);
      variance.array() += (1.0f - beta2) * (p->gradient.array().square() - variance.array());
      p->value.array() -= rate * mean.array() / (variance.array().sqrt() + epsilon);
      p->gradient.setZero();
    }
  }

 private:
  struct state {
    parameter* target;
    matrix mean, variance;
  };
  std::vector<state> states_;
  std::int64_t steps_ = 0;
};

/// One step on a batch of windows; the loss before it.
inline double train_step(language_model& model, adam& optimizer, byte_windows const& batch) {
  matrix const logits = model.logits(batch.inputs());
  double const loss = cross_entropy(model.executor(), logits, batch.targets());
  model.backward(cross_entropy_gradient(model.executor(), logits, batch.targets()));
  optimizer.step();
  return loss;
}

}  // namespace byte_lm
