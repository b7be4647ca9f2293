// Rules and patterns from regular expressions: ModelOpt's group as the built-in ones do; what is malformed is named.
#include "mixbit/config/regex_rule.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/grouping.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::vector<std::vector<std::size_t>> members_by(std::vector<std::string> const& names,
                                                 std::vector<grouping_rule> const& rules) {
  std::vector<std::vector<std::size_t>> all;
  for (auto const& g : group_modules(names, rules)) all.push_back(g.members);
  return all;
}

/// ModelOpt's default rules, as it writes them.
std::vector<grouping_rule> modelopt_rules() {
  return {regex_rule(R"(^(.*?)\.(q_proj|k_proj|v_proj)$)"),
          regex_rule(R"(^(.*?\.mlp\.experts)\.\d+\.(gate_proj|up_proj|down_proj)$)"),
          regex_rule(R"(^(.*?\.mixer\.experts)\.\d+\.(up_proj|down_proj)$)"),
          regex_rule(R"(^(.*?\.mlp\.experts\.local_experts)\.\d+\.(linear_fc1|linear_fc2)$)"),
          regex_rule(R"(^(.*?)\.(gate_proj|up_proj)$)"),
          regex_rule(R"(^(.*?)\.(\d+\.(w1|w2|w3))$)"),
          regex_rule(R"(^(.*?)\.((w1_linear|w2_linear|w3_linear)\.\d+)$)")};
}

}  // namespace

TEST_CASE("regex rule: ModelOpt's rules put together what the built-in ones do") {
  std::vector<std::string> names{"q_proj", "a.q_proj", "a.k_proj", "b.v_proj", "a.o_proj", "l.mlp.gate_proj",
                                 "l.mlp.up_proj", "l.mlp.down_proj"};
  for (std::string const e : {"0", "1"})
    for (char const* end : {".gate_proj", ".up_proj", ".down_proj"}) names.push_back("l.mlp.experts." + e + end);
  for (std::string const e : {"0", "1"})
    for (std::string const w : {"w1", "w2", "w3"}) {
      names.push_back("m.block." + e + "." + w);
      names.push_back("n." + w + "_linear." + e);
    }
  CHECK(members_by(names, modelopt_rules()) == members_by(names, default_grouping_rules()));
  CHECK(members_by(names, modelopt_rules()) != members_by(names, {}));
}

TEST_CASE("regex rule: the key is the first group, matched from the beginning on") {
  auto const rule = regex_rule(R"((a\d)\.x)");
  CHECK(rule.key("a1.x") == "a1");
  CHECK(rule.key("a1.xyz") == "a1");  // as re.match: the end is the expression's to anchor
  CHECK_FALSE(rule.key("b.a1.x").has_value());
  CHECK(rule.label() == R"((a\d)\.x)");
  auto const either = regex_rule("(a)|b");
  CHECK(either.key("a") == "a");
  CHECK_FALSE(either.key("b").has_value());  // its group takes no part in the match
}

TEST_CASE("regex pattern: selects whole names") {
  pattern const p = regex_pattern(R"(.*layers\.[0-3]\..*)");
  CHECK(p.matches("model.layers.2.mlp"));
  CHECK_FALSE(p.matches("model.layers.4.mlp"));
  CHECK_FALSE(regex_pattern("mlp").matches("a.mlp"));
  CHECK_FALSE(p.is_wildcard());
  CHECK(p.label() == R"(.*layers\.[0-3]\..*)");
}

TEST_CASE("regex rule: one that is malformed or captures nothing is named") {
  auto const refusal = [](auto&& make, char const* text) {
    return error_text(error_id::config_value, [&] { (void)make(text); });
  };
  CHECK(says(refusal(regex_rule, "(a"), "grouping rule '(a': is no regular expression (ECMAScript): "));
  CHECK(says(refusal(regex_rule, "(?P<n>a)"), "grouping rule '(?P<n>a)': is no regular expression"));
  CHECK(says(refusal(regex_rule, "a.*"), "grouping rule 'a.*': captures nothing"));
  CHECK(says(refusal(regex_pattern, "[a"), "pattern '[a': is no regular expression (ECMAScript): "));
}
