// bench_budgets [--json]: what a search's choice is worth at a budget, and what refining it brings, on byte_lm. Two
// tables of docs/losses.md, or JSON objects, one a line:
//
// - the first search that tests/golden/lm_autoquant.json records, at 4.8, 6, 8 and 11 effective bits by ModelOpt's cost
//   and numerics, beside the validation loss of ModelOpt's own choice (in that file);
// - every format of the library (every_format.hpp) at 3.5, 4.5, 5, 6 and 8 exact bits, numerics `stored`, beside the
//   best that one format for all layers can do within the budget; each format alone is listed behind.
//
// Scores and refinement see the score windows alone: refined is by kl_div, measured as the divergence from the
// unquantized model; the second table has one round of it, and that divergence also on the validation windows. The
// error is that of the mean over validation windows of a difference of two models: of what quantization costs a window,
// or mixing gains.
#include <filesystem>

#include "golden_suites/lm_model.hpp"
#include "json_option.hpp"
#include "mixed_budgets.hpp"
#include "recorded_budgets.hpp"

int main(int argc, char** argv) {
  return bench::with_json_option("bench_budgets", argc, argv, [](bool json) {
    golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
    std::filesystem::path const golden{MIXBIT_GOLDEN_DIR};
    bench::recorded_table(lm, mixbit::read_json_file(golden / "lm_autoquant.json").at("runs"), json);
    bench::mixed_table(lm, json);
  });
}
