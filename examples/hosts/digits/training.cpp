#include "training.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace digits {

double cross_entropy(matrix const& logits, std::vector<int> const& labels) {
  double sum = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    float const* const row = logits.data() + i * classes;
    double const largest = *std::max_element(row, row + classes);
    double exponentials = 0;
    for (std::size_t c = 0; c < classes; ++c) exponentials += std::exp(row[c] - largest);
    sum += std::log(exponentials) + largest - row[labels[i]];
  }
  return sum / static_cast<double>(labels.size());
}

matrix cross_entropy_gradient(matrix const& logits, std::vector<int> const& labels) {
  matrix gradient = logits;
  float const share = 1.0f / static_cast<float>(labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    float* const row = gradient.data() + i * classes;
    float const largest = *std::max_element(row, row + classes);
    float sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += row[c] = std::exp(row[c] - largest);
    for (std::size_t c = 0; c < classes; ++c) row[c] *= share / sum;
    row[labels[i]] -= share;
  }
  return gradient;
}

evaluation evaluate(network& net, image_set const& images) {
  matrix const logits = net.logits(images.pixels);
  std::size_t right = 0;
  for (std::size_t i = 0; i < images.size(); ++i) {
    float const* const row = logits.data() + i * classes;
    right += std::max_element(row, row + classes) - row == images.labels[i];
  }
  return {cross_entropy(logits, images.labels), static_cast<double>(right) / static_cast<double>(images.size())};
}

double forward_and_backward(network& net, image_set const& batch) {
  matrix const logits = net.logits(batch.pixels);
  net.backward(cross_entropy_gradient(logits, batch.labels));
  return cross_entropy(logits, batch.labels);
}

trainer::trainer(network& net, std::uint32_t seed, float rate) : net_{net}, random_{seed}, rate_{rate} {
  net_.for_each_parameter([&](auto const&, auto& p) {
    p.start_training();
    moments_.push_back({std::vector<float>(p.value.size()), std::vector<float>(p.value.size())});
  });
}

trainer::~trainer() {
  net_.for_each_parameter([](auto const&, auto& p) { p.trains = false; });
}

double trainer::epoch(image_set const& images) {
  std::vector<std::size_t> order(images.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.below(i)]);
  double sum = 0;
  auto const shuffled = batches(select(images, order), batch_size, images.size());
  for (auto const& batch : shuffled) {
    sum += forward_and_backward(net_, batch);
    step();
    if (after_step) after_step();
  }
  return sum / static_cast<double>(shuffled.size());
}

/// Moves every parameter against its gradient, and clears the gradients.
void trainer::step() {
  constexpr float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;
  auto const t = static_cast<float>(++steps_);
  float const rate = rate_ * std::sqrt(1.0f - std::pow(beta2, t)) / (1.0f - std::pow(beta1, t));
  auto at = moments_.begin();
  net_.for_each_parameter([&](auto const&, auto& p) {
    auto& [mean, variance] = *at++;
    float* const value = p.value.data();
    float* const gradient = p.gradient.data();
    for (std::size_t i = 0; i < mean.size(); ++i) {
      mean[i] += (1.0f - beta1) * (gradient[i] - mean[i]);
      variance[i] += (1.0f - beta2) * (gradient[i] * gradient[i] - variance[i]);
      value[i] -= rate * mean[i] / (std::sqrt(variance[i]) + epsilon);
      gradient[i] = 0;
    }
  });
}

}  // namespace digits
