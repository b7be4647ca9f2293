// Cross entropy of next bytes, in nats: the mean over all tokens of log Σ exp(logits) - logits[target].
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "matmul.hpp"
#include "tokens.hpp"

namespace byte_lm {

/// logits [tokens, vocabulary], targets of as many tokens. Summed in double, in one order for any number of threads.
inline double cross_entropy(executor_ref executor, matrix const& logits, token_view const& targets) {
  std::vector<double> loss(static_cast<std::size_t>(logits.rows()));
  for_row_blocks(executor, logits.rows(), [&](index first, index count) {
    for (index r = first; r < first + count; ++r) {
      auto const row = logits.row(r).array();
      float const largest = row.maxCoeff(), target = row[targets.row(r / targets.length)[r % targets.length]];
      loss[static_cast<std::size_t>(r)] = std::log((row - largest).exp().sum()) + (largest - target);
    }
  });
  double sum = 0;
  for (double const l : loss) sum += l;
  return sum / static_cast<double>(logits.rows());
}

/// Its gradient: (softmax(logits) - onehot(target)) / tokens.
inline matrix cross_entropy_gradient(executor_ref executor, matrix const& logits, token_view const& targets) {
  matrix gradient(logits.rows(), logits.cols());
  float const share = 1.0f / static_cast<float>(logits.rows());
  for_row_blocks(executor, logits.rows(), [&](index first, index count) {
    for (index r = first; r < first + count; ++r) {
      auto g = gradient.row(r).array();
      g = (logits.row(r).array() - logits.row(r).maxCoeff()).exp();
      g *= share / g.sum();
      g[targets.row(r / targets.length)[r % targets.length]] -= share;
    }
  });
  return gradient;
}

}  // namespace byte_lm
