// Grouping: which modules share one recipe because a fused kernel runs them together, or because they share a weight.
// The default rules are ModelOpt's (its QuantRecipe grouping rules, without regular expressions).
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/core/order.hpp"

namespace mixbit {

/// ModelOpt's default rules, in its order.
inline std::vector<grouping_rule> default_grouping_rules() {
  return {"{q_proj,k_proj,v_proj}",
          "(mlp.experts).#.{gate_proj,up_proj,down_proj}",
          "(mixer.experts).#.{up_proj,down_proj}",
          "(mlp.experts.local_experts).#.{linear_fc1,linear_fc2}",
          "{gate_proj,up_proj}",
          "#.{w1,w2,w3}",
          "{w1_linear,w2_linear,w3_linear}.#",
          "(linear_attn).{in_proj_qkv,in_proj_z}",
          "(linear_attn).{in_proj_a,in_proj_b}"};
}

namespace detail {

inline void absorb(module_group& into, module_group&& from) {
  into.members.insert(into.members.end(), from.members.begin(), from.members.end());
  std::sort(into.members.begin(), into.members.end());
  for (int const rule : from.rules)
    if (std::find(into.rules.begin(), into.rules.end(), rule) == into.rules.end()) into.rules.push_back(rule);
  into.tied = true;
}

/// For each weight the first of those that lie where it does.
inline std::vector<std::size_t> first_of_same(std::span<void const* const> weights) {
  auto const order = stable_order(weights.size(), [&](std::size_t a, std::size_t b) {
    return std::less<void const*>{}(weights[a], weights[b]);
  });
  std::vector<std::size_t> first(weights.size());
  for (std::size_t k = 0; k < order.size(); ++k)
    first[order[k]] = k > 0 && weights[order[k]] == weights[order[k - 1]] ? first[order[k - 1]] : order[k];
  return first;
}

}  // namespace detail

/// Joins groups that share a weight: it is stored once, so it can have one recipe only. `weights` says for each module
/// where its weight lies. Groups stay in the order of their first member.
inline std::vector<module_group> join_tied(std::vector<module_group> groups, std::span<void const* const> weights) {
  constexpr auto none = static_cast<std::size_t>(-1);
  auto const weight = detail::first_of_same(weights);
  std::vector<std::size_t> owner(weights.size(), none);  // of each weight: a place in `joined`
  std::vector<module_group> joined;
  for (auto& group : groups) {
    std::vector<std::size_t> places;  // of earlier groups that have one of its weights
    for (std::size_t const i : group.members)
      if (owner[weight[i]] != none) places.push_back(owner[weight[i]]);
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    std::size_t const place = places.empty() ? joined.size() : places.front();
    if (places.empty()) joined.push_back(std::move(group));
    else detail::absorb(joined[place], std::move(group));
    for (std::size_t k = 1; k < places.size(); ++k)  // it ties earlier groups together too
      detail::absorb(joined[place], std::exchange(joined[places[k]], {}));
    for (std::size_t const i : joined[place].members) owner[weight[i]] = place;
  }
  std::vector<module_group> left;
  for (auto& group : joined)
    if (!group.members.empty()) left.push_back(std::move(group));
  return left;
}

/// What put a group's modules together, for statistics and plans: "{q_proj,k_proj,v_proj}", "tied weight",
/// "{q_proj,k_proj,v_proj} + tied weight"; empty for a module alone.
inline std::string label_of(module_group const& group, std::span<grouping_rule const> rules) {
  std::string label;
  auto const add = [&](std::string const& part) { label += (label.empty() ? "" : " + ") + part; };
  for (int const rule : group.rules) add(rules[static_cast<std::size_t>(rule)].label());
  if (group.tied) add("tied weight");
  return label;
}

}  // namespace mixbit
