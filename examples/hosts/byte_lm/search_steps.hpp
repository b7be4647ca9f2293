// What a search runs on byte_lm: forwards to calibrate, forwards and backwards to score, a batch of windows a step. For
// kl_div a forward keeps what each decoder layer was given, and the next ones begin at the first that has changed.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/search.hpp"
#include "model.hpp"
#include "tokens.hpp"

namespace byte_lm {

/// The first `calibration_count` and `score_count` steps. Model and windows must live as long as what is returned.
inline mixbit::search_steps search_steps(language_model& model, std::vector<byte_windows> const& calibration,
                                         int calibration_count, std::vector<byte_windows> const& score,
                                         int score_count) {
  auto const kept = std::make_shared<std::vector<matrix>>();
  return {.calibration = calibration_count,
          .scoring = score_count,
          .calibrate = [&](int i) { (void)model.logits(calibration[static_cast<std::size_t>(i)].inputs()); },
          .score =
              [&](int i) {
                auto const& batch = score[static_cast<std::size_t>(i)];
                matrix const logits = model.logits(batch.inputs());
                model.backward(cross_entropy_gradient(model.executor(), logits, batch.targets()));
              },
          .logits =
              [&, kept](int i, mixbit::logits_sink const& take) {
                matrix const logits = model.logits(score[static_cast<std::size_t>(i)].inputs());
                *kept = model.layer_inputs();
                take(mixbit::read_view(logits));
              },
          .logits_from =
              [&model, kept](int, std::string_view first, mixbit::logits_sink const& take) {
                std::size_t const layer = model.layer_of(first);
                matrix const logits = model.logits_from(layer, (*kept)[layer]);
                take(mixbit::read_view(logits));
              }};
}

}  // namespace byte_lm
