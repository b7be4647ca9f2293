// Picks a format for every layer from the statistics of a search: what usage_text says.
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "../../run_program.hpp"
#include "choice.hpp"
#include "frontier.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/io/json.hpp"
#include "options.hpp"
#include "output.hpp"
#include "statistics.hpp"

namespace allocate {
namespace {

using namespace mixbit;

/// Everything is computed, then all files are written and finished and the table is, and only then does any of them
/// appear: what a full disk can keep from being written is known before the first.
void run(options const& o) {
  statistics stats = read_statistics(o.stats, o.raw_scores);
  if (o.max_bytes && !stats.weighted.empty())
    fail(error_id::usage, "--max-bytes: the costs of ", stats.weighted, ", so what is stored is not known from them");
  budgets given{cost_budget(o, stats), {}, cost_option(o, stats)};
  if (!o.latency.empty()) given.nanoseconds = read_latency(o.latency, stats);
  choice const best = choose(stats, given, o.minimax, o.limit);
  std::string table = table_of(stats, given, best, o.minimax);
  std::optional<atomic_file> out, pareto;
  if (!o.out.empty())
    out.emplace(o.out).write(dump_json(to_json(plan_of(stats, o, given, best)), in_quotes(o.out), 2) + "\n");
  if (!o.pareto.empty()) {
    frontier const found = frontier_of(o, stats);
    table += frontier_summary(stats, found);
    text_sink const to = [&file = pareto.emplace(o.pareto)](std::string_view part) { file.write(part); };
    if (o.pareto.ends_with(".csv")) write_csv(stats, found, to);
    else write_json(stats, found, to);
  }
  if (out) out->finish();
  if (pareto) pareto->finish();
  std::fputs(table.c_str(), stdout);
  flush_output();
  if (pareto) pareto->commit();
  if (out) out->commit();
}

}  // namespace
}  // namespace allocate

int main(int argc, char** argv) {
  return run_program("allocate", [&] {
    auto const options = allocate::parse_options(argc, argv);
    if (options.help) std::fputs(allocate::usage_text, stdout);
    else allocate::run(options);
    return 0;
  });
}
