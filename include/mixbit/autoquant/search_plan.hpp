// What a search knows before it has seen data: which rule takes which module, groups, each group's candidates, and
// what they cost. Nothing runs, and no quantizer changes; slots that have no site get one.
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/cache_rules.hpp"
#include "mixbit/autoquant/fixed_recipe.hpp"
#include "mixbit/autoquant/group_candidates.hpp"
#include "mixbit/autoquant/grouping.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/resolved.hpp"
#include "mixbit/core/name_index.hpp"
#include "mixbit/core/order.hpp"
#include "mixbit/core/span_of.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

struct search_plan {
  std::vector<search_format> formats;     ///< of all lists, fewest nominal bits first, else in the user's order
  std::vector<std::string> modules;       ///< what is searched, in the order of the walk
  std::vector<module_group> groups;       ///< indices into modules
  candidate_stats stats;                  ///< one a group; candidate k of a group is recipe k of its sites
  std::vector<std::string> score_points;  ///< by module; empty: its own output
  std::vector<matched_rule> rules;
  std::vector<std::string> notes;         ///< caches left out, and of a model that is not strict what matched nothing
  std::string cost_name;                  ///< "exact, active_moe 2/8"
};

/// Makes the plan. Throws `config_no_match` for what matches nothing, `config_conflict` for spaces that overlap or
/// take a part of a group, for groups and spaces of both weights and caches and for a fixed config beside `formats`,
/// `config_value` for a format without a name and for sizes that no cache has,
/// `state_duplicate` for two of one name, `search_input` where nothing is left to search, what add_times() does of a
/// latency table, and what interpreting the formats throws.
template <backend B>
class search_planner {
 public:
  search_planner(model<B>& m, std::vector<module_ref<B>> const& all, std::vector<module_ref<B>> const& searched,
                 search_options const& options)
      : model_{m}, all_{all}, searched_{searched}, options_{options} {}

  search_plan make() {
    check_lists();
    make_groups();
    find_caches();
    assign_spaces();
    auto const disabled = [](auto const& g) { return !g.disabled_by.empty(); };
    if (std::all_of(made_.stats.begin(), made_.stats.end(), disabled))
      fail(error_id::search_input, "nothing to search: every layer is disabled, '", made_.stats.front().disabled_by,
           "' disables ", made_.stats.front().modules.front());
    collect_formats();
    for (std::size_t g = 0; g < made_.groups.size(); ++g) add_candidates(g);
    if (options_.latency) {
      add_times(made_.stats, *options_.latency);
      require_candidates();
    }
    weigh();
    find_score_points();
    return std::move(made_);
  }

 private:
  static constexpr int from_formats = -1, from_fixed = -2, from_nothing = -3;  // else the index of a space

  void check_lists() const {
    if (options_.kv_cache) options_.kv_cache->validate();
    if (options_.difference_bytes && *options_.difference_bytes < 0)
      fail(error_id::config_value, "search_options.difference_bytes is ", *options_.difference_bytes, "; 0 or more");
    if (!options_.fixed_quantization_config) {
      if (options_.formats.empty() && options_.module_search_spaces.empty())
        fail(error_id::search_input, "a search needs at least one format");
    } else if (!options_.formats.empty()) {
      fail(error_id::config_conflict, "fixed_quantization_config ", options_.fixed_quantization_config->name,
           " is what modules outside of module_search_spaces have, so there can be no formats for them");
    } else if (options_.module_search_spaces.empty()) {
      fail(error_id::config_conflict, "fixed_quantization_config ", options_.fixed_quantization_config->name,
           " needs module_search_spaces: with it nothing else is searched");
    }
    for (std::size_t i = 0; i < options_.module_search_spaces.size(); ++i)
      if (options_.module_search_spaces[i].modules.empty() || options_.module_search_spaces[i].formats.empty())
        fail(error_id::config_value, "module_search_spaces[", i, "] needs at least one pattern and one format");
  }

  /// An error where the model is strict, else a note.
  template <class... Parts>
  void unmatched(Parts const&... parts) {
    if (model_.options().strict) fail(error_id::config_no_match, parts...);
    made_.notes.push_back(detail::concat(parts...));
  }

  std::vector<std::string> matching(pattern const& p) const {
    std::vector<std::string> names;
    for (auto const& name : made_.modules)
      if (p.matches(name)) names.push_back(name);
    return names;
  }
  /// Lists a pattern with what it matches, which has to be something.
  void require_match(char const* kind, pattern const& p) {
    made_.rules.push_back({kind, p.label(), matching(p)});
    if (made_.rules.back().modules.empty())
      unmatched(kind, " pattern '", p.label(), "' matches no layer of the search");
  }
  static bool any_matches(std::vector<pattern> const& patterns, std::string const& name) {
    return std::any_of(patterns.begin(), patterns.end(), [&](auto const& p) { return p.matches(name); });
  }

  void make_groups() {
    std::vector<void const*> weights;
    for (auto const& m : searched_) {
      made_.modules.push_back(m.name);
      weights.push_back(stored_thing(m));
    }
    auto rules = options_.grouping;
    if (options_.default_grouping)
      for (auto& rule : default_grouping_rules()) rules.push_back(std::move(rule));
    auto groups = group_modules(detail::span_of(made_.modules), detail::span_of(rules));
    std::vector<std::vector<std::string>> decided(rules.size());
    for (auto const& g : groups)
      for (int const r : g.rules)
        for (std::size_t const i : g.members) decided[static_cast<std::size_t>(r)].push_back(made_.modules[i]);
    for (std::size_t r = 0; r < rules.size(); ++r) {
      bool const users = r < options_.grouping.size();
      if (!users && decided[r].empty()) continue;
      if (decided[r].empty()) unmatched("grouping rule '", rules[r].label(), "' groups no layer of the search");
      made_.rules.push_back({users ? "grouping rule" : "default grouping rule", rules[r].label(), decided[r]});
    }
    made_.groups = join_tied(std::move(groups), detail::span_of(weights));
    for (auto const& p : options_.disabled_layers) {
      if (p.label().empty())  // of a callable; statistics and plans say by this name that a group is disabled
        fail(error_id::config_value, "a disabled layer pattern has an empty name");
      require_match("disabled layer", p);
    }
    for (auto const& group : made_.groups) {
      auto& g = made_.stats.emplace_back();
      g.name = with_recipe_suffix(made_.modules[group.members.front()]);
      g.rule = label_of(group, detail::span_of(rules));
      for (std::size_t const i : group.members) {
        g.modules.push_back(made_.modules[i]);
        for (auto const& p : options_.disabled_layers)
          if (p.matches(made_.modules[i])) g.disabled_by = p.label();
      }
      refuse_mixed(searched_, group.members, "the group ", g.name, " by '", g.rule, "' has");
    }
  }

  /// Which attentions each owner of a cache stands for.
  void find_caches() {
    if (!options_.kv_cache) return;
    require_countable(options_, searched_);
    if (auto note = uncounted_caches(model_, all_, *options_.kv_cache)) made_.notes.push_back(std::move(*note));
    for (auto const& owner : options_.kv_cache->owners) {
      matched_rule row{"key/value cache", owner.modules.label(), {}};
      for (auto const& m : searched_)
        if (is_cache(m) && options_.kv_cache->owner_of(m.name) == &owner) row.modules.push_back(m.name);
      if (row.modules.empty())
        unmatched("key/value cache pattern '", row.rule, "' matches no attention with quantizers on keys and values");
      made_.rules.push_back(std::move(row));
    }
  }

  /// The index of the space that covers a group, or -1. Patterns are tested on names, also of disabled groups.
  int space_of(group_stats const& g) const {
    int found = -1;
    for (std::size_t s = 0; s < options_.module_search_spaces.size(); ++s) {
      auto const& patterns = options_.module_search_spaces[s].modules;
      auto const covered = static_cast<std::size_t>(std::count_if(
          g.modules.begin(), g.modules.end(), [&](auto const& name) { return any_matches(patterns, name); }));
      if (covered == 0) continue;
      if (covered < g.modules.size()) refuse_part(s, g);
      if (found >= 0)
        fail(error_id::config_conflict, "module_search_spaces[", found, "] and [", s, "] both cover ",
             g.modules.front(), "; make their patterns disjoint");
      found = static_cast<int>(s);
    }
    return found;
  }
  [[noreturn]] void refuse_part(std::size_t s, group_stats const& g) const {
    auto const& patterns = options_.module_search_spaces[s].modules;
    std::string in, out;
    for (auto const& name : g.modules) (any_matches(patterns, name) ? in : out) = name;
    fail(error_id::config_conflict, "module_search_spaces[", s, "] covers ", in, " and not ", out,
         ", which share a recipe", g.rule.empty() ? "" : " by '" + g.rule + "'", "; cover all of a group or none");
  }

  void assign_spaces() {
    for (auto const& space : options_.module_search_spaces)
      for (auto const& p : space.modules) require_match("module search space", p);
    for (auto& g : made_.stats) {
      int const space = space_of(g);
      if (g.disabled_by.empty() && space < 0 && is_cache(first_of(sources_.size())))
        g.disabled_by = "no module_search_space for key/value caches";
      sources_.push_back(!g.disabled_by.empty()                ? from_nothing
                         : space >= 0                          ? space
                         : options_.fixed_quantization_config ? from_fixed
                                                               : from_formats);
      if (sources_.back() >= 0)
        for (auto const& p : options_.module_search_spaces[static_cast<std::size_t>(space)].modules)
          g.space += (g.space.empty() ? "" : ", ") + p.label();
      if (sources_.back() == from_formats && options_.formats.empty())
        fail(error_id::search_input, g.modules.front(), " is in none of module_search_spaces, and there are no ",
             "formats or fixed_quantization_config for it");
      if (sources_.back() == from_fixed) settle_fixed(g);
    }
    for (int s = 0; s < static_cast<int>(options_.module_search_spaces.size()); ++s) refuse_mixed_space(s);
  }
  void refuse_mixed_space(int s) const {
    std::vector<std::size_t> covered;
    std::string patterns;
    for (std::size_t g = 0; g < made_.groups.size(); ++g)
      if (sources_[g] == s) {
        covered.insert(covered.end(), made_.groups[g].members.begin(), made_.groups[g].members.end());
        patterns = made_.stats[g].space;
      }
    refuse_mixed(searched_, covered, "module_search_spaces[", s, "] '", patterns, "' covers");
  }

  /// One of its modules; they are all layers, or all attentions.
  module_ref<B> const& first_of(std::size_t group) const { return searched_[made_.groups[group].members.front()]; }

  /// A group that the fixed config leaves off is disabled by it. Throws what fixed_recipe throws.
  void settle_fixed(group_stats& g) {
    if (!fixed_) fixed_.emplace(model_, all_, searched_, *options_.fixed_quantization_config);
    if (fixed_->takes(g)) return void(g.fixed = true);
    sources_.back() = from_nothing;
    g.disabled_by = "fixed_quantization_config " + options_.fixed_quantization_config->name;
  }

  std::vector<quantize_config> const& list_of(int source) const {
    return source >= 0 ? options_.module_search_spaces[static_cast<std::size_t>(source)].formats : options_.formats;
  }

  void collect_formats() {
    if (options_.fixed_quantization_config) collect(from_fixed, {*options_.fixed_quantization_config});
    else collect(from_formats, options_.formats);
    for (std::size_t s = 0; s < options_.module_search_spaces.size(); ++s)
      collect(static_cast<int>(s), options_.module_search_spaces[s].formats);
    // as ModelOpt shows them
    detail::sort_stably(made_.formats, [](auto const& a, auto const& b) { return a.nominal_bits < b.nominal_bits; });
    for (auto& f : made_.formats) {
      matched_rule row{"format", f.label, {}};
      for (std::size_t g = 0; g < made_.stats.size(); ++g)
        if (has_format(g, f.config.name))
          row.modules.insert(row.modules.end(), made_.stats[g].modules.begin(), made_.stats[g].modules.end());
      if (row.modules.empty() && !(options_.fixed_quantization_config &&
                                   options_.fixed_quantization_config->name == f.config.name))
        unmatched("format ", f.config.name, " is a candidate of no layer: all are disabled or in spaces of their own");
      made_.rules.push_back(std::move(row));
    }
  }
  bool has_format(std::size_t g, std::string const& name) const {
    if (sources_[g] == from_nothing) return false;
    if (sources_[g] == from_fixed) return options_.fixed_quantization_config->name == name;
    auto const& list = list_of(sources_[g]);
    return std::any_of(list.begin(), list.end(), [&](auto const& f) { return f.name == name; });
  }

  /// Adds the formats of one list. The same format in two lists is one.
  void collect(int source, std::vector<quantize_config> const& list) {
    detail::name_index names;
    for (std::size_t i = 0; i < list.size(); ++i) {
      auto const& f = list[i];
      if (f.name.empty())
        fail(error_id::config_value, "format ", i, " of the search has no name; plans and reports need one");
      if (f.name == "NONE")
        fail(error_id::config_value, "a format of the search is named NONE, as \"do not quantize\" is; rename it");
      auto const known = std::find_if(made_.formats.begin(), made_.formats.end(),
                                      [&](auto const& other) { return other.config.name == f.name; });
      bool const same = known != made_.formats.end() && same_content(known->config, f);
      if (names.add(f.name, i) != i || (known != made_.formats.end() && !same))
        fail(error_id::state_duplicate, "two formats of the search are named '", f.name, "'");
      if (same) continue;
      detail::require_known_algorithm(model_, f.algorithm, f.name);
      auto const notes = check_search_entries(model_, all_, f);
      made_.notes.insert(made_.notes.end(), notes.begin(), notes.end());
      auto q = example_recipe(source, f);
      if (!q) {
        skip(source, f);
        continue;
      }
      double const bits = nominal_bits(*q);
      made_.formats.push_back({format_label(f.name, bits), f, bits});
    }
  }
  /// What a format makes of the first group that may have it, or where none may, of any module that it quantizes.
  std::optional<recipe_quantizers<B>> example_recipe(int source, quantize_config const& f) {
    auto const at = std::find(sources_.begin(), sources_.end(), source);
    if (at != sources_.end())
      return candidate_recipe(model_, f, first_of(static_cast<std::size_t>(at - sources_.begin())));
    for (auto const& m : searched_)
      if (auto q = search_recipe(model_, f, m); quantizes(q, m)) return q;
    return std::nullopt;
  }
  void skip(int source, quantize_config const& f) {
    auto const text = detail::concat("format ", f.name, " quantizes no layer of the search");
    if (source == from_fixed) made_.notes.push_back(text);
    else unmatched(text);
  }

  void add_candidates(std::size_t at) {
    auto& g = made_.stats[at];
    std::set<void const*> counted;  // a tied weight is stored once, and all its users are in this group
    auto const& members = made_.groups[at].members;
    std::vector<bool> owns;
    for (std::size_t const i : members) {
      owns.push_back(counted.insert(stored_thing(searched_[i])).second);
      if (owns.back()) g.elements += candidate_elements(options_, searched_[i]);
    }
    for (std::size_t f = 0; f < made_.formats.size(); ++f) {
      auto const& format = made_.formats[f];
      if (!has_format(at, format.config.name)) continue;
      candidate_stat c{format.label, static_cast<int>(f), 0, {}, 0};
      detail::named("format " + format.config.name, [&] {
        for (std::size_t m = 0; m < members.size(); ++m)
          c.bits += candidate_bits(model_, options_, format.config, searched_[members[m]], owns[m]);
      });
      g.candidates.push_back(std::move(c));
    }
    if (allows_none(sources_[at])) g.candidates.push_back({none_label, -1, 0, {}, 16 * g.elements});
  }

  /// A format that a latency table allows nowhere is most often misspelt there.
  void require_candidates() {
    for (std::size_t f = 0; f < made_.formats.size(); ++f) {
      auto const has = [f](auto const& c) { return c.recipe == static_cast<int>(f); };
      if (std::none_of(made_.stats.begin(), made_.stats.end(), [&](auto const& g) {
            return std::any_of(g.candidates.begin(), g.candidates.end(), has);
          }))
        unmatched(options_.latency->name, ": allows ", made_.formats[f].config.name, " in no group of the search");
    }
  }

  bool allows_none(int source) const {
    if (source >= 0) return options_.module_search_spaces[static_cast<std::size_t>(source)].allow_no_quant;
    return source == from_formats ? options_.allow_no_quant : source == from_nothing;
  }

  /// What of each group's bits counts.
  void weigh() {
    made_.cost_name = std::string{name_of(options_.cost)};
    cost_weight active;
    if (options_.active_experts) {
      active = options_.active_experts->weight();
      made_.cost_name += detail::concat(", active_moe ", options_.active_experts->top_k, '/',
                                        options_.active_experts->num_experts);
      require_match("active_moe expert", options_.active_experts->experts);
    }
    if (std::any_of(searched_.begin(), searched_.end(), [](auto const& m) { return is_cache(m); }))
      made_.cost_name += detail::concat(", key/value cache of ", options_.kv_cache->tokens, " tokens");
    for (auto const& p : options_.cost_excluded) require_match("excluded from cost", p);
    for (auto& g : made_.stats) {
      auto const excluded = [&](auto const& name) { return any_matches(options_.cost_excluded, name); };
      auto const routed = [&](auto const& name) {
        return options_.active_experts && options_.active_experts->experts.matches(name);
      };
      if (std::all_of(g.modules.begin(), g.modules.end(), excluded)) g.weight = {0, 1};
      else if (std::any_of(g.modules.begin(), g.modules.end(), routed)) g.weight = active;
    }
    if (weighted_elements(made_.stats) == 0)
      fail(error_id::search_input, "nothing to search: every layer is excluded from the cost");
  }

  void find_score_points() {
    made_.score_points.resize(made_.modules.size());
    std::vector<matched_rule> rules;
    for (auto const& rule : options_.score_rules) rules.push_back({"score rule", rule.label(), {}});
    for (std::size_t i = 0; i < made_.modules.size(); ++i)
      for (std::size_t r = 0; r < rules.size() && made_.score_points[i].empty(); ++r)
        if (auto const point = options_.score_rules[r].key(made_.modules[i])) {
          if (point->empty())
            fail(error_id::config_value, "score rule '", rules[r].rule, "' gives ", made_.modules[i],
                 " an empty point");
          made_.score_points[i] = *point;
          rules[r].modules.push_back(made_.modules[i]);
        }
    if (options_.method == score_method::gradient)
      for (std::size_t g = 0; g < made_.groups.size(); ++g)
        if (made_.stats[g].is_open()) require_point(made_.groups[g]);
    for (auto& row : rules) {
      if (row.modules.empty()) unmatched("score rule '", row.rule, "' takes no layer of the search");
      made_.rules.push_back(std::move(row));
    }
  }

  /// A cache has no output of its own at which a gradient could score it.
  void require_point(module_group const& group) const {
    for (std::size_t const i : group.members)
      if (is_cache(searched_[i]) && made_.score_points[i].empty())
        fail(error_id::config_value, made_.modules[i], ": to search its key/value cache by gradient, a score rule ",
             "has to name the point that its attention leads to; or search by kl_div or degradation");
  }

  model<B>& model_;
  std::vector<module_ref<B>> const& all_;
  std::vector<module_ref<B>> const& searched_;
  search_options const& options_;
  search_plan made_;
  std::vector<int> sources_;  ///< by group: where its candidates come from
  std::optional<fixed_recipe<B>> fixed_;  ///< made when the first group that may have it is met
};

}  // namespace mixbit
