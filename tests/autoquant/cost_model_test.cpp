// What groups cost where a part of their bits counts: routed experts, excluded layers, and exact sums of fractions.
#include "mixbit/autoquant/cost_model.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/json.hpp"
#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

search_options int8_search() {
  search_options o;
  o.formats = {preset("INT8_DEFAULT_CFG")};
  o.target = 16.0;
  o.cost = cost_model::modelopt;
  return o;
}
constexpr std::int64_t elements = 32 * 32;

}  // namespace

TEST_CASE("cost model: routed experts are known by their names, shared ones are none") {
  for (char const* routed : {"layers.0.mlp.experts.3.up_proj", "experts.0", "a.experts", "a.experts.local.1"})
    CHECK(is_routed_expert(routed));
  for (char const* other :
       {"mlp.shared_experts.0.up_proj", "mlp.shared_expert.up_proj", "mlp.experts2.0", "myexperts.1", "up_proj", ""})
    CHECK_FALSE(is_routed_expert(other));
}

TEST_CASE("cost model: active_moe counts the experts that run, exactly") {
  named_chain net{{"0.mlp.experts.0.up_proj", "0.mlp.experts.1.up_proj", "head"}};
  model<cpu_backend> m{net};
  auto o = int8_search();
  o.active_experts = active_moe{.top_k = 2, .num_experts = 6};
  search<cpu_backend> s{m, o};
  auto const& stats = s.stats();
  REQUIRE(stats.size() == 2);
  CHECK(stats[0].weight == cost_weight{1, 3});
  CHECK(stats[1].weight == cost_weight{1, 1});
  CHECK(stats[0].candidates[0].bits == 2 * 8 * elements);  // what it takes, whatever counts
  CHECK(cost_unit(stats) == 3);
  CHECK(weighted_elements(stats) == 2 * elements + 3 * elements);
  CHECK(reachable(stats).minimum == 8 * 5 * elements);
  CHECK(reachable(stats).maximum == 16 * 5 * elements);
  s.run(net.steps());
  // 16 bits for the experts and 8 for the head: (2 * 16 + 3 * 8) / 5 = 11.2 bits; the other way round 12.8
  auto const at = s.choose(effective_bits{std::string_view{"11.2"}});
  CHECK(at.choice == std::vector<int>{1, 0});
  CHECK(at.bits == 56 * elements);  // in thirds of a bit
  CHECK(at.unit == 3);
  CHECK(at.bits_per_element == doctest::Approx(11.2));
  auto const below = s.choose(effective_bits{std::string_view{"11.199"}});
  CHECK(below.choice == std::vector<int>{0, 0});
  auto const plan = s.plan(at);
  CHECK(plan.cost_model == "modelopt, active_moe 2/6");
  auto const j = to_json(stats);
  auto const& experts = j["0.mlp.experts.0.up_proj.quant_recipe"];
  CHECK(experts["cost_weight"].get<double>() == 1.0 / 3);
  CHECK(experts["cost_weight_exact"] == nlohmann::ordered_json::array({1, 3}));
  CHECK(experts["costs"][1].get<double>() == doctest::Approx(2.0 * elements / 3));
  CHECK(experts["uncompressed_cost"].get<double>() == doctest::Approx(2.0 * elements / 3));
  CHECK(to_json(plan)["achieved"]["bits"].get<double>() == doctest::Approx(56.0 * elements / 3));
}

TEST_CASE("cost model: what is excluded costs nothing and buys nothing") {
  named_chain net{{"vision.a", "vision.b", "text.a"}};
  model<cpu_backend> m{net};
  auto o = int8_search();
  o.cost_excluded = {"vision.*"};
  search<cpu_backend> s{m, o};
  CHECK(s.stats()[0].weight == cost_weight{0, 1});
  CHECK(weighted_elements(s.stats()) == elements);
  s.run(net.steps());
  auto const chosen = s.choose(8.0);
  CHECK(chosen.choice == std::vector<int>{1, 1, 0});  // unquantized for nothing
  CHECK(chosen.bits == 8 * elements);
  o.cost_excluded = {"*"};
  CHECK(says(error_text(error_id::search_input, [&] { search<cpu_backend>{m, o}; }), "excluded from the cost"));
  o.cost_excluded = {"audio.*"};
  CHECK(says(error_text(error_id::config_no_match, [&] { search<cpu_backend>{m, o}; }), "excluded from cost",
             "'audio.*'"));
}

TEST_CASE("cost model: a group counts as excluded only as a whole") {
  named_chain net{{"a.q_proj", "a.k_proj"}};
  model<cpu_backend> m{net};
  auto o = int8_search();
  o.cost_excluded = {"*q_proj"};
  search<cpu_backend> s{m, o};
  CHECK(s.stats()[0].weight == cost_weight{});
}

TEST_CASE("cost model: active_moe without a routed expert, or with a fraction that is none, is refused") {
  named_chain net{{"a", "b"}};
  model<cpu_backend> m{net};
  auto o = int8_search();
  o.active_experts = active_moe{.top_k = 1, .num_experts = 2};
  CHECK(says(error_text(error_id::config_no_match, [&] { search<cpu_backend>{m, o}; }), "'routed experts'"));
  for (auto const& [k, n] : {std::pair{0, 4}, {5, 4}, {-1, -1}}) {
    o.active_experts = active_moe{.top_k = k, .num_experts = n, .experts = "a"};
    CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, o}; }), "top_k " + std::to_string(k)));
  }
}

TEST_CASE("cost model: fractions whose common denominator or product overflows are refused, not wrapped round") {
  auto const stats_of = [](std::vector<cost_weight> const& weights, std::int64_t size) {
    candidate_stats stats;
    for (auto const& w : weights) {
      group_stats g{"g" + std::to_string(stats.size()), {"g"}, "", "", size, {{"a", 0, 1.0, {}, 4 * size}}};
      g.weight = w;
      stats.push_back(g);
    }
    return stats;
  };
  auto const refusal = [&](std::vector<cost_weight> const& weights, std::int64_t size) {
    return error_text(error_id::search_input, [&] { (void)reachable(stats_of(weights, size)); });
  };
  CHECK(refusal({{1, 3}, {2, 5}}, 1'000'000) == "(no error)");
  CHECK(says(refusal({{1, (std::int64_t{1} << 61) - 1}, {1, 7}}, 1), "g1", "overflow"));
  CHECK(says(refusal({{(1 << 19), (1 << 20) - 1}}, std::int64_t{1} << 43), "g0", "overflow"));
  CHECK(says(refusal({{1, 0}}, 1), "g0", "1/0"));
}

TEST_CASE("statistics: a score that is not a number ranks last, and the order is one") {
  candidate_stats stats;
  for (double const s : {1.0, std::nan(""), 3.0, std::nan(""), 2.0})
    stats.push_back({"g", {"g"}, "", "", 1, {{"a", 0, s, {}, 4}, {none_label, -1, 0, {}, 16}}});
  CHECK(ranked(stats) == std::vector<std::size_t>{2, 4, 0, 1, 3});
  stats[2].candidates.pop_back();  // without a choice it was not scored
  CHECK(ranked(stats) == std::vector<std::size_t>{4, 0, 1, 3, 2});
  CHECK(std::isnan(sensitivity(stats[2])));
}
