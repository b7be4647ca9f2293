// Everything byte_lm does with mixbit besides its layers' calls: the whole job, from a model to a checkpoint.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "divergence.hpp"
#include "inputs.hpp"
#include "mixbit/adapters/eigen_linalg.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "mixbit/io/hf_form.hpp"
#include "mixbit/mixbit.hpp"
#include "outputs.hpp"
#include "preceding.hpp"
#include "progress.hpp"
#include "search_steps.hpp"

namespace byte_lm {

/// The first `wanted` steps, all where nothing is wanted.
inline int steps_of(std::vector<byte_windows> const& steps, std::optional<int> wanted, char const* option) {
  int const available = static_cast<int>(steps.size());
  if (wanted && *wanted > available)
    mixbit::fail(mixbit::error_id::usage, option, " ", *wanted, ": the windows have ", available, " steps");
  return wanted.value_or(available);
}

/// One run of the program.
class job {
 public:
  job(options const& o, executor_ref executor)
      : options_{o},
        model_{load_model(o.model, executor)},
        data_{read_data(o, model_.shapes)},
        calibration_{o.calib_from.empty()      ? (o.preset.empty() ? data_.score : data_.calibration)
                     : o.calib_from == "score" ? data_.score
                                               : data_.calibration},
        calib_steps_{steps_of(calibration_, o.calib_steps, "--calib-steps")},
        score_steps_{steps_of(data_.score, o.score_steps, "--score-steps")},
        quantized_{model_,
                   {.device = backend{executor},
                    .numerics = o.numerics == "stored" ? mixbit::policy::stored : mixbit::policy::modelopt,
                    .linalg = mixbit::eigen_linalg{executor}}} {}

  void run() {
    auto const quantize = prepare();
    if (options_.dry_run) {
      show_plan();
      return;
    }
    auto const start = clock::now();
    loss_.unquantized = evaluate(model_, data_.validation);
    seconds_a_byte_ = since(start) / static_cast<double>(data_.validation.inputs().size());
    if (!std::isfinite(loss_.unquantized))
      mixbit::fail(mixbit::error_id::file_content, options_.model, ": the model's validation loss is ",
                   loss_.unquantized, " before anything is quantized");
    quantize();
    if (no_checkpoint_.empty()) share_scales();
    loss_.quantized = evaluate(model_, data_.validation);
    auto inputs = options_.preset;
    inputs.push_back(options_.plan);
    write_results(quantized_, {options_.model, options_.out, inputs, search_ ? &search_->stats() : nullptr, plan_,
                               loss_, no_checkpoint_, folded_});
    std::printf("validation loss %.6f -> %.6f nats a byte\n", loss_.unquantized, loss_.quantized);
  }

 private:
  using clock = std::chrono::steady_clock;
  static double since(clock::time_point start) { return std::chrono::duration<double>(clock::now() - start).count(); }

  /// Refuses what can be refused without a forward, which takes long; what it returns quantizes the model. A search and
  /// a plan have to end in a checkpoint; of a preset why_no_checkpoint() says why not.
  std::function<void()> prepare() {
    if (options_.searches()) {
      plan_search();
      mixbit::require_hf_forms(quantized_, *search_);
      return [this] { run_search(); };
    }
    if (!options_.preset.empty()) {
      auto config = read_combined(options_.preset);
      if (!options_.algorithm.empty()) config.algorithm = algorithm_of(options_.algorithm);
      no_checkpoint_ = why_no_checkpoint(config);
      awq_ = uses_awq(config.algorithm);
      return [this, config] { print_notes(mixbit::quantize(quantized_, config, [&] { calibrate_all(); }).notes); };
    }
    auto const plan = read_plan(options_.plan);
    auto const of_plan = [this](auto&& f) {
      return mixbit::detail::named("--plan " + mixbit::in_quotes(options_.plan), f);
    };
    of_plan([&] { mixbit::require_hf_forms(quantized_, plan); });
    return [this, plan, of_plan] {
      auto const steps = search_steps(model_, calibration_, calib_steps_, data_.score, score_steps_);
      print_notes(of_plan([&] { return mixbit::apply_plan(quantized_, plan, steps); }).notes);
    };
  }

  static bool uses_awq(mixbit::algorithm_config const& algorithm) {
    auto const steps = algorithm.steps();
    return std::any_of(steps.begin(), steps.end(), [](auto const& step) { return step.method.starts_with("awq"); });
  }

  /// What ModelOpt's exporter does to scales of inputs: one for layers that read one input, of AWQ in the norm before
  /// them. Layers of several formats, and weights that were rewritten under their scales, are left as they are.
  void share_scales() {
    std::vector<mixbit::layer_group> groups;
    auto const fused = mixbit::fused_layers(quantized_);
    for (auto const& group : mixbit::unshared_groups(quantized_, fused, {false, false, true}))
      if (can_share(group)) groups.push_back(group.layers);
    if (!groups.empty()) print_notes(mixbit::share_state(quantized_, groups).notes);
    if (!awq_) return;
    auto const folds = awq_folds(model_, quantized_);
    auto const report = mixbit::fold_pre_quant_scales(quantized_, folds);
    print_notes(report.notes);
    if (report.folded > 0) folded_ = folds;
  }

  bool can_share(mixbit::unshared_group const& group) {
    bool const formats = std::any_of(group.differences.begin(), group.differences.end(),
                                     [](auto const& d) { return d.is_format(); });
    auto const modules = quantized_.modules();
    return !formats && std::none_of(modules.begin(), modules.end(), [&](auto const& m) {
      auto const& recipe = m.slots->shared_site()->quantizers();
      bool const rewritten = recipe.weight || recipe.branch;
      return rewritten && std::find(group.layers.begin(), group.layers.end(), m.name) != group.layers.end();
    });
  }

  /// A preset without a form in a checkpoint is still worth measuring; empty where there is one.
  std::string why_no_checkpoint(mixbit::quantize_config const& config) {
    try {
      mixbit::require_hf_forms(quantized_, config);
    } catch (mixbit::error const& e) {
      if (e.id() != mixbit::error_id::format_value) throw;
      return std::string{e.message()};
    }
    return {};
  }

  mixbit::search_options search_options() {
    mixbit::search_options s;
    s.formats = read_formats(options_.formats);
    if (options_.effective_bits) s.target = *options_.effective_bits;
    s.max_bytes = options_.max_bytes;
    if (!options_.latency.empty()) s.latency = read_latency(options_.latency);
    for (auto const& p : options_.disabled_layers) s.disabled_layers.emplace_back(p);
    s.cost = options_.cost == "exact" ? mixbit::cost_model::exact : mixbit::cost_model::modelopt;
    s.difference_bytes = options_.score_memory.value_or(0);
    s.method = options_.method == "kl_div" ? mixbit::score_method::kl_div : mixbit::score_method::gradient;
    std::vector<named_values> weights;
    model_.for_each_parameter([&](std::string const& name, parameter& p) {
      weights.push_back({name, {p.value.data(), static_cast<std::size_t>(p.value.size())}});
    });
    s.checkpoint = search_checkpoint(options_, weights, calibration_, data_.score);
    return s;
  }

  /// Before any forward; a refinement measures the model on its score windows, without quantization once more.
  mixbit::resolved_search resolved() {
    auto plan = search_->resolved(calib_steps_, score_steps_);
    if (options_.refine)
      add_refinement(plan, *options_.refine, score_steps_, mixbit::score_method::kl_div, score_steps_);
    return plan;
  }
  void show_plan() {
    auto const resolved = this->resolved();
    std::fputs(to_text(resolved).c_str(), stdout);
    if (!options_.resolved.empty()) write_resolved(options_.resolved, resolved);
  }

  /// Budgets that cannot be met are named by the options that gave them.
  void plan_search() {
    try {
      search_.emplace(quantized_, search_options());
    } catch (mixbit::error const& e) {
      if (e.id() != mixbit::error_id::search_infeasible) throw;
      mixbit::fail(e.id(), budgets(), ": ", e.message());
    }
  }
  std::string budgets() const {
    std::string text;
    auto const add = [&](char const* option, std::string const& value) {
      text += (text.empty() ? "" : " ") + std::string{option} + ' ' + value;
    };
    if (options_.effective_bits) add("--effective-bits", options_.effective_bits->text());
    if (options_.max_bytes) add("--max-bytes", std::to_string(*options_.max_bytes));
    if (!options_.latency.empty()) add("--latency", mixbit::in_quotes(options_.latency));
    return text;
  }

  /// What the search's steps take at the speed at which the unquantized model was just measured, a backward being two
  /// forwards. Forwards that go on from kept activations (kl_div) count whole, and so do those of a resumed search.
  void announce_time() {
    double bytes = 0;
    for (int i = 0; i < score_steps_; ++i) bytes += static_cast<double>(data_.score[index_of(i)].inputs().size());
    double const forward = seconds_a_byte_ * bytes / score_steps_;
    auto const plan = resolved();
    std::printf("the search's forwards and backwards would take %.1f s at the unquantized model's speed; casts and "
                "candidates' products come on top\n", plan.seconds(forward, 2 * forward));
    std::fflush(stdout);
  }

  void run_search() {
    announce_time();
    progress bar;
    auto& search = *search_;
    auto const start = clock::now();
    auto steps = search_steps(model_, calibration_, calib_steps_, data_.score, score_steps_);
    steps.progress = [&](std::string_view phase, int done, int total) { bar.show(phase, done, total); };
    search.run(steps);
    print_notes(search.notes());
    auto chosen = search.choose();
    search.apply(chosen);
    std::vector<std::string> notes;
    if (options_.refine) refine(steps, chosen, notes);
    double const seconds = since(start);
    plan_ = search.plan(chosen);
    plan_.notes.insert(plan_.notes.end(), notes.begin(), notes.end());
    print_table(search.stats());
    std::printf("searched %zu groups in %.3f s; %s, score %.6e (%s)\n", search.stats().size(), seconds,
                achieved(chosen).c_str(), chosen.score, chosen.optimal ? "proven least" : "best found");
  }

  /// Each budget that was given, beside what the choice takes of it.
  static std::string achieved(mixbit::allocation const& a) {
    char bits[64];
    std::snprintf(bits, sizeof bits, "%.4f effective bits", a.bits_per_element);
    std::string text = bits;
    if (a.asked.target.given()) text += " of " + a.asked.target.text();
    if (a.asked.max_bytes)
      text += mixbit::detail::concat(", ", mixbit::shown_bytes(a.stored_bits), " bytes of ", *a.asked.max_bytes);
    if (a.asked.max_nanoseconds)
      text += ", " + mixbit::shown_microseconds(a.nanoseconds) + " microseconds of " +
              mixbit::shown_microseconds(*a.asked.max_nanoseconds);
    return text;
  }

  /// Around the choice, on the score windows alone: the validation windows are for what comes out.
  void refine(mixbit::search_steps const& steps, mixbit::allocation& chosen, std::vector<std::string>& notes) {
    std::printf("refine: measured is the divergence from the unquantized model on the score windows, in nats\n");
    auto const found = mixbit::refine(*search_, chosen, steps, divergence(),
                                      {.method = mixbit::score_method::kl_div, .rounds = *options_.refine});
    std::fputs(to_text(found).c_str(), stdout);
    chosen = found.best;
    notes = found.notes;
    notes.push_back(mixbit::detail::concat("refined in ", found.rounds, " round(s): the divergence from the ",
                                           "unquantized model on the score windows went from ", found.before, " to ",
                                           found.measured, " nats"));
  }

  /// What measures the model as it is, beside it without quantization, by its score windows' logits.
  std::function<double()> divergence() {
    mixbit::active_recipes<backend> unquantized{search_->shared_sites()};
    unquantized.activate_all([](auto const& s) { return mixbit::unquantized_index(s); });
    return divergence_since{model_, data_.score, score_steps_};
  }

  static void print_notes(std::vector<std::string> const& notes) {
    for (auto const& note : notes) std::printf("note: %s\n", note.c_str());
  }

  static std::size_t index_of(int i) { return static_cast<std::size_t>(i); }

  void calibrate_all() {
    for (int i = 0; i < calib_steps_; ++i) (void)model_.logits(calibration_[index_of(i)].inputs());
  }

  void print_table(mixbit::candidate_stats const& stats) const {
    std::printf("%-36s %-52s %12s %8s\n", "layer", "format", "score", "bits");
    for (std::size_t g = 0; g < stats.size(); ++g) {
      auto const& chosen = stats[g].candidates[index_of(plan_.achieved.choice[g])];
      for (auto const& m : stats[g].modules)
        std::printf("%-36s %-52s %12.4e %8.4f\n", m.c_str(), chosen.format.c_str(), chosen.score,
                    mixbit::bits_per_element(chosen.bits, stats[g].elements));
    }
  }

  options const& options_;
  language_model model_;
  data_windows data_;
  std::vector<byte_windows> const& calibration_;
  int calib_steps_, score_steps_;
  double seconds_a_byte_ = 0;  ///< of a forward
  mixbit::model<backend> quantized_;
  std::optional<mixbit::search<backend>> search_;
  mixbit::quantization_plan plan_;
  mixbit::measured_loss loss_;
  std::string no_checkpoint_;  ///< why there will be none; empty otherwise
  bool awq_ = false;           ///< does the preset's algorithm choose scales as AWQ does?
  std::vector<mixbit::preceding_op> folded_;
};

}  // namespace byte_lm
