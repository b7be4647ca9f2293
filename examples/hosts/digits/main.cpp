// digits: from training to a mixed-precision checkpoint, on a network that was not made for it. See options.cpp for
// the command line.
#include <chrono>
#include <cstdio>

#include "../../run_program.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/staged_output.hpp"
#include "mixbit/report/markdown.hpp"
#include "options.hpp"
#include "quantization.hpp"

namespace digits {
namespace {

double seconds_of(auto&& work) {
  auto const start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void train(network& net, image_set const& images, options const& o) {
  trainer t{net, o.seed};
  for (int e = 1; e <= o.epochs; ++e) std::printf("epoch %d of %d: loss %.4f\n", e, o.epochs, t.epoch(images));
}

void print_table(mixbit::candidate_stats const& stats, mixbit::quantization_plan const& plan) {
  std::printf("%-6s  %-42s  %10s  %7s\n", "layer", "format", "score", "bits");
  for (std::size_t g = 0; g < stats.size(); ++g) {
    auto const& chosen = stats[g].candidates[static_cast<std::size_t>(plan.achieved.choice[g])];
    for (auto const& module : stats[g].modules)
      std::printf("%-6s  %-42s  %10.3e  %7.3f\n", module.c_str(), chosen.format.c_str(), chosen.score,
                  mixbit::bits_per_element(chosen.bits, stats[g].elements));
  }
}

void write_results(options const& o, mixbit::candidate_stats const& stats, mixbit::quantization_plan const& plan,
                   mixbit::measured_loss const& loss, quantized_model& model, network& net) {
  mixbit::staged_output out{o.out};
  write_checkpoint(out.path("model.safetensors"), model, net);
  mixbit::write_json_file(out.path("candidate_stats.json"), mixbit::to_json(stats, plan.formats));
  mixbit::write_json_file(out.path("manifest.json"), mixbit::manifest_json(stats, plan));
  mixbit::write_json_file(out.path("plan.json"), mixbit::to_json(plan));
  mixbit::write_file_atomically(out.path("layer-sensitivity-report.md"), mixbit::sensitivity_report(stats, plan, loss));
  out.commit();
}

void run(options const& o) {
  { mixbit::staged_output const writable{o.out}; }  // not committed: only what it would refuse matters before training
  auto const data = split(read_digits(o.data));
  if (data.test.size() == 0)
    mixbit::fail(mixbit::error_id::file_content, o.data, ": has ", data.training.size(),
                 " image(s), and every fifth is for testing: it needs 5 at least");
  network net{o.seed};
  quantized_model model{net};
  mixbit::search_options wanted;
  for (auto const& f : o.formats) wanted.formats.push_back(format_named(f));
  wanted.target = mixbit::effective_bits{std::string_view{o.effective_bits}};
  mixbit::search<backend> search{model, wanted};  // a target out of reach is refused before anything is trained,
  require_forms(model, search);                   // and so is a format that cannot be written

  double const training = seconds_of([&] { train(net, data.training, o); });
  auto const before = evaluate(net, data.test);
  mixbit::quantization_plan plan;
  double const searching = seconds_of([&] { plan = run_search(search, net, search_batches(data.training)); });
  auto const after = evaluate(net, data.test);

  write_results(o, search.stats(), plan, {before.loss, after.loss}, model, net);
  print_table(search.stats(), plan);
  std::printf("trained in %.2f s, searched in %.3f s: %.4f effective bits of %s\n", training, searching,
              plan.achieved.bits_per_element, o.effective_bits.c_str());
  std::printf("test accuracy %.2f %% -> %.2f %%, loss %.4f -> %.4f\n", 100 * before.accuracy, 100 * after.accuracy,
              before.loss, after.loss);
}

}  // namespace
}  // namespace digits

int main(int argc, char** argv) {
  return run_program("digits", [&] {
    auto const options = digits::parse_options(argc, argv);
    if (options.help) std::fputs(digits::usage_text, stdout);
    else digits::run(options);
    return 0;
  });
}
