// The plan of a search as it stands before any forward: what resolved.hpp shows, from a search's plan.
//
//   mixbit::search<B> s{m, options};
//   std::cout << to_text(s.resolved(512, 128));
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/kl_scores.hpp"
#include "mixbit/autoquant/recipe_calibration.hpp"
#include "mixbit/autoquant/resolved.hpp"
#include "mixbit/autoquant/search_plan.hpp"

namespace mixbit {

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

  std::int64_t difference_bytes_a_token() const {
    return recipes * (weight.rank == 0 ? 1 : weight.shape[0]) * element();
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
      if (by_gradient && plan.score_points[i].empty()) r.difference_bytes_a_token += layer.difference_bytes_a_token();
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
  r.monotone = options.monotone_scores;
  r.target = options.target.value();
  r.asked = limits_of(options);
  r.limits = reachable(plan.stats, r.asked);
  r.notes = plan.notes;
  if (options.method == score_method::gradient) r.difference_limit = options.difference_bytes;
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

}  // namespace mixbit
