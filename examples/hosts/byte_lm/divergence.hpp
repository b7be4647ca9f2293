// How far the model's predictions have moved: what refine() measures on byte_lm.
#pragma once

#include <cstddef>
#include <vector>

#include "mixbit/autoquant/kl_divergence.hpp"
#include "model.hpp"
#include "tokens.hpp"

namespace byte_lm {

/// Σ KL(p before ‖ p now) in nats over every byte of the first `count` batches: before is when this was made. Model and
/// windows must live as long as it.
class divergence_since {
 public:
  divergence_since(language_model& model, std::vector<byte_windows> const& windows, int count)
      : model_{&model}, windows_{&windows} {
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) before_.push_back(rows(i));
  }

  double operator()() const {
    double sum = 0;
    for (std::size_t i = 0; i < before_.size(); ++i) sum += mixbit::kl_divergence(before_[i], rows(i));
    return sum;
  }

 private:
  mixbit::logit_rows rows(std::size_t i) const {
    matrix const y = model_->logits((*windows_)[i].inputs());
    return {{y.data(), y.data() + y.size()}, y.cols()};
  }

  language_model* model_;
  std::vector<byte_windows> const* windows_;
  std::vector<mixbit::logit_rows> before_;
};

}  // namespace byte_lm
