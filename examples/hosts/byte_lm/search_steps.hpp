// What a search runs on byte_lm: forwards to calibrate, forwards and backwards to score, a batch of windows a step.
#pragma once

#include <cstddef>
#include <vector>

#include "mixbit/autoquant/search.hpp"
#include "model.hpp"
#include "tokens.hpp"

namespace byte_lm {

/// The first `calibration_count` and `score_count` steps. Model and windows must live as long as what is returned.
inline mixbit::search_steps search_steps(language_model& model, std::vector<byte_windows> const& calibration,
                                         int calibration_count, std::vector<byte_windows> const& score,
                                         int score_count) {
  return {.calibration = calibration_count,
          .scoring = score_count,
          .calibrate = [&](int i) { (void)model.logits(calibration[static_cast<std::size_t>(i)].inputs()); },
          .score =
              [&](int i) {
                auto const& batch = score[static_cast<std::size_t>(i)];
                matrix const logits = model.logits(batch.inputs());
                model.backward(cross_entropy_gradient(model.executor(), logits, batch.targets()));
              },
          .progress = {}};
}

}  // namespace byte_lm
