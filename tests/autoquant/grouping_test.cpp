#include "mixbit/autoquant/grouping.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/budget.hpp"
#include "support/error_text.hpp"
#include "support/group_members.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

groups members(std::vector<std::string> const& names) { return mixbit::test::members(names, default_grouping_rules()); }

}  // namespace

TEST_CASE("grouping: attention and MLP projections of a layer share recipes, others stand alone") {
  CHECK(members({"m.0.attn.q_proj", "m.0.attn.k_proj", "m.0.attn.v_proj", "m.0.attn.o_proj", "m.0.mlp.gate_proj",
                 "m.0.mlp.up_proj", "m.0.mlp.down_proj", "m.1.attn.q_proj", "m.1.attn.k_proj", "lm_head"}) ==
        groups{{0, 1, 2}, {3}, {4, 5}, {6}, {7, 8}, {9}});
}

TEST_CASE("grouping: all experts of a layer share one recipe, also down projections") {
  CHECK(members({"m.0.mlp.experts.0.gate_proj", "m.0.mlp.experts.0.down_proj", "m.0.mlp.experts.11.up_proj",
                 "m.1.mlp.experts.0.up_proj", "m.0.mlp.shared_expert.up_proj", "m.0.mixer.experts.3.up_proj",
                 "m.0.mixer.experts.4.down_proj"}) == groups{{0, 1, 2}, {3}, {4}, {5, 6}});
  CHECK(members({"m.mlp.experts.local_experts.0.linear_fc1", "m.mlp.experts.local_experts.1.linear_fc2"}) ==
        groups{{0, 1}});
}

TEST_CASE("grouping: the remaining default rules") {
  CHECK(members({"e.0.w1", "e.0.w2", "e.1.w3", "f.0.w1"}) == groups{{0, 1, 2}, {3}});
  CHECK(members({"e.w1_linear.0", "e.w2_linear.5", "e.w3_linear.1"}) == groups{{0, 1, 2}});
  CHECK(members({"a.linear_attn.in_proj_qkv", "a.linear_attn.in_proj_z", "a.linear_attn.in_proj_a",
                 "a.linear_attn.in_proj_b", "a.linear_attn.out_proj"}) == groups{{0, 1}, {2, 3}, {4}});
}

TEST_CASE("grouping: names that only look alike stay apart") {
  CHECK(members({"q_proj", "k_proj"}) == groups{{0}, {1}});                    // ModelOpt's rules want a dot
  CHECK(members({"a.xq_proj", "a.k_proj"}) == groups{{0}, {1}});
  CHECK(members({"a.w1.x", "a.w2.y"}) == groups{{0}, {1}});
  CHECK(members({"b.q_proj", "b.gate_proj"}) == groups{{0}, {1}});             // one prefix, two rules
  CHECK(members({"m.mlp.experts.one.up_proj", "m.mlp.experts.two.up_proj"}) == groups{{0}, {1}});
}

TEST_CASE("grouping: groups that share a weight become one, in the order of their first member") {
  std::vector<std::string> const names{"x.q_proj", "alone", "x.k_proj", "y.gate_proj", "head", "y.up_proj", "bridge"};
  auto const rules = default_grouping_rules();
  char w[7];
  auto const joined = [&](std::vector<void const*> const& weights) {
    return join_tied(group_modules(names, rules), weights);
  };
  auto const apart = joined({w, w + 1, w + 2, w + 3, w + 4, w + 5, w + 6});
  REQUIRE(apart.size() == 5);
  CHECK(label_of(apart[0], rules) == "{q_proj,k_proj,v_proj}");
  CHECK(label_of(apart[1], rules) == "");

  auto const two = joined({w, w + 1, w + 2, w + 3, w + 2, w + 5, w + 1});  // k_proj and head; alone and bridge
  REQUIRE(two.size() == 3);
  CHECK(two[0].members == std::vector<std::size_t>{0, 2, 4});
  CHECK(label_of(two[0], rules) == "{q_proj,k_proj,v_proj} + tied weight");
  CHECK(two[1].members == std::vector<std::size_t>{1, 6});
  CHECK(label_of(two[1], rules) == "tied weight");
  CHECK(label_of(two[2], rules) == "{gate_proj,up_proj}");

  auto const within = joined({w, w + 1, w, w + 3, w + 4, w + 5, w + 6});  // in one group anyway
  CHECK(within.size() == 5);
  CHECK(label_of(within[0], rules) == "{q_proj,k_proj,v_proj}");
}

TEST_CASE("grouping: a later group may tie earlier ones together") {
  std::vector<std::string> const names{"a", "b", "x.q_proj", "x.k_proj", "c"};
  auto const rules = default_grouping_rules();
  int first, second, third;
  std::vector<void const*> const weights{&first, &second, &first, &second, &third};  // q with a, k with b
  auto const all = join_tied(group_modules(names, rules), weights);
  REQUIRE(all.size() == 2);
  CHECK(all[0].members == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(label_of(all[0], rules) == "{q_proj,k_proj,v_proj} + tied weight");
  CHECK(all[1].members == std::vector<std::size_t>{4});
}

TEST_CASE("budget: a target is exactly the decimal that was written, floored once") {
  CHECK(effective_bits{8.0}.budget(770048) == 8 * 770048);
  CHECK(effective_bits{std::string_view{"4.8"}}.budget(770048) == 3696230);  // 3696230.4
  CHECK(effective_bits{4.8}.budget(10) == 48);
  CHECK(effective_bits{0.1}.budget(30) == 3);
  CHECK(effective_bits{16.0}.budget(std::int64_t{1} << 50) == std::int64_t{1} << 54);
  CHECK(effective_bits{std::string_view{"6"}}.value() == 6.0);
}

TEST_CASE("budget: what is no target is refused with its text") {
  for (char const* bad : {"", "abc", "-4", "4.8.1", "0", "0.0", "16.01", "1e1", "nan", " 4", "123456789012345678"})
    CHECK(says(error_text(error_id::config_value, [&] { effective_bits{std::string_view{bad}}; }),
               "'" + std::string{bad} + "'"));
}
