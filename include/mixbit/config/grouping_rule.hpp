// Rules that put modules together by their names, because a fused kernel runs them as one: they then share a recipe
// (autoquant/grouping.hpp), or scales (calib/shared_state.hpp).
//
// A rule maps a module name to a key, or to nothing; modules with the same key under the same rule form a group. The
// first rule that gives a key decides. Rules are dotted patterns matched from the end of the name:
//   "self_attn.{q_proj,k_proj,v_proj}"   the last segments, alternatives in braces, # for a number
//   "(mlp.experts).#.{up_proj,down_proj}" the key ends with the parenthesis; without one it is what precedes
// or any callable.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/core/name_index.hpp"

namespace mixbit {

namespace detail {

inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t start = 0;;) {
    std::size_t const end = text.find(separator, start);
    parts.push_back(text.substr(start, end - start));
    if (end == std::string_view::npos) return parts;
    start = end + 1;
  }
}

inline bool is_number(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// One segment of a dotted pattern: a word, {a,b,c} or #.
inline bool segment_matches(std::string_view pattern, std::string_view segment) {
  if (pattern == "#") return is_number(segment);
  if (pattern.size() < 2 || pattern.front() != '{') return pattern == segment;
  auto const words = split(pattern.substr(1, pattern.size() - 2), ',');
  return std::find(words.begin(), words.end(), segment) != words.end();
}

/// What is wrong with a segment without its parentheses; empty: nothing.
inline std::string fault_of_segment(std::string_view segment) {
  std::string const name = "'" + std::string{segment} + "'";
  if (segment.empty()) return "a segment is empty";
  if (segment.find_first_of("()") != std::string_view::npos)
    return "in " + name + " a parenthesis stands within a segment; '(' begins one and ')' ends one";
  if (segment.find_first_of("{}") == std::string_view::npos) return {};
  std::string_view const inner = segment.size() < 2 ? "{" : segment.substr(1, segment.size() - 2);
  if (segment.front() != '{' || segment.back() != '}' || inner.find_first_of("{}") != std::string_view::npos)
    return "in " + name + " braces do not enclose a whole segment";
  for (auto const word : split(inner, ','))
    if (word.empty()) return "in " + name + " an alternative is empty";
  return {};
}

/// What is wrong with a dotted pattern; empty: nothing.
inline std::string fault_of_pattern(std::string_view pattern) {
  if (pattern.empty()) return "it is empty";
  enum { before, inside, behind } at = before;  // the one pair of parentheses
  for (auto segment : split(pattern, '.')) {
    if (segment.starts_with('(')) {
      if (at != before) return "it has more than one '('";
      at = inside;
      segment.remove_prefix(1);
    }
    bool const closes = segment.ends_with(')');
    if (closes) segment.remove_suffix(1);
    if (auto fault = fault_of_segment(segment); !fault.empty()) return fault;
    if (closes && at != inside) return "a ')' has no '(' before it";
    if (closes) at = behind;
  }
  return at == inside ? "its '(' is not closed" : "";
}

}  // namespace detail

class grouping_rule {
 public:
  using key_function = std::function<std::optional<std::string>(std::string_view module)>;

  /// A dotted pattern. Throws `config_value` for one that is not well formed, naming what is wrong: parentheses are
  /// one pair around whole segments, braces enclose a whole segment, and neither segments nor alternatives are empty.
  grouping_rule(std::string pattern) : label_{std::move(pattern)} {  // NOLINT: patterns stand for rules
    if (auto const fault = detail::fault_of_pattern(label_); !fault.empty())
      fail(error_id::config_value, "grouping rule '", label_, "': ", fault);
    key_ = [pattern = label_](std::string_view module) { return match(pattern, module); };
  }
  grouping_rule(char const* pattern) : grouping_rule{std::string{pattern}} {}  // NOLINT
  /// Any callable, with a label for the plan. Throws `config_value` for an empty one.
  grouping_rule(std::string label, key_function key) : label_{std::move(label)}, key_{std::move(key)} {
    if (!key_) fail(error_id::config_value, "grouping rule '", label_, "': its function is empty");
  }

  std::string const& label() const { return label_; }
  std::optional<std::string> key(std::string_view module) const { return key_(module); }

 private:
  static std::optional<std::string> match(std::string_view pattern, std::string_view module) {
    // the parenthesis marks how many leading segments of the pattern belong to the key
    std::size_t kept = 0;
    if (auto const close = pattern.find(')'); close != pattern.npos)
      kept = detail::split(pattern.substr(0, close), '.').size();
    std::string plain;
    for (char const c : pattern)
      if (c != '(' && c != ')') plain += c;
    auto const wanted = detail::split(plain, '.'), have = detail::split(module, '.');
    if (have.size() <= wanted.size() - kept || have.size() < wanted.size()) return std::nullopt;
    std::size_t const first = have.size() - wanted.size();
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (!detail::segment_matches(wanted[i], have[first + i])) return std::nullopt;
    std::string key;
    for (std::size_t i = 0; i < first + kept; ++i) key += (i ? "." : "") + std::string{have[i]};
    return key;
  }

  std::string label_;
  key_function key_;
};

/// A group of modules: indices into the list it was made from, in its order, and what put them together.
struct module_group {
  std::vector<std::size_t> members;
  std::vector<int> rules;  ///< none: a module alone; several where a tied weight joined groups
  bool tied = false;       ///< did a tied weight join groups?
};

/// The first rule that gives a module a key, and the key; {-1, its name}: none does.
inline std::pair<int, std::string> group_key(std::string_view module, std::span<grouping_rule const> rules) {
  for (std::size_t r = 0; r < rules.size(); ++r)
    if (auto key = rules[r].key(module)) return {static_cast<int>(r), *std::move(key)};
  return {-1, std::string{module}};
}

/// Groups in the order of their first member. A module that no rule names is a group of its own.
inline std::vector<module_group> group_modules(std::span<std::string const> names,
                                               std::span<grouping_rule const> rules) {
  std::vector<module_group> groups;
  detail::name_index places;  // "rule:key" -> group
  for (std::size_t i = 0; i < names.size(); ++i) {
    auto const [rule, key] = group_key(names[i], rules);
    std::size_t const place = places.add(std::to_string(rule) + ':' + key, groups.size());
    if (place == groups.size()) groups.push_back({{}, rule < 0 ? std::vector<int>{} : std::vector<int>{rule}});
    groups[place].members.push_back(i);
  }
  return groups;
}

/// What runtimes fuse, as ModelOpt's export has it: q/k/v, gate/up, and Mixtral's w1/w3, each of one parent. The model
/// itself may be that parent: a lone attention's "q_proj" and "k_proj" read one input, too. (The rules of a search are
/// not these: they have ModelOpt's regular expressions, which want something before a dot.)
inline std::vector<grouping_rule> fused_layer_rules() {
  std::vector<grouping_rule> rules;
  for (grouping_rule const pattern : {"{q_proj,k_proj,v_proj}", "{gate_proj,up_proj}", "{w1,w3}"})
    rules.push_back({pattern.label(), [pattern](std::string_view module) {
      return pattern.key("." + std::string{module});  // a segment before all names, of which the first may be empty
    }});
  return rules;
}

}  // namespace mixbit
