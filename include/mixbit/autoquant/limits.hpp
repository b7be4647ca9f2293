// Choices under several limits at once - effective bits, bytes, time - from a search's statistics: what can be reached
// of each, whether they can be met, and the best choice within all of them (solver_budgets.hpp). allocate() of
// candidate_stats.hpp is that of one target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/autoquant/latency_table.hpp"
#include "mixbit/autoquant/solver_budgets.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

enum class cost_kind : std::uint8_t {
  counted_bits,  ///< in 1/cost_unit, as a target counts them
  stored_bits,   ///< in bits
  time           ///< in nanoseconds
};

/// A limit of one kind of cost, and what any choice can reach of it.
struct reachable_limit {
  cost_kind kind = cost_kind::counted_bits;
  std::int64_t budget = 0, least = 0, most = 0;
  std::size_t largest_group = 0;  ///< contributes most to the least
  std::int64_t largest = 0;       ///< what it needs
};

namespace detail {

inline std::int64_t cost_of(group_stats const& g, candidate_stat const& c, cost_kind kind, std::int64_t unit) {
  if (kind == cost_kind::counted_bits) return weighted(g, c.bits, unit);
  return kind == cost_kind::stored_bits ? c.bits : c.nanoseconds.value_or(0);
}

/// Does each bit that is stored count, and so a limit of bytes is one of counted bits?
inline bool all_counts(candidate_stats const& stats) {
  return std::all_of(stats.begin(), stats.end(), [](auto const& g) { return g.weight == cost_weight{}; });
}

inline std::int64_t bits_of_bytes(std::int64_t bytes) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  return bytes > most / 8 ? most : bytes * 8;
}

inline reachable_limit reach_of(candidate_stats const& stats, cost_kind kind, std::int64_t budget) {
  reachable_limit r{kind, budget};
  std::int64_t const unit = cost_unit(stats);
  r.largest = -1;
  for (std::size_t g = 0; g < stats.size(); ++g) {
    if (stats[g].candidates.empty()) fail(error_id::search_input, stats[g].name, ": no candidate format");
    std::int64_t least = std::numeric_limits<std::int64_t>::max(), most = 0;
    for (auto const& c : stats[g].candidates) {
      if (kind == cost_kind::time && !c.nanoseconds)
        fail(error_id::search_input, stats[g].name, ": ", c.format, " has no time, and a limit of time is asked for");
      std::int64_t const cost = cost_of(stats[g], c, kind, unit);
      least = std::min(least, cost);
      most = std::max(most, cost);
    }
    r.least = cost_sum(r.least, least, stats[g].name);
    r.most = cost_sum(r.most, most, stats[g].name);
    if (least <= r.largest) continue;
    r.largest = least;
    r.largest_group = g;
  }
  return r;
}

/// "max_bytes of 100 bytes" with its range, in whole bytes and all digits of a time.
inline std::string limit_name(reachable_limit const& r, search_limits const& asked) {
  if (r.kind == cost_kind::counted_bits) return "target of " + asked.target.text() + " effective bits";
  if (r.kind == cost_kind::stored_bits) return concat("max_bytes of ", *asked.max_bytes);
  return "latency limit of " + shown_microseconds(r.budget) + " microseconds";
}
inline std::string limit_range(candidate_stats const& stats, reachable_limit const& r) {
  if (r.kind == cost_kind::time)
    return shown_microseconds(r.least) + " to " + shown_microseconds(r.most) + " microseconds can be reached";
  if (r.kind == cost_kind::stored_bits)
    return shown_bytes(r.least) + " to " + shown_bytes(r.most) + " bytes can be reached";
  std::int64_t const elements = weighted_elements(stats);
  return concat(least_target(r.least, elements), " to ", bits_per_element(r.most, elements), " bits can be reached");
}
inline std::string limit_cost(reachable_limit const& r, std::int64_t cost) {
  return r.kind == cost_kind::time ? shown_microseconds(cost) + " microseconds" : shown_bytes(cost) + " bytes";
}

}  // namespace detail

/// Each limit that was asked for.
inline std::vector<reachable_limit> reachable(candidate_stats const& stats, search_limits const& asked) {
  std::vector<reachable_limit> all;
  if (asked.target.given())
    all.push_back(detail::reach_of(stats, cost_kind::counted_bits, asked.target.budget(weighted_elements(stats))));
  if (asked.max_bytes)
    all.push_back(detail::reach_of(stats, cost_kind::stored_bits, detail::bits_of_bytes(*asked.max_bytes)));
  if (asked.max_nanoseconds) all.push_back(detail::reach_of(stats, cost_kind::time, *asked.max_nanoseconds));
  return all;
}

namespace detail {

/// The groups' candidates under these limits; `scores`: theirs, or 0.
inline solver::budgets_problem posed(candidate_stats const& stats, std::vector<reachable_limit> const& limits,
                                     bool scores) {
  solver::budgets_problem problem{{}};
  for (auto const& l : limits) problem.budgets.push_back(l.budget);
  std::int64_t const unit = cost_unit(stats);
  std::vector<std::int64_t> costs;
  for (auto const& g : stats) {
    for (auto const& c : g.candidates) {
      costs.clear();
      for (auto const& l : limits) costs.push_back(cost_of(g, c, l.kind, unit));
      problem.add_candidate(scores ? c.score : 0, span_of(costs));
    }
    problem.end_group();
  }
  return problem;
}

/// Limits of bytes and of counted bits are one where all counts: the narrower.
inline std::vector<reachable_limit> distinct(candidate_stats const& stats, std::vector<reachable_limit> limits) {
  if (limits.size() < 2 || limits[0].kind != cost_kind::counted_bits || limits[1].kind != cost_kind::stored_bits ||
      !all_counts(stats))
    return limits;
  limits[0].budget = std::min(limits[0].budget, limits[1].budget);
  limits.erase(limits.begin() + 1);
  return limits;
}

/// f(), with something behind the message of what it throws.
template <class F>
void named_behind(std::string const& others, F&& f) {
  try {
    f();
  } catch (error const& e) {
    fail(e.id(), e.message(), others);
  }
}

/// For a limit that cannot be met whatever the others are.
[[noreturn]] inline void fail_alone(candidate_stats const& stats, search_limits const& asked,
                                    std::vector<reachable_limit> const& all, reachable_limit const& short_one) {
  std::string others;
  for (auto const& o : all)
    if (&o != &short_one) others += concat("; beside it a ", limit_name(o, asked), ": ", limit_range(stats, o));
  auto const& worst = stats[short_one.largest_group];
  if (short_one.kind == cost_kind::counted_bits)
    named_behind(others, [&] { require_feasible(stats, asked.target); });
  fail(error_id::search_infeasible, "a ", limit_name(short_one, asked), " cannot be met: ",
       limit_range(stats, short_one), "; ", worst.name, " alone needs ", limit_cost(short_one, short_one.largest),
       worst.disabled_by.empty() ? "" : " because it is disabled by '" + worst.disabled_by + "'", others);
}

[[noreturn]] inline void fail_together(candidate_stats const& stats, search_limits const& asked,
                                       std::vector<reachable_limit> const& all, std::size_t tightest) {
  std::string text;
  for (std::size_t i = 0; i < all.size(); ++i)
    text += concat(i == 0 ? "" : i + 1 == all.size() ? " and " : ", ", "a ", limit_name(all[i], asked), " (",
                   limit_range(stats, all[i]), ")");
  fail(error_id::search_infeasible, text, " can be met each alone but not together; ", stats[tightest].name,
       " has no format that is cheap in all of them");
}

/// solver::solve(), with limits that cannot be met together named.
inline solver::budgets_solution solve_within(candidate_stats const& stats, search_limits const& asked,
                                             std::vector<reachable_limit> const& all, bool scores,
                                             solver::limits const& effort) {
  auto const problem = posed(stats, distinct(stats, all), scores);
  try {
    return solver::solve(problem, effort);
  } catch (error const& e) {
    if (e.id() != error_id::search_infeasible || e.message().find("not together") == std::string_view::npos) throw;
    fail_together(stats, asked, all, solver::tightest_group(problem));
  }
}

/// Sets what follows from the choice, for these statistics.
inline void set_costs(candidate_stats const& stats, allocation& a) {
  a.bits = a.stored_bits = a.nanoseconds = 0;
  for (std::size_t g = 0; g < stats.size(); ++g) {
    auto const& c = stats[g].candidates[static_cast<std::size_t>(a.choice[g])];
    a.bits += cost_of(stats[g], c, cost_kind::counted_bits, a.unit);
    a.stored_bits += cost_of(stats[g], c, cost_kind::stored_bits, a.unit);
    a.nanoseconds += cost_of(stats[g], c, cost_kind::time, a.unit);
  }
  a.bits_per_element = bits_per_element(a.bits, weighted_elements(stats));
}

}  // namespace detail

/// Throws `search_input` where nothing limits, and `search_infeasible`, naming what can be reached of each limit, where
/// one cannot be met, or all cannot be met together. Needs no scores. Whether several can be met together may be beyond
/// the solver's limits; allocate() then says so.
inline void require_feasible(candidate_stats const& stats, search_limits const& asked) {
  if (!asked.any())
    fail(error_id::search_input, "a search needs a limit: a target of effective bits, max_bytes or a latency table");
  if (stats.empty()) fail(error_id::search_input, "nothing to search: no module is quantizable");
  auto const all = reachable(stats, asked);
  for (auto const& r : all)
    if (r.budget < r.least) detail::fail_alone(stats, asked, all, r);
  if (detail::distinct(stats, all).size() < 2) return;
  try {
    (void)detail::solve_within(stats, asked, all, false, solver::budgets_limits);
  } catch (error const& e) {
    if (e.message().find("not known") == std::string_view::npos) throw;
  }
}

/// The best choice within all limits, exactly, with its proof. Throws what problem_of and require_feasible throw, and
/// `search_infeasible` where nothing was found within the solver's limits, which are its own by default.
inline allocation allocate(candidate_stats const& stats, search_limits const& asked,
                           std::optional<solver::limits> const& effort = std::nullopt) {
  require_feasible(stats, asked);
  (void)problem_of(stats);  // refuses scores that are not finite, by name
  auto const all = reachable(stats, asked);
  auto const limits = detail::distinct(stats, all);
  auto const own = limits.size() > 1 ? solver::budgets_limits : solver::limits{};
  auto const best = detail::solve_within(stats, asked, all, true, effort.value_or(own));
  allocation a{best.choice, 0, 0, best.score, best.bound, best.gap, best.optimal};
  a.unit = cost_unit(stats);
  a.asked = asked;
  a.budget = reachable(stats).maximum;
  bool const of_bytes = limits.front().kind == cost_kind::stored_bits && detail::all_counts(stats);
  if (limits.front().kind == cost_kind::counted_bits || of_bytes) a.budget = limits.front().budget;
  detail::set_costs(stats, a);
  a.target_bits = asked.target.given() ? asked.target.value() : bits_per_element(a.budget, weighted_elements(stats));
  return a;
}

}  // namespace mixbit
