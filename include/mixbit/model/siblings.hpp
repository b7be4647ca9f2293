// Amaxes taken from siblings: what an expert that too few tokens reached gets from the other experts of its layer.
//
// Siblings are layers to which a rule gives the same key; autoquant/experts.hpp has one for experts. An amax is the
// largest of the siblings', group by group, and never less than what the layer's own data has shown. Weights need none
// of this: they are calibrated from the walk, tokens or not.
//
// Source: ModelOpt's sync_moe_expert_amax, which gives *all* experts of a layer the largest amax. Here only those get
// it that lack tokens; the others keep the finer scale that their own data allows.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/quantizer/largest_amax.hpp"
#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// The key that a layer shares with its siblings; none for a layer without.
using sibling_rule = std::function<std::optional<std::string>(std::string_view layer)>;

namespace detail {

/// The sites of each key, in the order of the walk.
template <backend B>
std::map<std::string, std::vector<std::shared_ptr<site<B>>>> families_of(
    std::vector<std::shared_ptr<site<B>>> const& sites, sibling_rule const& rule) {
  std::map<std::string, std::vector<std::shared_ptr<site<B>>>> families;
  for (auto const& s : sites)
    if (auto key = rule(s->name)) families[*key].push_back(s);
  return families;
}

/// An amax that is found, and not set yet.
template <backend B>
struct amax_to_set {
  tensor_quantizer<B>* member;
  partition groups;
  std::vector<float> amax;
  std::optional<float> whole = {};  ///< the tensor's own, where one of those it is of holds its own beside its blocks'

  /// Throws `format_amax` for one that the member's format cannot hold.
  void check() const { member->require_amax(amax); }
  void set(B& device) const {
    member->set_amax(device, groups, amax);
    if (whole) member->hold_tensor_amax(device, *whole);
  }
};

/// Why what `from` has seen says nothing of what `to` will see; empty where it does.
template <backend B>
std::string unlikeness(B& device, sequential_quantizer<B> const& to, sequential_quantizer<B> const& from) {
  auto const which = [&](char const* how) {
    return concat(to.path(), ": its amax cannot be taken from ", from.path(), ", which ", how);
  };
  if (to.pre_quant_scale(device) != from.pre_quant_scale(device))
    return which("scales its channels by another pre_quant_scale");
  if (to.members().size() != from.members().size()) return which("is another sequence of quantizers");
  for (std::size_t i = 0; i < to.members().size(); ++i) {
    auto const &mine = to.members()[i], &other = from.members()[i];
    if (!mine.needs_calibration() && !other.needs_calibration()) continue;
    if (!mine.numerics().same_calibration(other.numerics())) return which("is calibrated otherwise");
    if (auto const* const bias = mine.bias(); bias != nullptr && bias->is_static())
      return which("has a static bias of its own data, as has this one");
  }
  return {};
}

/// The largest amaxes of `from`, and of what `to` has, for each member of `to` that has an amax. Throws
/// `config_conflict` for quantizers that differ in what they are calibrated on, `tensor_shape` for other groups.
template <backend B>
std::vector<amax_to_set<B>> largest_of(B& device, sequential_quantizer<B>& to,
                                       std::vector<sequential_quantizer<B> const*> const& from) {
  std::vector<amax_to_set<B>> found;
  for (auto const* const q : from)
    if (auto const why = unlikeness(device, to, *q); !why.empty()) fail(error_id::config_conflict, why);
  for (std::size_t i = 0; i < to.members().size(); ++i) {
    auto& member = to.members()[i];
    if (!member.needs_calibration()) continue;
    std::vector<tensor_quantizer<B> const*> all{&member};
    for (auto const* const q : from) all.push_back(&q->members()[i]);
    auto const with_groups = std::find_if(all.begin(), all.end(), [](auto const* q) { return q->has_amax(); });
    if (with_groups == all.end()) continue;
    amax_to_set<B> next{&member, (*with_groups)->groups(), largest_amax<B>(device, all, error_id::tensor_shape)};
    for (auto const* const q : all)
      if (q->holds_tensor_amax()) next.whole = std::max(next.whole.value_or(0), q->tensor_amax(device, {}));
    if (next.whole) next.whole = std::max(*next.whole, *std::max_element(next.amax.begin(), next.amax.end()));
    next.check();
    found.push_back(std::move(next));
  }
  return found;
}

/// The calibrated quantizers that stand where `but` stands, in the recipes that `recipe_of` picks of a family's sites
/// (null: none of that site).
template <backend B, class Pick>
std::vector<sequential_quantizer<B> const*> siblings_of(std::vector<std::shared_ptr<site<B>>> const& family,
                                                        sequential_quantizer<B> const& but, Pick&& recipe_of) {
  std::vector<sequential_quantizer<B> const*> found;
  for (auto const& s : family) {
    recipe_quantizers<B> const* const recipe = recipe_of(*s);
    if (recipe == nullptr) continue;
    for (auto const& q : recipe->quantizers)
      if (&q != &but && q.leaf() == but.leaf() && q.enabled() && q.needs_calibration() && q.ready())
        found.push_back(&q);
  }
  return found;
}

/// The recipes of a search say the same of one quantizer.
inline void note_once(std::vector<std::string>& notes, std::string note) {
  if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(std::move(note));
}

/// What became of quantizers that saw no data, a line each.
struct settled_quantizers {
  std::vector<std::string> notes;
  std::vector<std::string> left;  ///< why siblings that saw data are no help to one that stays as it is
};

/// What a quantizer that saw no data takes from its siblings, in recipe `index` of a site: of those whose data say
/// something of it. Nothing where none saw any.
template <backend B>
void find_unseen(std::vector<std::shared_ptr<site<B>>> const& family, site<B>& s, std::size_t index,
                 std::vector<amax_to_set<B>>& changes, settled_quantizers& settled) {
  auto const same_recipe = [index](site<B> const& other) {
    return index < other.recipes.size() ? &other.recipes[index] : nullptr;
  };
  for (auto& q : s.recipes[index].quantizers) {
    if (!q.enabled() || q.role() == quantizer_role::weight || q.ready()) continue;
    std::string why;
    auto from = siblings_of<B>(family, q, same_recipe);
    auto const unlike = std::erase_if(from, [&](auto const* other) {
      auto const said = unlikeness(s.home->device, q, *other);
      if (why.empty()) why = said;
      return !said.empty();
    });
    if (from.empty() && unlike != 0) note_once(settled.left, why);
    if (from.empty()) continue;
    for (auto& change : largest_of<B>(s.home->device, q, from)) changes.push_back(std::move(change));
    note_once(settled.notes,
              concat(q.path(), ": saw no data; it has the largest amax of ", from.size(), " sibling(s)"));
    if (unlike != 0) note_once(settled.notes, concat(why, ": ", unlike, " such sibling(s) were left out"));
  }
}

/// Gives quantizers that saw no data the largest amaxes of siblings that saw some. Those without such siblings, or
/// whose siblings scale their channels otherwise, are left as they are.
template <backend B>
settled_quantizers take_from_siblings(std::vector<std::shared_ptr<site<B>>> const& sites,
                                      sibling_rule const& rule) {
  settled_quantizers settled;
  std::vector<amax_to_set<B>> changes;
  for (auto const& [key, family] : families_of(sites, rule))
    for (auto const& s : family)
      for (std::size_t r = 0; r < s->recipes.size(); ++r) find_unseen<B>(family, *s, r, changes, settled);
  for (auto const& change : changes) change.set(sites.front()->home->device);
  return settled;
}

}  // namespace detail

}  // namespace mixbit
