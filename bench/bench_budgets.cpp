// bench_budgets [--json]: what a search's choice is worth at a budget, and what refining it brings, on byte_lm. Two
// tables of docs/losses.md, or one JSON object a line:
//
// - FP8_DEFAULT_CFG, INT8_DEFAULT_CFG and INT4_BLOCKWISE_WEIGHT_ONLY_CFG at 4.8, 6, 8 and 11 effective bits by
//   ModelOpt's cost and numerics, beside the validation loss of ModelOpt's own choice (golden/lm_autoquant.json);
// - every preset that quantizes all layers and no cache, and INT2 to INT4 in blocks of 32, at 3.5 to 8 exact bits.
//
// Scores and refinement see the score windows alone: refined is by kl_div, measured as the divergence from the
// unquantized model. The error is that of the mean over validation windows of what quantization costs a window.
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "byte_lm/search_steps.hpp"
#include "golden_suites/lm_model.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "mixbit/io/json.hpp"

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

/// Σ KL over the score windows, in nats, from logits of the unquantized model.
class divergence {
 public:
  explicit divergence(golden::lm_model& lm) : lm_{lm} {
    for (auto const& batch : lm.score) reference_.push_back(rows(batch));
  }
  double operator()() const {
    double sum = 0;
    for (std::size_t i = 0; i < reference_.size(); ++i)
      sum += mixbit::kl_divergence(reference_[i], rows(lm_.score[i]));
    return sum;
  }

 private:
  mixbit::logit_rows rows(byte_lm::byte_windows const& batch) const {
    auto const y = lm_.host.logits(batch.inputs());
    return {{y.data(), y.data() + y.size()}, y.cols()};
  }
  golden::lm_model& lm_;
  std::vector<mixbit::logit_rows> reference_;
};

/// What a table is of.
struct setting {
  char const* name;
  std::vector<mixbit::quantize_config> formats;
  mixbit::cost_model cost;
  mixbit::policy numerics;
  std::vector<double> budgets;
  int rounds;  // of refinement
};

setting as_modelopt() {
  return {"modelopt cost",
          {mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), mixbit::preset("INT8_DEFAULT_CFG"),
           mixbit::preset("FP8_DEFAULT_CFG")},
          mixbit::cost_model::modelopt, mixbit::policy::modelopt, {4.8, 6, 8, 11}, 8};
}

/// INT_bits weights in blocks of 32.
mixbit::quantize_config in_blocks(int bits) {
  auto config = mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  config.name = "INT" + std::to_string(bits) + "_B32";
  for (auto& entry : config.entries)
    if (entry.cfg)
      for (auto& a : *entry.cfg) {
        a.num_bits = mixbit::bit_spec{bits};
        a.block_sizes->axes = {{-1, 32}};
      }
  config.algorithm = "mse";
  return config;
}

/// Does the preset quantize every layer's weight, and nothing but weights and inputs?
bool covers_layers(golden::lm_model& lm, std::string const& name) {
  if (name.find("KV") != name.npos || name.find("MHA") != name.npos) return false;
  auto model = lm.quantized(mixbit::policy::stored);
  try {
    mixbit::search<byte_lm::backend> const planned{model, {.formats = {mixbit::preset(name)}, .target = 16.0}};
    return true;
  } catch (mixbit::error const& e) {
    if (e.id() != mixbit::error_id::config_no_match && e.id() != mixbit::error_id::config_conflict) throw;
    return false;
  }
}

setting every_format(golden::lm_model& lm) {
  setting s{"exact bits", {}, mixbit::cost_model::exact, mixbit::policy::stored, {3.5, 4.5, 5, 6, 8}, 1};
  for (int const bits : {2, 3, 4}) s.formats.push_back(in_blocks(bits));
  for (auto const& name : mixbit::preset_names())
    if (covers_layers(lm, std::string{name})) s.formats.push_back(mixbit::preset(name));
  return s;
}

struct row {
  double bits, modelopt;
  loss_by_window plain, refined;
  mixbit::refined_choice found;
};

void print(row const& r, loss_by_window const& unquantized, bool json) {
  double const plain = mean(r.plain), refined = mean(r.refined);
  std::string const peer = std::isnan(r.modelopt) ? json ? "null" : "" : std::to_string(r.modelopt);
  char const* const format =
      json ? "{\"effective_bits\": %g, \"modelopt_loss\": %s, \"plain_loss\": %.6f, \"plain_error\": %.6f, "
             "\"refined_loss\": %.6f, \"refined_error\": %.6f, \"divergence\": %.4f, \"refined_divergence\": %.4f, "
             "\"rounds\": %d}\n"
           : "| %g | %s | %.5f ± %.5f | %.5f ± %.5f | %.2f -> %.2f | %d |\n";
  std::printf(format, r.bits, peer.c_str(), plain, standard_error(r.plain, unquantized), refined,
              standard_error(r.refined, unquantized), r.found.before, r.found.measured, r.found.rounds);
  std::fflush(stdout);
}

void table(golden::lm_model& lm, setting const& of, mixbit::json_document const& runs, bool json) {
  auto model = lm.quantized(of.numerics);
  auto const unquantized = losses(lm);
  divergence const measure{lm};
  mixbit::search_options o;
  o.formats = of.formats;
  o.target = 16.0;
  o.cost = of.cost;
  mixbit::search<byte_lm::backend> s{model, o};
  int const count = static_cast<int>(lm.score.size());
  auto const steps = byte_lm::search_steps(lm.host, lm.score, count, lm.score, count);
  s.run(steps);
  if (json) std::printf("{\"table\": \"%s\", \"formats\": %zu}\n", of.name, of.formats.size());
  else
    std::printf("\n%s, %zu formats\n\n"
                "| bits | ModelOpt's | plain | refined | divergence on score windows | rounds |\n"
                "|---|---|---|---|---|---|\n",
                of.name, of.formats.size());
  for (double const bits : of.budgets) {
    auto const chosen = s.choose(bits);
    s.apply(chosen);
    row r{bits, of.cost == mixbit::cost_model::modelopt ? modelopt_loss(runs, bits) : std::nan(""), losses(lm), {}, {}};
    r.found = mixbit::refine(s, chosen, steps, measure,
                             {.method = mixbit::score_method::kl_div, .rounds = of.rounds});
    r.refined = losses(lm);
    print(r, unquantized, json);
  }
  mixbit::disable_quantizer(model, "*");
}

}  // namespace

int main(int argc, char** argv) try {
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view const option{argv[i]};
    if (option == "--help" && argc == 2)
      return std::puts("bench_budgets [--json]\n  --json   one JSON object a line"), 0;
    if (option != "--json" || json) {
      std::fprintf(stderr, "bench_budgets: '%s' is %s; bench_budgets [--json]\n", argv[i],
                   option == "--json" ? "given twice" : "an unknown option");
      return 2;
    }
    json = true;
  }
  golden::lm_model lm{MIXBIT_GOLDEN_DIR, MIXBIT_DATA_DIR};
  std::filesystem::path const golden{MIXBIT_GOLDEN_DIR};
  auto const runs = mixbit::read_json_file(golden / "lm_autoquant.json").at("runs");
  table(lm, as_modelopt(), runs, json);
  table(lm, every_format(lm), runs, json);
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "bench_budgets: %s\n", problem.what());
  return 2;
}
