// The plan of a search as it stands before any forward, to look at: every rule with what it matched, every group with
// its candidates and costs, what can be reached, and how many forwards and how much memory it will take.
//
//   mixbit::search<B> s{m, options};
//   std::cout << to_text(s.resolved(512, 128));
#pragma once

#include <algorithm>
#include <cstdint>
#include <locale>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/kl_scores.hpp"
#include "mixbit/autoquant/limits.hpp"
#include "mixbit/autoquant/recipe_calibration.hpp"
#include "mixbit/autoquant/search_plan.hpp"

namespace mixbit {

/// How a format is calibrated. Formats that calibrate by max share their steps.
struct planned_calibration {
  std::string format, algorithm;
  int steps = 0;
  int runs = 0;        ///< how often its algorithm runs them
  bool exact = true;   ///< false: at least so often
};

struct resolved_search {
  std::vector<matched_rule> rules;
  candidate_stats groups;  ///< candidates and costs; no scores yet
  std::vector<planned_calibration> calibrations;
  std::string method, cost;
  double target = 0, least = 0, most = 0;  ///< bits an element; a target of 0: none was asked for
  search_limits asked = {};
  std::vector<reachable_limit> limits = {};  ///< each of them, and what can be reached
  std::int64_t calibration_forwards = 0;   ///< the shared pass of max, and each algorithm's runs
  bool calibration_is_exact = true;        ///< false: at least so many
  std::int64_t scoring_forwards = 0, scoring_backwards = 0;
  std::int64_t kept_bytes = 0;             ///< what recipes and sums hold during the search
  std::int64_t scratch_bytes = 0, scratch_bytes_a_token = 0;  ///< of the layer that scoring takes most for
  std::vector<std::string> notes;
};

namespace detail {

/// How often an algorithm of the library runs its steps: in any case, and where something but a weight is calibrated.
struct algorithm_runs {
  std::string_view method;
  int always, with_data;
};
inline constexpr algorithm_runs known_runs[] = {
    {"max", 0, 1},         {"mse", 0, 1},      {"nvfp4_act_headroom", 0, 1}, {"smoothquant", 1, 0}, {"awq_lite", 2, 0},
    {"awq_clip", 1, 0},    {"awq_full", 3, 0}, {"local_hessian", 1, 1},      {"gptq", 1, 1},        {"svdquant", 2, 1},
};

inline planned_calibration planned(quantize_config const& format, int steps, bool needs_data) {
  planned_calibration p{format.name, "", calibration_steps(format, steps), 0, true};
  for (auto const& step : format.algorithm.steps()) {
    p.algorithm += (p.algorithm.empty() ? "" : ", ") + step.method;
    auto const* const known = std::find_if(std::begin(known_runs), std::end(known_runs),
                                           [&](auto const& r) { return r.method == step.method; });
    bool const counted = known != std::end(known_runs) && !step.flag("layerwise");
    p.runs += counted ? known->always + (needs_data ? known->with_data : 0) : 1;
    p.exact = p.exact && counted;
  }
  if (p.algorithm.empty()) {
    p.algorithm = "max";
    p.runs = needs_data ? 1 : 0;
  }
  return p;
}

/// Bytes that a recipe keeps for a layer: amaxes, and what its algorithm makes: scales of both operands, a branch, and
/// the weight where it is rewritten.
template <backend B>
std::int64_t kept_bytes(recipe_quantizers<B>& recipe, quantize_config const& format, site_kind kind,
                        const_tensor_ref weight) {
  std::int64_t bytes = 0;
  for (auto const& q : recipe.quantizers)
    for (auto const& m : q.members())
      bytes += 4 * (q.role() == quantizer_role::weight ? m.grouping(weight).group_count() : 1);
  for (auto const& step : format.algorithm.steps())
    bytes += step.method == "gptq" ? 4 * weight.size() : step.method == "svdquant" ? 8 * weight.size() : 0;
  auto const beside = side_storage_of(format.algorithm, recipe, kind, weight);
  return bytes + 2 * beside.pre_quant_scale + beside.branch;
}

/// What scoring one layer borrows. By gradient the quantized operands of each recipe, the output, and what each recipe
/// makes differ of it; of one group at a time the operands of one recipe.
template <backend B>
struct scored_layer {
  const_tensor_ref weight;
  bool by_gradient;
  std::int64_t recipes = 0, inputs = 0;  ///< that quantize; whose input is quantized too

  void add(recipe_quantizers<B>& recipe) {
    ++recipes;
    inputs += recipe.find(quantizer_role::input) != nullptr;
  }
  std::int64_t bytes() const { return (by_gradient ? recipes : 1) * weight.size() * element(); }
  std::int64_t bytes_a_token() const {
    std::int64_t const out = weight.rank == 0 ? 1 : std::max<std::int64_t>(weight.shape[0], 1);
    std::int64_t const in = weight.size() / out, copies = by_gradient ? inputs : std::min<std::int64_t>(inputs, 1);
    return (copies * in + (by_gradient ? (recipes + 1) * out : 0)) * element();
  }

 private:
  std::int64_t element() const { return static_cast<std::int64_t>(size_of(weight.type)); }
};

/// Adds what the layers take, and returns by format whether it calibrates something other than weights.
template <backend B>
std::vector<bool> add_layers(resolved_search& r, model<B>& m, search_plan const& plan, bool by_gradient,
                             std::vector<module_ref<B>> const& searched, int scoring) {
  std::vector<bool> needs_data(plan.formats.size());
  for (std::size_t g = 0; g < plan.groups.size(); ++g)
    for (std::size_t const i : plan.groups[g].members) {
      // nothing of a cache is lent
      scored_layer<B> layer{is_cache(searched[i]) ? const_tensor_ref{} : canonical_weight(searched[i]), by_gradient};
      for (auto const& c : plan.stats[g].candidates) {
        if (c.recipe < 0) continue;
        auto const f = static_cast<std::size_t>(c.recipe);
        auto recipe = search_recipe(m, plan.formats[f].config, searched[i]);
        r.kept_bytes += kept_bytes(recipe, plan.formats[f].config, searched[i].layout.kind, layer.weight);
        for (auto const& q : recipe.quantizers)
          needs_data[f] = needs_data[f] || (q.role() != quantizer_role::weight && q.needs_calibration());
        layer.add(recipe);
      }
      if (!plan.stats[g].is_open()) continue;
      if (by_gradient) r.kept_bytes += 8 * scoring * layer.recipes;
      if (is_cache(searched[i])) continue;
      r.scratch_bytes = std::max(r.scratch_bytes, layer.bytes());
      r.scratch_bytes_a_token = std::max(r.scratch_bytes_a_token, layer.bytes_a_token());
    }
  return needs_data;
}

inline void add_calibrations(resolved_search& r, search_plan const& plan, std::vector<bool> const& needs_data,
                             int steps) {
  bool shared = false;  // has the one pass of all formats by max been counted?
  for (std::size_t f = 0; f < plan.formats.size(); ++f) {
    auto p = planned(plan.formats[f].config, steps, needs_data[f]);
    bool const by_max = is_max(plan.formats[f].config.algorithm);
    if (!by_max || (p.runs > 0 && !shared)) r.calibration_forwards += std::int64_t{p.steps} * p.runs;
    shared = shared || (by_max && p.runs > 0);
    r.calibration_is_exact = r.calibration_is_exact && p.exact;
    r.calibrations.push_back(std::move(p));
  }
}

}  // namespace detail

/// Throws nothing that planning has not thrown.
template <backend B>
resolved_search resolve_search(model<B>& m, search_plan const& plan, search_options const& options,
                               std::vector<module_ref<B>> const& searched, int calibration, int scoring) {
  resolved_search r;
  r.rules = plan.rules;
  r.groups = plan.stats;
  r.method = name_of(options.method);
  r.cost = plan.cost_name;
  r.target = options.target.value();
  r.asked = limits_of(options);
  r.limits = reachable(plan.stats, r.asked);
  r.notes = plan.notes;
  auto const range = reachable(plan.stats);
  std::int64_t const elements = weighted_elements(plan.stats);
  r.least = bits_per_element(range.minimum, elements);
  r.most = bits_per_element(range.maximum, elements);
  bool const backward = options.method == score_method::gradient;
  detail::add_calibrations(r, plan, detail::add_layers(r, m, plan, backward, searched, scoring), calibration);
  if (std::none_of(r.groups.begin(), r.groups.end(), [](auto const& g) { return g.is_open(); })) return r;
  r.scoring_forwards = scoring * (backward ? 1 : forwards_a_step(plan.stats));
  r.scoring_backwards = backward ? scoring : 0;
  return r;
}

namespace detail {

inline std::string first_names(std::vector<std::string> const& names, std::size_t most = 4) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > most) text += ", ... (" + std::to_string(names.size()) + " in all)";
  return names.empty() ? "nothing" : text;
}

inline void write_groups(std::ostream& out, candidate_stats const& groups) {
  out << "groups: " << groups.size() << '\n';
  for (auto const& g : groups) {
    out << "  " << g.name << ": " << g.elements << " elements, " << rule_of(g);
    if (!(g.weight == cost_weight{}))
      out << ", counts for " << g.weight.numerator << '/' << g.weight.denominator;
    out << "\n    of " << first_names(g.modules, 8) << '\n';
    for (auto const& c : g.candidates)
      out << "    " << c.format << ": " << c.bits << " bits, " << bits_per_element(c.bits, g.elements) << " an element"
          << (c.nanoseconds ? ", " + shown_microseconds(*c.nanoseconds) + " microseconds" : "") << '\n';
  }
}

}  // namespace detail

namespace detail {

inline void write_limits(std::ostream& out, resolved_search const& r) {
  out << "cost model: " << r.cost << "; ";
  if (r.asked.target.given()) out << "target " << r.target << " bits an element, of ";
  out << r.least << " to " << r.most << (r.asked.target.given() ? "" : " bits an element") << " that can be reached\n";
  for (auto const& l : r.limits)
    if (l.kind != cost_kind::counted_bits)
      out << "limit: a " << limit_name(l, r.asked) << "; " << limit_range(r.groups, l) << '\n';
}

}  // namespace detail

/// All of it as text, a line for each rule and for each candidate of each group.
inline std::string to_text(resolved_search const& r) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << "rules:\n";
  for (auto const& rule : r.rules)
    out << "  " << rule.kind << " '" << rule.rule << "': " << detail::first_names(rule.modules) << '\n';
  detail::write_groups(out, r.groups);
  detail::write_limits(out, r);
  out << "calibration:\n";
  for (auto const& c : r.calibrations)
    out << "  " << c.format << ": " << c.algorithm << ", " << c.steps << " steps, run "
        << (c.exact ? "" : "at least ") << c.runs << (c.runs == 1 ? " time\n" : " times\n");
  out << "forwards: " << (r.calibration_is_exact ? "" : "at least ") << r.calibration_forwards << " to calibrate, "
      << r.scoring_forwards << " to score by " << r.method;
  if (r.scoring_backwards != 0) out << " with as many backwards";
  out << "\nmemory beside the host's: " << r.kept_bytes << " bytes in recipes and sums; scratch for the largest layer "
      << r.scratch_bytes << " bytes and " << r.scratch_bytes_a_token << " for each token of a step";
  if (r.method == "kl_div") out << "; logits of a step, twice: 8 bytes a token and outcome";
  out << '\n';
  for (auto const& note : r.notes) out << "note: " << note << '\n';
  return out.str();
}

}  // namespace mixbit
