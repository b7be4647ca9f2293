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
#include <vector>

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

/// Throws `config_conflict` where what `from` has seen says nothing of what `to` will see.
template <backend B>
void require_alike(B& device, sequential_quantizer<B> const& to, sequential_quantizer<B> const& from) {
  auto const refuse = [&](auto const&... how) {
    fail(error_id::config_conflict, to.path(), ": its amax cannot be taken from ", from.path(), ", which ", how...);
  };
  if (to.pre_quant_scale(device) != from.pre_quant_scale(device))
    refuse("scales its channels by another pre_quant_scale");
  if (to.members().size() != from.members().size()) refuse("is another sequence of quantizers");
  for (std::size_t i = 0; i < to.members().size(); ++i) {
    auto const &mine = to.members()[i], &other = from.members()[i];
    if (!mine.needs_calibration() && !other.needs_calibration()) continue;
    if (!mine.numerics().same_calibration(other.numerics())) refuse("is calibrated otherwise");
    if (auto const* const bias = mine.bias(); bias != nullptr && bias->is_static())
      refuse("has a static bias of its own data, as has this one");
  }
}

/// The largest amaxes of `from`, and of what `to` has, for each member of `to` that has an amax. Throws
/// `config_conflict` for quantizers that differ in what they are calibrated on, `tensor_shape` for other groups.
template <backend B>
std::vector<amax_to_set<B>> largest_of(B& device, sequential_quantizer<B>& to,
                                       std::vector<sequential_quantizer<B> const*> const& from) {
  std::vector<amax_to_set<B>> found;
  for (auto const* const q : from) require_alike(device, to, *q);
  for (std::size_t i = 0; i < to.members().size(); ++i) {
    auto& member = to.members()[i];
    if (!member.needs_calibration()) continue;
    amax_to_set<B> next{&member, member.groups(), member.amax(device)};
    auto const take_whole = [&](tensor_quantizer<B> const& of) {
      if (of.holds_tensor_amax()) next.whole = std::max(next.whole.value_or(0), of.tensor_amax(device, {}));
    };
    take_whole(member);
    for (auto const* const q : from) {
      auto const& other = q->members()[i];
      take_whole(other);
      auto const theirs = other.amax(device);
      if (next.amax.empty()) next.groups = other.groups(), next.amax.resize(theirs.size());
      if (theirs.size() != next.amax.size())
        fail(error_id::tensor_shape, member.name(), ": ", next.amax.size(), " amaxes, but ", other.name(), " has ",
             theirs.size());
      std::ranges::transform(next.amax, theirs, next.amax.begin(), [](float a, float b) { return std::max(a, b); });
    }
    if (next.whole) next.whole = std::max(*next.whole, *std::ranges::max_element(next.amax));
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

/// What a quantizer that saw no data takes from its siblings, in recipe `index` of a site. Nothing where none saw any.
template <backend B>
void find_unseen(std::vector<std::shared_ptr<site<B>>> const& family, site<B>& s, std::size_t index,
                 std::vector<amax_to_set<B>>& changes, std::vector<std::string>& notes) {
  auto const same_recipe = [index](site<B> const& other) {
    return index < other.recipes.size() ? &other.recipes[index] : nullptr;
  };
  for (auto& q : s.recipes[index].quantizers) {
    if (!q.enabled() || q.role() == quantizer_role::weight || q.ready()) continue;
    auto const from = siblings_of<B>(family, q, same_recipe);
    if (from.empty()) continue;
    for (auto& change : largest_of<B>(s.home->device, q, from)) changes.push_back(std::move(change));
    auto note = concat(q.path(), ": saw no data; it has the largest amax of ", from.size(), " sibling(s)");
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(std::move(note));  // several recipes
  }
}

/// Gives quantizers that saw no data the largest amaxes of siblings that saw some; a line for each. Those without such
/// siblings are left as they are.
template <backend B>
std::vector<std::string> take_from_siblings(std::vector<std::shared_ptr<site<B>>> const& sites,
                                            sibling_rule const& rule) {
  std::vector<std::string> notes;
  std::vector<amax_to_set<B>> changes;
  for (auto const& [key, family] : families_of(sites, rule))
    for (auto const& s : family)
      for (std::size_t r = 0; r < s->recipes.size(); ++r) find_unseen<B>(family, *s, r, changes, notes);
  for (auto const& change : changes) change.set(sites.front()->home->device);
  return notes;
}

}  // namespace detail

}  // namespace mixbit
