// Experts of a mixture that a router kept the calibration from: found, and completed from their siblings.
//
//   options.unseen = unseen_quantizers::take_from(expert_siblings());          // an expert without any token
//   quantize(m, config, loop);
//   for (auto const& few : calibration_tokens(m).below(64)) ...                // who saw fewer than 64
//   complete_experts(m, {.least_tokens = 64});                                 // they get their siblings' amaxes too
//
// Siblings are the same projection of the other experts of a layer. Which layers are experts the grouping rules of a
// search say: those with a number behind the key ("(mlp.experts).#.{gate_proj,up_proj,down_proj}").
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/grouping.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/siblings.hpp"

namespace mixbit {

/// "layers.0.mlp.experts.3.up_proj" -> "layers.0.mlp.experts.#.up_proj": the name with # for each number behind the
/// group's key, under the first rule that gives one. A layer whose name has no number there is no expert.
inline sibling_rule expert_siblings(std::vector<grouping_rule> rules = default_grouping_rules()) {
  return [rules = std::move(rules)](std::string_view layer) -> std::optional<std::string> {
    for (auto const& rule : rules) {
      auto key = rule.key(layer);
      if (!key) continue;
      std::size_t const kept = layer.starts_with(*key) ? key->size() : 0;  // a callable's key may be any text
      std::string pattern;
      bool is_expert = false;
      for (auto const segment : detail::split(layer.substr(kept), '.')) {
        bool const number = detail::is_number(segment);
        is_expert = is_expert || number;
        pattern += (pattern.empty() ? "" : ".") + (number ? std::string{"#"} : std::string{segment});
      }
      if (!is_expert) return std::nullopt;
      return *key + (kept == 0 ? ": " : ".") + pattern;
    }
    return std::nullopt;
  };
}

struct expert_options {
  std::uint64_t least_tokens = 1;  ///< an expert that saw fewer is completed
  bool share_weight_amax = false;  ///< do all experts' weights get the largest amax, as one kernel for all would need?
  sibling_rule siblings = expert_siblings();
};

/// One quantizer that complete_experts has changed.
struct completed_quantizer {
  std::string name;
  std::uint64_t tokens = 0;   ///< that its expert saw
  std::size_t siblings = 0;   ///< whose amaxes it has now the largest of
};

namespace detail {

/// What complete_experts is about to do.
template <backend B>
struct expert_changes {
  std::vector<amax_to_set<B>> amaxes;
  std::vector<completed_quantizer> report;

  void add(B& device, sequential_quantizer<B>& q, std::vector<sequential_quantizer<B> const*> const& from,
           std::uint64_t tokens) {
    for (auto& found : largest_of<B>(device, q, from)) amaxes.push_back(std::move(found));
    report.push_back({q.path(), tokens, from.size()});
  }
};

/// Of one expert that saw too few tokens: its quantizers of data.
template <backend B>
void complete_data(B& device, site<B>& s, std::vector<std::shared_ptr<site<B>>> const& family, std::uint64_t least,
                   expert_changes<B>& changes) {
  auto const enough = [least](recipe_quantizers<B> const& r) { return !r.tokens || *r.tokens >= least; };
  auto& recipe = s.quantizers();
  if (enough(recipe)) return;
  for (auto& q : recipe.quantizers) {
    if (!q.enabled() || q.role() == quantizer_role::weight || !q.needs_calibration()) continue;
    auto const from = siblings_of<B>(family, q, [&](site<B>& other) {
      return enough(other.quantizers()) ? &other.quantizers() : nullptr;
    });
    if (from.empty())
      fail(error_id::state_not_calibrated, q.path(), ": saw ", *recipe.tokens, " token(s), and none of its ",
           family.size() - 1, " sibling(s) saw the ", least, " asked for");
    changes.add(device, q, from, *recipe.tokens);
  }
}

/// Of one expert: its weight quantizer gets the largest amax of all. Throws `state_folded` and `config_conflict` for a
/// weight that has been fixed under another.
template <backend B>
void share_weight(B& device, site<B>& s, std::vector<std::shared_ptr<site<B>>> const& family,
                  expert_changes<B>& changes) {
  if (s.folded) fail(error_id::state_folded, s.name, ": fold_weight has fixed this weight under its own amax");
  s.refuse_packed("under its own amax");
  auto* const q = s.quantizers().find(quantizer_role::weight);
  if (q == nullptr || !q->needs_calibration()) return;
  q->refuse_learning("complete_experts");
  if (s.rewritten(s.active))
    fail(error_id::config_conflict, q->path(), ": calibration has rewritten this weight for its own amax (as GPTQ ",
         "does), so that it cannot share its siblings'");
  auto const from = siblings_of<B>(family, *q, [](site<B>& other) { return &other.quantizers(); });
  if (from.size() + 1 != family.size())
    fail(error_id::config_conflict, q->path(), ": ", family.size() - 1 - from.size(), " of its ", family.size() - 1,
         " sibling(s) have no calibrated weight quantizer, so that all cannot share one amax");
  changes.add(device, *q, from, s.quantizers().tokens.value_or(0));
}

template <backend B>
std::vector<std::shared_ptr<site<B>>> quantized_sites(model<B>& m) {
  std::vector<std::shared_ptr<site<B>>> sites;
  for (auto const& module : m.modules()) {
    auto const& s = module.slots->shared_site();
    refuse_inside_pass(*s, "complete_experts");
    if (!s->recipes.empty()) sites.push_back(s);
  }
  return sites;
}

}  // namespace detail

/// Gives the experts that calibration showed fewer than `least_tokens` the largest amaxes of siblings that saw enough
/// (and of their own), for each static quantizer of data; on request all weights of siblings share their largest. The
/// active recipes are changed, and what was changed is returned. Throws `config_no_match` where no layer is an expert,
/// `state_not_calibrated` naming an expert none of whose siblings saw enough, and `config_conflict`, `tensor_shape`,
/// `state_folded` or `state_nested` naming one whose amaxes cannot be taken from another; nothing is changed then.
template <backend B>
std::vector<completed_quantizer> complete_experts(model<B>& m, expert_options const& options = {}) {
  if (!options.siblings)
    fail(error_id::config_value, "complete_experts: the rule that says which layers are siblings is empty");
  auto const families = detail::families_of(detail::quantized_sites(m), options.siblings);
  if (families.empty())
    fail(error_id::config_no_match, "complete_experts: no quantized layer of the model is an expert by its rules");
  detail::expert_changes<B> changes;
  for (auto const& [key, family] : families)
    for (auto const& s : family) {
      detail::complete_data(m.device(), *s, family, options.least_tokens, changes);
      if (options.share_weight_amax) detail::share_weight(m.device(), *s, family, changes);
    }
  for (auto const& change : changes.amaxes) change.set(m.device());
  for (auto const& [key, family] : families)
    for (auto const& s : family) {
      s->cache.valid = false;
      s->refresh();
    }
  return std::move(changes.report);
}

}  // namespace mixbit
