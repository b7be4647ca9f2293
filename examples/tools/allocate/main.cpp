// Picks a format for every layer from the statistics of a search: what usage_text says.
#include <cstdio>
#include <optional>
#include <string>

#include "../../run_program.hpp"
#include "choice.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/io/json.hpp"
#include "options.hpp"
#include "output.hpp"
#include "statistics.hpp"

namespace allocate {
namespace {

using namespace mixbit;

/// Everything is computed, then all files are written and the table is, and only then does any of them appear.
void run(options const& o) {
  statistics stats = read_statistics(o.stats);
  budgets given{cost_budget(o, stats), {}};
  if (!o.latency.empty()) given.nanoseconds = read_latency(o.latency, stats);
  choice const best = choose(stats, given, o.minimax);
  std::string const table = table_of(stats, given, best, o.minimax);
  std::string plan, frontier;
  if (!o.out.empty()) plan = dump_json(to_json(plan_of(stats, o, given, best)), in_quotes(o.out), 2) + "\n";
  if (!o.pareto.empty()) frontier = frontier_text(stats, o.pareto.ends_with(".csv"));
  std::optional<atomic_file> out, pareto;
  if (!o.out.empty()) out.emplace(o.out).write(plan);
  if (!o.pareto.empty()) pareto.emplace(o.pareto).write(frontier);
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
