// The plan of a search as it stands before any forward, to look at: every rule with what it matched, every group with
// its candidates and costs, what can be reached, and how many forwards and how much memory it will take.
//
//   mixbit::search<B> s{m, options};
//   std::cout << to_text(s.resolved(512, 128));      // to_json() in autoquant/json.hpp
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/limits.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/core/text_stream.hpp"

namespace mixbit {

/// A rule, pattern or format, and the modules that it decides about.
struct matched_rule {
  std::string kind;  ///< "grouping rule"
  std::string rule;  ///< its label
  std::vector<std::string> modules;
};

/// How a format is calibrated. Formats that calibrate by max share their steps.
struct planned_calibration {
  std::string format, algorithm;
  int steps = 0;
  int runs = 0;        ///< how often its algorithm runs them
  bool exact = true;   ///< false: at least so often
};

/// What refine() may take beside it.
struct planned_refinement {
  int rounds = 0;                         ///< at most; it ends where nothing better is found
  std::int64_t scoring_forwards = 0;      ///< of all rounds
  std::int64_t evaluations = 0;           ///< at most: of the choice, and of those that a round tries
  std::int64_t evaluation_forwards = 0;   ///< of each
};

struct resolved_search {
  std::vector<matched_rule> rules;
  candidate_stats groups;  ///< candidates and costs; no scores yet
  std::vector<planned_calibration> calibrations;
  std::string method, cost;
  bool monotone = false;  ///< are scores made so before they choose?
  double target = 0, least = 0, most = 0;  ///< bits an element; a target of 0: none was asked for
  search_limits asked = {};
  std::vector<reachable_limit> limits = {};  ///< each of them, and what can be reached
  std::int64_t calibration_forwards = 0;   ///< the shared pass of max, and each algorithm's runs
  bool calibration_is_exact = true;        ///< false: at least so many
  std::int64_t scoring_forwards = 0, scoring_backwards = 0;
  std::int64_t kept_bytes = 0;             ///< what recipes and sums hold during the search
  std::int64_t scratch_bytes = 0, scratch_bytes_a_token = 0;  ///< of the layer that scoring takes most for
  /// Of output differences, where a host keeps them: of all layers for each token of a step, and their limit.
  std::int64_t difference_bytes_a_token = 0;
  std::optional<std::int64_t> difference_limit = std::nullopt;
  std::vector<std::string> notes;
  std::optional<planned_refinement> refinement = std::nullopt;  ///< refine.hpp: add_refinement()

  /// How long it takes where a forward of a step takes so long, and a backward; without what algorithms and solver do
  /// beside them. At least so long where calibration_is_exact is false, at most where it refines.
  double seconds(double a_forward, double a_backward) const {
    double forwards = static_cast<double>(calibration_forwards + scoring_forwards);
    if (refinement)
      forwards += static_cast<double>(refinement->scoring_forwards) +
                  static_cast<double>(refinement->evaluations) * static_cast<double>(refinement->evaluation_forwards);
    return forwards * a_forward + static_cast<double>(scoring_backwards) * a_backward;
  }
};

namespace detail {

inline std::string first_names(std::vector<std::string> const& names, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > most) text += ", ... (" + std::to_string(names.size()) + " in all)";
  return names.empty() ? "nothing" : text;
}

inline void write_groups(text_stream& out, candidate_stats const& groups, std::size_t most) {
  out << "groups: " << groups.size() << '\n';
  for (auto const& g : groups) {
    out << "  " << g.name << ": " << g.elements << " elements, " << rule_of(g);
    if (!(g.weight == cost_weight{}))
      out << ", counts for " << g.weight.numerator << '/' << g.weight.denominator;
    out << "\n    of " << first_names(g.modules, most) << '\n';
    for (auto const& c : g.candidates)
      out << "    " << c.format << ": " << c.bits << " bits, " << bits_per_element(c.bits, g.elements) << " an element"
          << (c.nanoseconds ? ", " + shown_microseconds(*c.nanoseconds) + " microseconds" : "") << '\n';
  }
}

}  // namespace detail

namespace detail {

inline void write_limits(text_stream& out, resolved_search const& r) {
  out << "cost model: " << r.cost << "; ";
  if (r.asked.target.given()) out << "target " << r.target << " bits an element, of ";
  out << r.least << " to " << r.most << (r.asked.target.given() ? "" : " bits an element") << " that can be reached\n";
  for (auto const& l : r.limits)
    if (l.kind != cost_kind::counted_bits)
      out << "limit: a " << limit_name(l, r.asked) << "; " << limit_range(r.groups, l) << '\n';
}

/// Which of the two ways of gradient scores a host goes that can go both.
inline void write_storage(text_stream& out, resolved_search const& r) {
  std::int64_t const each = r.difference_bytes_a_token;
  if (each == 0) return;
  out << "; output differences, where the host keeps them, " << each << " for each token of a step: ";
  if (!r.difference_limit) out << "without a limit";
  else if (*r.difference_limit == 0) out << "recomputed in the backward";
  else if (*r.difference_limit < each) out << "recomputed in the backward, over the limit of " << *r.difference_limit;
  else
    out << "kept in steps of up to " << *r.difference_limit / each << " tokens, and of longer ones as many as the limit"
        << " of " << *r.difference_limit << " holds, the others recomputed";
}

}  // namespace detail

/// All of it as text, a line for each rule and for each candidate of each group; at most `most_names` modules of each.
inline std::string to_text(resolved_search const& r,
                           std::size_t most_names = std::numeric_limits<std::size_t>::max()) {
  detail::text_stream out;
  out << "rules:\n";
  for (auto const& rule : r.rules)
    out << "  " << rule.kind << " '" << rule.rule << "': " << detail::first_names(rule.modules, most_names) << '\n';
  detail::write_groups(out, r.groups, most_names);
  detail::write_limits(out, r);
  out << "calibration:\n";
  for (auto const& c : r.calibrations)
    out << "  " << c.format << ": " << c.algorithm << ", " << c.steps << " steps, run "
        << (c.exact ? "" : "at least ") << c.runs << (c.runs == 1 ? " time\n" : " times\n");
  out << "forwards: " << (r.calibration_is_exact ? "" : "at least ") << r.calibration_forwards << " to calibrate, "
      << r.scoring_forwards << " to score by " << r.method;
  if (r.monotone) out << ", monotone";
  if (r.scoring_backwards != 0) out << " with as many backwards";
  if (r.refinement)
    out << "; then at most " << r.refinement->scoring_forwards << " in " << r.refinement->rounds
        << " round(s) of refinement and " << r.refinement->evaluations * r.refinement->evaluation_forwards
        << " to measure " << r.refinement->evaluations << " choices";
  out << "\nmemory beside the host's: " << r.kept_bytes << " bytes in recipes and sums; scratch for the largest layer "
      << r.scratch_bytes << " bytes and " << r.scratch_bytes_a_token << " for each token of a step";
  detail::write_storage(out, r);
  if (r.method == "kl_div") out << "; logits of a step, twice: 8 bytes a token and outcome";
  out << '\n';
  for (auto const& note : r.notes) out << "note: " << note << '\n';
  return out.take();
}

}  // namespace mixbit
