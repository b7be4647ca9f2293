#include "mixbit/config/grouping_rule.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"
#include "support/group_members.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("grouping_rule: a user's rules, as pattern and as callable, first that matches wins") {
  std::vector<grouping_rule> const rules{grouping_rule{
      "first letter", [](std::string_view name) { return std::optional{std::string{name.substr(0, 1)}}; }}};
  CHECK(members({"alpha", "beta", "axis"}, rules) == groups{{0, 2}, {1}});
  CHECK(members({"x.fc1", "x.fc2", "y.fc1"}, {grouping_rule{"{fc1,fc2}"}}) == groups{{0, 1}, {2}});
  CHECK(members({"x.q_proj", "x.k_proj"}, {}) == groups{{0}, {1}});
  CHECK(says(error_text(error_id::config_value, [] { grouping_rule{"{a,b"}; }), "{a,b"));
  CHECK(says(error_text(error_id::config_value, [] { grouping_rule{""}; }), "empty"));
}

TEST_CASE("grouping_rule: a pattern that is not well formed is refused with what is wrong") {
  struct {
    char const *pattern, *fault;
  } const bad[] = {{"(a.b", "not closed"},       {"a.b)", "no '('"},          {"a).(b", "no '('"},
                   {"(a).(b)", "more than one"}, {"((a)).b", "within"},       {"x(a).b", "'x(a'"},
                   {"(a)x.b", "'a)x'"},          {"().b", "segment is empty"}, {"a..b", "segment is empty"},
                   {".a", "segment is empty"},   {"a.", "segment is empty"},  {"x{a,b}", "'x{a,b}'"},
                   {"{a,b}x", "'{a,b}x'"},       {"}a{", "whole segment"},    {"{a.b}", "'{a'"},
                   {"{{a},b}", "whole segment"}, {"{}", "alternative"},       {"{a,}", "alternative"},
                   {"{,a}.b", "alternative"},    {"{", "whole segment"},      {"(", "segment is empty"}};
  for (auto const& b : bad) {
    auto const text = error_text(error_id::config_value, [&] { grouping_rule{b.pattern}; });
    CAPTURE(text);
    CHECK(says(text, std::string{"'"} + b.pattern + "'", b.fault));
  }
  for (auto const* good : {"(a)", "x.(a.b).c", "(a.{b,c}).#", "{a}", "#"}) CHECK_NOTHROW(grouping_rule{good});
}

TEST_CASE("grouping_rule: what runtimes fuse has one parent, or none where the layers are the model's own") {
  CHECK(members({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "w1", "w3"}, fused_layer_rules()) ==
        groups{{0, 1, 2}, {3}, {4, 5}, {6, 7}});
  CHECK(members({"q_proj", "l.q_proj", "l.k_proj", "m.l.k_proj", "m.l.v_proj", "k_proj"}, fused_layer_rules()) ==
        groups{{0, 5}, {1, 2}, {3, 4}});
  CHECK(members({"xq_proj", "k_proj", ""}, fused_layer_rules()) == groups{{0}, {1}, {2}});
}

TEST_CASE("grouping_rule: a rule without a function is refused by its label") {
  CHECK(says(error_text(error_id::config_value, [] { grouping_rule{"mine", nullptr}; }), "grouping rule 'mine'"));
}
