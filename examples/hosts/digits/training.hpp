// Loss, accuracy, and training by Adam (Kingma and Ba 2015, algorithm 1) in shuffled batches.
#pragma once

#include <functional>

#include "network.hpp"

namespace digits {

/// Cross entropy in nats: the mean over images of log Σ exp(logits) - logits[label].
double cross_entropy(matrix const& logits, std::vector<int> const& labels);
/// (softmax(logits) - onehot(label)) / images.
matrix cross_entropy_gradient(matrix const& logits, std::vector<int> const& labels);

struct evaluation {
  double loss = 0, accuracy = 0;
};
evaluation evaluate(network& net, image_set const& images);

/// A forward and a backward; gradients go to the parameters that train, scores to mixbit while it scores.
double forward_and_backward(network& net, image_set const& batch);

/// Training of one network, which must outlive it. It works the same under fake quantization.
class trainer {
 public:
  trainer(network& net, std::uint32_t seed, float rate = 3e-3f);
  trainer(trainer const&) = delete;
  trainer& operator=(trainer const&) = delete;
  /// Backwards no longer compute the parameters' gradients.
  ~trainer();

  /// Once over all images; the mean loss of its batches.
  double epoch(image_set const& images);

  std::function<void()> after_step = {};  ///< called behind each step: where learned scales make theirs

 private:
  static constexpr std::size_t batch_size = 32;
  struct moments {
    std::vector<float> mean, variance;
  };
  void step();

  network& net_;
  random_source random_;
  float rate_;
  std::vector<moments> moments_;
  int steps_ = 0;
};

}  // namespace digits
