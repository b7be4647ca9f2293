// bench_budgets [--json]: what a search's choice is worth at a budget, and what refining it brings. byte_lm with
// FP8_DEFAULT_CFG, INT8_DEFAULT_CFG and INT4_BLOCKWISE_WEIGHT_ONLY_CFG at 4.8, 6, 8 and 11 effective bits by ModelOpt's
// cost and numerics, beside the validation loss of ModelOpt's own choice (tests/golden/lm_autoquant.json). Scores and
// refinement see the score windows alone: refined is by kl_div, measured as the divergence from the unquantized model.
// Prints a table of docs/losses.md, or one JSON object a line. The error is that of the mean over validation windows of
// what quantization costs a window.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "byte_lm/divergence.hpp"
#include "byte_lm/search_steps.hpp"
#include "golden_suites/lm_model.hpp"
#include "json_option.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "mixbit/io/json.hpp"
#include "recorded_search.hpp"

namespace {

using loss_by_window = std::vector<double>;

loss_by_window losses(golden::lm_model& lm) {
  loss_by_window all;
  for (std::int64_t i = 0; i < lm.validation.count; ++i)
    all.push_back(byte_lm::evaluate(lm.host, lm.validation.slice(i, 1)));
  return all;
}

double mean(loss_by_window const& all) {
  double sum = 0;
  for (double const l : all) sum += l;
  return sum / static_cast<double>(all.size());
}

/// Of the mean difference of windows.
double standard_error(loss_by_window const& a, loss_by_window const& b) {
  double const off = mean(a) - mean(b), n = static_cast<double>(a.size());
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i] - off) * (a[i] - b[i] - off);
  return std::sqrt(squares / (n - 1) / n);
}

/// ModelOpt's validation loss at so many bits.
double modelopt_loss(mixbit::json_document const& runs, double bits) {
  for (auto const& run : runs)
    if (run.at("method") == "gradient" && run.at("formats").size() == 3 && run.at("disabled_layers").is_null() &&
        run.at("effective_bits").get<double>() == bits)
      return run.at("validation_loss").get<double>();
  return std::nan("");
}

struct row {
  double bits, modelopt;
  loss_by_window plain, refined;
  mixbit::refined_choice found;
};

void print(row const& r, loss_by_window const& unquantized, bool json) {
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

void table(golden::lm_model& lm, mixbit::json_document const& runs, bool json) {
  auto const unquantized = losses(lm);
  auto model = lm.quantized(mixbit::policy::modelopt);
  mixbit::search<byte_lm::backend> s{model, bench::recorded_search()};
  int const count = static_cast<int>(lm.score.size());
  byte_lm::divergence_since const measure{lm.host, lm.score, count};
  auto const steps = byte_lm::search_steps(lm.host, lm.score, count, lm.score, count);
  s.run(steps);
  if (!json)
    std::puts("| bits | ModelOpt's | plain | refined | divergence on score windows | rounds |\n"
              "|---|---|---|---|---|---|");
  for (double const bits : {4.8, 6.0, 8.0, 11.0}) {
    auto const chosen = s.choose(bits);
    s.apply(chosen);
    row r{bits, modelopt_loss(runs, bits), losses(lm), {}, {}};
    r.found = mixbit::refine(s, chosen, steps, measure, {.method = mixbit::score_method::kl_div});
    r.refined = losses(lm);
    print(r, unquantized, json);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::with_json_option("bench_budgets", argc, argv, [](bool json) {
    golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
    std::filesystem::path const golden{MIXBIT_GOLDEN_DIR};
    table(lm, mixbit::read_json_file(golden / "lm_autoquant.json").at("runs"), json);
  });
}
