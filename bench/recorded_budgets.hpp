// The first search that ModelOpt ran on byte_lm, at its budgets, beside the validation loss of ModelOpt's own choice.
#pragma once

#include <cmath>
#include <cstdio>

#include "budget_search.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "mixbit/io/json.hpp"
#include "recorded_search.hpp"
#include "window_losses.hpp"

namespace bench {

/// ModelOpt's validation loss at so many bits.
inline double modelopt_loss(mixbit::json_document const& runs, double bits) {
  for (auto const& run : runs)
    if (run.at("method") == "gradient" && run.at("formats").size() == 3 && run.at("disabled_layers").is_null() &&
        run.at("effective_bits").get<double>() == bits)
      return run.at("validation_loss").get<double>();
  return std::nan("");
}

struct recorded_row {
  double bits, modelopt;
  loss_by_window plain, refined;
  mixbit::refined_choice found;
};

inline void print(recorded_row const& r, loss_by_window const& unquantized, bool json) {
  double const plain = mean(r.plain), refined = mean(r.refined);
  char const* const format =
      json ? "{\"effective_bits\": %g, \"modelopt_loss\": %.6f, \"plain_loss\": %.6f, \"plain_error\": %.6f, "
             "\"refined_loss\": %.6f, \"refined_error\": %.6f, \"divergence\": %.4f, \"refined_divergence\": %.4f, "
             "\"rounds\": %d}\n"
           : "| %g | %.5f | %.5f ± %.5f | %.5f ± %.5f | %.2f -> %.2f | %d |\n";
  std::printf(format, r.bits, r.modelopt, plain, standard_error(r.plain, unquantized), refined,
              standard_error(r.refined, unquantized), r.found.before, r.found.measured, r.found.rounds);
  std::fflush(stdout);
}

inline void recorded_table(golden::lm_model& lm, mixbit::json_document const& runs, bool json) {
  auto const unquantized = window_losses(lm);
  auto const divergence = divergence_from_here(lm);
  auto model = lm.quantized(mixbit::policy::modelopt);
  lm_search s{model, recorded_search()};
  auto const steps = score_window_steps(lm);
  s.run(steps);
  if (!json)
    std::puts("| bits | ModelOpt's | plain | refined | divergence on score windows | rounds |\n"
              "|---|---|---|---|---|---|");
  for (double const bits : {4.8, 6.0, 8.0, 11.0}) {
    auto const chosen = s.choose(bits);
    s.apply(chosen);
    recorded_row r{bits, modelopt_loss(runs, bits), window_losses(lm), {}, {}};
    r.found = mixbit::refine(s, chosen, steps, divergence, {.method = mixbit::score_method::kl_div});
    r.refined = window_losses(lm);
    print(r, unquantized, json);
  }
  mixbit::disable_quantizer(model, "*");  // the next table begins with an unquantized model
}

}  // namespace bench
