// Rules and patterns from regular expressions. <regex> takes seconds to compile, so this header is in no other one:
// who writes expressions includes it.
//
//   options.grouping = {regex_rule(R"(^(.*?)\.(q_proj|k_proj|v_proj)$)")};   // ModelOpt's, as it writes them
//   options.disabled_layers = {regex_pattern(R"(.*layers\.[0-3]\..*)")};
//
// The language is that of std::regex (ECMAScript): of Python's it lacks look-behind and named groups.
#pragma once

#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>

#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/config/wildcard.hpp"

namespace mixbit {

namespace detail {

class named_regex {
 public:
  /// `what` is "grouping rule" or "pattern", for messages. Throws `config_value` naming the expression.
  named_regex(char const* what, std::string text) : what_{what}, text_{std::move(text)} {
    try {
      regex_.assign(text_, std::regex::ECMAScript | std::regex::optimize);
    } catch (std::regex_error const& e) {
      fail(error_id::config_value, what_, " '", text_, "': is no regular expression (ECMAScript): ", e.what());
    }
  }

  template <class F>
  auto guarded(std::string_view name, F&& match) const {
    try {
      return match();
    } catch (std::regex_error const& e) {
      fail(error_id::config_value, what_, " '", text_, "': cannot be matched with ", name, ": ", e.what());
    }
  }

  unsigned groups() const { return static_cast<unsigned>(regex_.mark_count()); }

  /// Does it match `name` as a whole?
  bool takes(std::string_view name) const {
    return guarded(name, [&] { return std::regex_match(name.begin(), name.end(), regex_); });
  }
  /// Its first group where it matches from the beginning of `name` on, as Python's re.match does.
  std::optional<std::string> first_group(std::string_view name) const {
    return guarded(name, [&]() -> std::optional<std::string> {
      std::match_results<std::string_view::const_iterator> found;
      bool const any =
          std::regex_search(name.begin(), name.end(), found, regex_, std::regex_constants::match_continuous);
      if (!any || !found[1].matched) return std::nullopt;
      return found[1].str();
    });
  }

 private:
  char const* what_;
  std::string text_;
  std::regex regex_;
};

}  // namespace detail

/// A rule whose key is what the first captured group matches, from the beginning of a name on: ModelOpt's rules as they
/// are. Throws `config_value` naming an expression that is malformed or captures nothing.
inline grouping_rule regex_rule(std::string expression) {
  auto const regex = std::make_shared<detail::named_regex const>("grouping rule", expression);
  if (regex->groups() == 0)
    fail(error_id::config_value, "grouping rule '", expression,
         "': captures nothing; its first group (...) is the key");
  return {std::move(expression), [regex](std::string_view module) { return regex->first_group(module); }};
}

/// A pattern that selects the names which it matches as a whole, as a wildcard does. Throws `config_value` naming one
/// that is malformed.
inline pattern regex_pattern(std::string expression) {
  auto const regex = std::make_shared<detail::named_regex const>("pattern", expression);
  return {[regex](std::string_view name) { return regex->takes(name); }, std::move(expression)};
}

}  // namespace mixbit
