// After the pick: a search scores each group with the others unquantized, and a mix is run with all of them. refine()
// measures around a chosen point, the other layers quantized as chosen, and repairs what that shows.
//
//   auto steps = ...;  steps.metric = [&](int i) { return loss_of_batch(i); };
//   auto const refined = mixbit::refine(s, s.choose(4.8), steps, [&] { return loss(); }, {.rounds = 4});
//   std::cout << to_text(refined);  auto plan = s.plan(refined.best);
//
// A round scores what each other format of one group changes (search::scores_around), solves exactly for the least
// predicted sum under the same budget, and has the user measure the model that this gives. Changes that are right alone
// may not add up, so it is solved again for at most half as many changed groups, and so on down to one; the best
// measured is where the next round begins. It ends when nothing better is predicted, or nothing predicted measures so.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <locale>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/active_recipes.hpp"
#include "mixbit/autoquant/limits.hpp"
#include "mixbit/autoquant/search.hpp"
#include "mixbit/autoquant/solver_budgets.hpp"
#include "mixbit/core/digest.hpp"

namespace mixbit {

struct refine_options {
  score_method method = score_method::degradation;  ///< or kl_div
  int rounds = 8;  ///< at most; each measures every candidate of every group once a scoring step
  solver::limits limits = solver::budgets_limits;
  /// Called with each choice that measures best so far, for a host that may not come to the end.
  std::function<void(allocation const&, double measured)> on_better = {};
};

/// A choice that was tried.
struct refine_attempt {
  int round = 0;          ///< from 1
  int changed = 0;        ///< groups that differ from the best before
  double predicted = 0;   ///< the sum of its scores around that, over all scoring steps; below 0
  double measured = 0;    ///< by the user's evaluation
  bool kept = false;      ///< the best measured so far, from here on
  bool proven = true;     ///< is no choice of so many changes predicted better? Else a limit stopped the solver
  allocation choice = {};
};

struct refined_choice {
  allocation best;            ///< `score` is its sum of the search's own scores, `bound` theirs still
  double before = 0;          ///< the first choice, measured
  double measured = 0;        ///< the best
  int rounds = 0;             ///< that scored
  std::string ended;          ///< why there was no further one
  std::vector<refine_attempt> attempts = {};
  std::vector<std::string> notes = {};  ///< what was left out
};

namespace detail {

inline int changes_between(std::vector<int> const& a, std::vector<int> const& b) {
  int n = 0;
  for (std::size_t g = 0; g < a.size(); ++g) n += a[g] != b[g];
  return n;
}

/// Another choice under the budget of `like`, with what the search says of it.
inline allocation with_choice(candidate_stats const& stats, allocation const& like, std::vector<int> choice) {
  allocation made = like;
  made.choice = std::move(choice);
  made.score = 0;
  for (std::size_t g = 0; g < stats.size(); ++g)
    made.score += stats[g].candidates[static_cast<std::size_t>(made.choice[g])].score;
  set_costs(stats, made);
  if (made.choice == like.choice) return like;
  made.gap = std::max(0.0, made.score - made.bound);
  made.optimal = false;
  return made;
}

/// The limits that a choice was made under: its budget first, then those of bytes and of time where it has them.
inline std::vector<reachable_limit> limits_on(candidate_stats const& stats, allocation const& chosen) {
  std::vector<reachable_limit> all{reach_of(stats, cost_kind::counted_bits, chosen.budget)};
  for (auto const& l : reachable(stats, chosen.asked))
    if (l.kind == cost_kind::time || (l.kind == cost_kind::stored_bits && !all_counts(stats))) all.push_back(l);
  return all;
}

/// Throws `search_input` for a choice that is over its budget or another limit of its own, or whose costs are not these
/// statistics'.
inline void require_within_budget(candidate_stats const& stats, allocation const& chosen) {
  require_choice(stats, chosen);
  if (chosen.unit != cost_unit(stats))
    fail(error_id::search_input, "the choice counts 1/", chosen.unit, " bits, and the search 1/", cost_unit(stats));
  allocation costs = chosen;
  set_costs(stats, costs);
  for (auto const& l : limits_on(stats, chosen)) {
    std::int64_t const cost = l.kind == cost_kind::counted_bits  ? costs.bits
                              : l.kind == cost_kind::stored_bits ? costs.stored_bits
                                                                 : costs.nanoseconds;
    if (cost > l.budget)
      fail(error_id::search_input, "the choice to refine costs ", cost, ", over its budget of ", l.budget,
           l.kind == cost_kind::time ? " nanoseconds" : "", "; refine what choose() gave");
  }
}

/// Of equal scores the solver takes the lower cost. A change that is predicted to change nothing is taken back where
/// the limits allow, so that what is measured is what was predicted.
inline void keep_neutral(candidate_stats const& around, allocation const& from,
                         std::vector<reachable_limit> const& limits, std::vector<int>& choice) {
  auto const cost = [&](std::size_t g, int k, reachable_limit const& l) {
    return cost_of(around[g], around[g].candidates[static_cast<std::size_t>(k)], l.kind, from.unit);
  };
  std::vector<std::int64_t> left;
  for (auto const& l : limits) {
    left.push_back(l.budget);
    for (std::size_t g = 0; g < around.size(); ++g) left.back() -= cost(g, choice[g], l);
  }
  for (std::size_t g = 0; g < around.size(); ++g) {
    if (choice[g] == from.choice[g] || around[g].candidates[static_cast<std::size_t>(choice[g])].score != 0) continue;
    auto after = left;
    for (std::size_t l = 0; l < limits.size(); ++l)
      after[l] += cost(g, choice[g], limits[l]) - cost(g, from.choice[g], limits[l]);
    if (std::any_of(after.begin(), after.end(), [](std::int64_t rest) { return rest < 0; })) continue;
    left = std::move(after);
    choice[g] = from.choice[g];
  }
}

/// The least predicted sum with at most `most` groups changed. Candidates whose score is not finite are left out.
inline solver::budgets_solution predicted_best(candidate_stats const& around, allocation const& from, int most,
                                               solver::limits const& effort) {
  auto const limits = limits_on(around, from);
  solver::budgets_problem problem{{}};
  for (auto const& l : limits) problem.budgets.push_back(l.budget);
  problem.budgets.push_back(most);
  std::vector<std::vector<int>> candidates(around.size());
  std::vector<std::int64_t> costs;
  for (std::size_t g = 0; g < around.size(); ++g) {
    for (std::size_t k = 0; k < around[g].candidates.size(); ++k) {
      auto const& c = around[g].candidates[k];
      bool const same = from.choice[g] == static_cast<int>(k);
      if (!same && !std::isfinite(c.score)) continue;
      costs.clear();
      for (auto const& l : limits) costs.push_back(cost_of(around[g], c, l.kind, from.unit));
      costs.push_back(!same);
      problem.add_candidate(around[g].is_open() ? c.score : 0, costs);
      candidates[g].push_back(static_cast<int>(k));
    }
    problem.end_group();
  }
  solver::budgets_solution best;
  try {
    best = solver::solve(problem, effort);
  } catch (error const& e) {  // a limit was reached before any choice was found; staying is one
    if (e.id() != error_id::search_infeasible) throw;
    best.choice = from.choice;
    return best;
  }
  for (std::size_t g = 0; g < around.size(); ++g)
    best.choice[g] = candidates[g][static_cast<std::size_t>(best.choice[g])];
  keep_neutral(around, from, limits, best.choice);
  return best;
}

/// What a refinement's rounds follow from beside the search: the name of its part of a checkpoint. Another budget or
/// another way to count it refines anew, beside the first.
inline std::string refinement_name(candidate_stats const& stats, allocation const& chosen, search_steps const& steps,
                                   refine_options const& options) {
  content_digest made;
  made.add(concat("steps ", steps.scoring, " unit ", chosen.unit, " states ", options.limits.max_states, " seconds ",
                  options.limits.seconds));
  for (auto const& l : limits_on(stats, chosen)) made.add(concat("limit ", static_cast<int>(l.kind), ' ', l.budget));
  for (std::size_t g = 0; g < stats.size(); ++g) {
    made.add(concat("group ", chosen.choice[g], ' ', stats[g].weight.numerator, '/', stats[g].weight.denominator));
    for (auto const& c : stats[g].candidates) made.add(concat(c.bits, ' ', c.nanoseconds.value_or(0)));
  }
  return concat("refine by ", name_of(options.method), ' ', made.text());
}

template <backend B>
class refinement {
 public:
  refinement(search<B>& s, search_steps const& steps, std::function<double()> const& evaluate,
             refine_options const& options)
      : search_{s}, steps_{steps}, evaluate_{evaluate}, options_{options} {}

  refined_choice run(allocation const& chosen) {
    take_up(chosen);
    active_recipes<B> change{search_.shared_sites()};
    made_.best = chosen;
    made_.before = made_.measured = measure(chosen);
    if (!std::isfinite(made_.before))
      fail(error_id::search_input, "the choice to refine measures ", made_.before, "; nothing compares with that");
    tried_.insert(chosen.choice);
    made_.ended = "the round limit of " + std::to_string(options_.rounds) + " was reached";
    while (made_.rounds < options_.rounds && improve()) {}
    search_.apply(made_.best);
    change.commit();
    return std::move(made_);
  }

 private:
  void take_up(allocation const& chosen) {
    // what is kept is matched by its order, and a clock may have another choice measured
    checkpoint_ = options_.limits.seconds > 0 ? nullptr : search_.options().checkpoint.get();
    if (checkpoint_ == nullptr) return;
    name_ = refinement_name(search_.stats(), chosen, steps_, options_);
    auto kept = checkpoint_->load_part(name_ + " measured");
    if (!kept) return;
    if (kept->values.size() != static_cast<std::size_t>(kept->steps))
      fail(error_id::file_content, "the measurements that were kept of the refinement are ", kept->values.size(),
           " for ", kept->steps);
    measured_ = std::move(*kept);
  }

  /// The measurements come in the same order in every run, so that the first ones may be those that were kept.
  double measure(allocation const& choice) {
    if (taken_ < measured_.values.size()) return measured_.values[taken_++];
    search_.apply(choice);
    ++taken_;
    ++measured_.steps;
    measured_.values.push_back(evaluate_());
    measured_.counts = {measured_.steps};
    bool const counts = taken_ > 1 || std::isfinite(measured_.values.back());  // else the refinement ends here
    if (checkpoint_ != nullptr && counts) checkpoint_->save_part(name_ + " measured", measured_);
    return measured_.values.back();
  }

  candidate_stats scores_around(allocation const& from) {
    std::string const phase = concat("refine round ", made_.rounds);
    if (checkpoint_ == nullptr) return search_.scores_around(from, steps_, options_.method, nullptr, phase);
    part_checkpoint part{*checkpoint_, name_ + concat(" round ", made_.rounds)};
    return search_.scores_around(from, steps_, options_.method, &part, phase);
  }

  /// One round; false where it found nothing better.
  bool improve() {
    ++made_.rounds;
    allocation const from = made_.best;
    auto const around = scores_around(from);
    note_left_out(around);
    bool any = false, better = false;
    for (int most = static_cast<int>(around.size()); most > 0;) {
      auto const solved = predicted_best(around, from, most, options_.limits);
      int const changed = changes_between(solved.choice, from.choice);
      if (changed == 0 || !(solved.score < 0)) break;
      any = true;
      better = attempt(from, solved, changed) || better;
      most = changed > 2 ? std::max(2, changed / 2) : changed - 1;
    }
    if (!better)
      made_.ended = any ? "nothing that was predicted better measured better" : "nothing better is predicted";
    return better;
  }

  bool attempt(allocation const& from, solver::budgets_solution const& solved, int changed) {
    if (!tried_.insert(solved.choice).second) return false;
    refine_attempt a{made_.rounds, changed, solved.score, 0, false, solved.optimal,
                     with_choice(search_.stats(), from, solved.choice)};
    a.measured = measure(a.choice);
    a.kept = a.measured < made_.measured;
    if (a.kept) {
      made_.best = a.choice;
      made_.measured = a.measured;
      if (options_.on_better) options_.on_better(a.choice, a.measured);
    }
    made_.attempts.push_back(std::move(a));
    return made_.attempts.back().kept;
  }

  void note_left_out(candidate_stats const& around) {
    for (auto const& g : around)
      for (auto const& c : g.candidates)
        if (g.is_open() && !std::isfinite(c.score))
          made_.notes.push_back(concat("refine: round ", made_.rounds, ": ", g.name, ": ", c.format, " scores ",
                                       c.score, " around the choice and was left out"));
  }

  search<B>& search_;
  search_steps const& steps_;
  std::function<double()> const& evaluate_;
  refine_options const& options_;
  refined_choice made_;
  std::set<std::vector<int>> tried_;
  search_checkpoint* checkpoint_ = nullptr;  ///< the search's; null: nothing is kept
  std::string name_;
  kept_scores measured_;
  std::size_t taken_ = 0;  ///< of the measurements
};

}  // namespace detail

/// Refines a choice that the search has made, and leaves the model running the best that was measured: never worse than
/// the choice itself. `evaluate` measures the model as it is; lower is better, and what is not a number never is.
/// `steps` has the scoring steps and, by method, `metric` or `logits` (with `logits_from`, where the host has it).
/// Budget and candidates are the search's, and so is what it scored: stats() stay. What its checkpoint holds of this
/// refinement - scores by step, measurements - is not run again; `evaluate` then has to measure the same in every run.
///
/// Throws `search_input` for fewer rounds than one, a choice over its budget or of another search, one that does not
/// measure a finite number, and for the method gradient; `search_no_data` without `evaluate`, or what the method needs;
/// what search::apply, the solver and the callbacks throw. The model is then as it was.
template <backend B>
refined_choice refine(search<B>& s, allocation const& chosen, search_steps const& steps,
                      std::function<double()> const& evaluate, refine_options const& options = {}) {
  if (options.rounds < 1)
    fail(error_id::search_input, "refine_options.rounds is ", options.rounds, "; it is 1 or more");
  if (!evaluate) fail(error_id::search_no_data, "refine needs a function that evaluates the model");
  detail::require_within_budget(s.stats(), chosen);
  s.require_scores_around(steps, options.method);
  return detail::refinement<B>{s, steps, evaluate, options}.run(chosen);
}

/// Sets what `rounds` of refinement may take after a search of these statistics, where evaluating the model once takes
/// so many forwards. A round measures what its choice gives, and each time at most half as many changed groups.
inline void add_refinement(resolved_search& r, int rounds, int scoring, score_method method,
                           std::int64_t evaluation_forwards) {
  std::int64_t each = method == score_method::kl_div ? 2 : 1, tries = 0;  // without quantization, and as chosen
  std::size_t open = 0;
  for (auto const& g : r.groups) {
    if (!g.is_open()) continue;
    ++open;
    each += static_cast<std::int64_t>(g.candidates.size()) - 1;
  }
  for (std::size_t most = open; most > 0; most = most > 2 ? std::max<std::size_t>(2, most / 2) : most - 1) ++tries;
  r.refinement = {rounds, each * rounds * scoring, 1 + rounds * tries, evaluation_forwards};
}

/// A line for each choice that was tried, and one for how it ended.
inline std::string to_text(refined_choice const& r) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out.precision(9);
  for (auto const& a : r.attempts)
    out << "refine: round " << a.round << ": " << a.changed << " of " << a.choice.choice.size()
        << " groups changed, predicted " << a.predicted << ", measured " << a.measured << (a.kept ? ": kept\n" : "\n");
  out << "refine: " << r.before << " -> " << r.measured << " in " << r.rounds
      << (r.rounds == 1 ? " round; " : " rounds; ") << r.ended << '\n';
  for (auto const& note : r.notes) out << note << '\n';
  return out.str();
}

}  // namespace mixbit
