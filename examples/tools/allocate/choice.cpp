#include "choice.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/autoquant/solver_minimax.hpp"
#include "mixbit/core/error.hpp"

namespace allocate {

using namespace mixbit;

namespace {

bool is_allowed(candidate const& c, budgets const& given) { return !given.nanoseconds || c.nanoseconds; }

/// A budget as messages name it, in the user's unit.
struct dimension {
  std::string name;
  char const* unit;
  double parts;  // of a unit: what costs count in
  std::int64_t budget;
  std::int64_t (*cost)(candidate const&);
};

std::vector<dimension> dimensions_of(statistics const& stats, budgets const& given) {
  std::vector<dimension> all;
  if (given.cost)
    all.push_back({given.cost_from, "bits", static_cast<double>(stats.units), *given.cost,
                   [](candidate const& c) { return c.cost; }});
  if (given.nanoseconds)
    all.push_back({"--latency", "microseconds", 1e3, *given.nanoseconds,
                   [](candidate const& c) { return c.nanoseconds.value_or(0); }});
  return all;
}

/// All of a number's digits.
std::string decimal(double value) {
  char text[64];
  auto const [end, code] = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed);
  return code == std::errc{} ? std::string{text, end} : std::to_string(value);
}

/// For a budget of bits, what --effective-bits would have to be, rounded up to millionths.
std::string in_bits(statistics const& stats, dimension const& d, std::int64_t cost) {
  if (std::string_view{d.unit} != "bits" || stats.elements <= 0) return "";
  return " (" + detail::least_target(cost, stats.elements) + " effective bits)";
}

void require_reachable(statistics const& stats, solver::budgets_problem const& problem,
                       std::vector<dimension> const& all) {
  auto const found = solver::shortage_of(problem);
  if (!found) return;
  dimension const& d = all[found->budget];
  auto const shown = [&](std::int64_t cost) { return decimal(static_cast<double>(cost) / d.parts); };
  fail(error_id::search_infeasible, d.name, ": a budget of ", shown(d.budget), " ", d.unit, " cannot be met: ",
       shown(found->minimum), " is the least that can be reached", in_bits(stats, d, found->minimum), ", and ",
       stats.groups[found->group].name, " alone needs ", shown(found->least));
}

/// The candidates that are allowed, under one budget or two, and where each comes from.
struct posed {
  solver::budgets_problem problem;
  std::vector<int> from;
};

posed pose(statistics const& stats, budgets const& given, std::vector<dimension> const& all) {
  posed result{{{}}, {}};
  for (dimension const& d : all) result.problem.budgets.push_back(d.budget);
  std::vector<std::int64_t> costs;
  for (group const& g : stats.groups) {
    for (std::size_t i = 0; i < g.candidates.size(); ++i) {
      if (!is_allowed(g.candidates[i], given)) continue;
      costs.clear();
      for (dimension const& d : all) costs.push_back(d.cost(g.candidates[i]));
      result.problem.add_candidate(g.candidates[i].score, costs);
      result.from.push_back(static_cast<int>(i));
    }
    result.problem.end_group();
  }
  return result;
}

choice told(statistics const& stats, posed const& p, solver::budgets_solution const& best) {
  choice result;
  result.score = best.score;
  result.bound = best.bound;
  result.gap = best.gap;
  result.optimal = best.optimal;
  for (std::size_t g = 0; g < stats.groups.size(); ++g) {
    result.of_group.push_back(p.from[p.problem.begin(g) + static_cast<std::size_t>(best.choice[g])]);
    candidate const& c = stats.groups[g].candidates[static_cast<std::size_t>(result.of_group.back())];
    result.cost += c.cost;
    result.nanoseconds += c.nanoseconds.value_or(0);
    result.largest = g == 0 ? c.score : std::max(result.largest, c.score);
  }
  return result;
}

}  // namespace

namespace {

std::optional<std::int64_t> bits_budget(options const& o, statistics const& stats) {
  return o.target ? std::optional{o.target->budget(stats.elements)} : std::nullopt;
}

std::optional<std::int64_t> bytes_budget(options const& o, statistics const& stats) {
  if (!o.max_bytes) return std::nullopt;
  std::int64_t const most = std::numeric_limits<std::int64_t>::max();
  return *o.max_bytes > most / 8 / stats.units ? most : *o.max_bytes * 8 * stats.units;
}

bool is_by_bytes(options const& o, statistics const& stats) {
  auto const bits = bits_budget(o, stats), bytes = bytes_budget(o, stats);
  return bytes && (!bits || *bytes < *bits);
}

}  // namespace

std::optional<std::int64_t> cost_budget(options const& o, statistics const& stats) {
  return is_by_bytes(o, stats) ? bytes_budget(o, stats) : bits_budget(o, stats);
}

std::string cost_option(options const& o, statistics const& stats) {
  if (is_by_bytes(o, stats)) return "--max-bytes " + std::to_string(*o.max_bytes);
  return o.target ? "--effective-bits " + decimal(o.target->value()) : "";
}

choice choose(statistics const& stats, budgets const& given, bool minimax, solver_limits const& most) {
  constexpr std::int64_t bytes_a_state = 512;  // some 300 with one budget, 380 with several
  solver::limits limit{solver::budgets_limits.max_states, most.seconds};
  if (most.memory) limit.max_states = static_cast<std::size_t>(*most.memory / bytes_a_state);
  auto const all = dimensions_of(stats, given);
  posed const p = pose(stats, given, all);
  require_reachable(stats, p.problem, all);
  try {
    if (!minimax) return told(stats, p, solver::solve(p.problem, limit));
    auto const best = solver::minimax(p.problem, limit);
    choice result = told(stats, p, best.sum);
    result.largest_bound = best.largest_bound;
    result.optimal = best.optimal;
    return result;
  } catch (error const& e) {
    if (e.id() != error_id::search_infeasible || std::string{e.message()}.find("not together") == std::string::npos)
      throw;
    fail(error_id::search_infeasible, given.cost_from, " and --latency can be met each alone but not together; ",
         stats.groups[solver::tightest_group(p.problem)].name, " has no format that is cheap in both");
  }
}

}  // namespace allocate
