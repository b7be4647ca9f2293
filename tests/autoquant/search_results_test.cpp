// What comes of a search: its plan as JSON and applied, and its reports.
#include <doctest/doctest.h>

#include <cmath>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/report/markdown.hpp"
#include "support/error_text.hpp"
#include "support/searched_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("plan: written as JSON and applied to a fresh model it gives the same bits") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(7.0)};
  s.run(search_steps_of(net));
  auto const chosen = s.choose(7.0);
  s.apply(chosen);
  auto const text = to_json(s.plan(chosen)).dump();
  auto const plan = plan_from_json(nlohmann::ordered_json::parse(text), "plan.json");
  small_network other;
  model<cpu_backend> m2{other};
  apply_plan(m2, plan, search_steps_of(other));
  CHECK(same_bits(net.forward(search_batch), other.forward(search_batch)));
}

TEST_CASE("plan: one that does not fit is refused by name, and the model stays") {
  small_network net;
  model<cpu_backend> m{net};
  auto const where = "plan.json";
  auto const parse = [&](char const* text) { return plan_from_json(nlohmann::ordered_json::parse(text), where); };
  auto const other =
      parse(R"j({"version":1,"formats":{},"recipe":{"third.quant_recipe":"NONE(effective-bits: 16.0)"},
                "modules":{"third":{"recipe":"NONE(effective-bits: 16.0)"}}})j");
  CHECK(says(error_text(error_id::search_plan, [&] { apply_plan(m, other, {}); }), "third"));
  auto const half =
      parse(R"j({"version":1,"formats":{},"recipe":{"first.quant_recipe":"NONE(effective-bits: 16.0)"},
                "modules":{"first":{"recipe":"NONE(effective-bits: 16.0)"}}})j");
  CHECK(says(error_text(error_id::search_plan, [&] { apply_plan(m, half, {}); }), "second"));
}

TEST_CASE("plan: JSON that is no plan is refused with the member and its value") {
  struct {
    char const *text, *member, *value;
  } const bad[] = {
      {R"([1])", "a plan", "[1]"},
      {R"({})", "a plan", "'version'"},
      {R"({"version":2})", "version", "2"},
      {R"({"version":"1"})", "version", "\"1\""},
      {R"({"version":1})", "a plan", "'formats'"},
      {R"({"version":1,"formats":[7]})", "formats", "[7]"},
      {R"({"version":1,"formats":{"F":3}})", "formats.F", "3"},
      {R"({"version":1,"formats":{"F":{}}})", "formats.F", "'nominal_bits'"},
      {R"({"version":1,"formats":{"F":{"nominal_bits":"four"}}})", "formats.F.nominal_bits", "\"four\""},
      {R"({"version":1,"formats":{"F":{"nominal_bits":-5}}})", "formats.F.nominal_bits", "-5"},
      {R"({"version":1,"formats":{"F":{"nominal_bits":4}}})", "formats.F", "'config'"},
      {R"({"version":1,"formats":{"F":{"nominal_bits":4,"config":"x"}}})", "formats.F.config", "\"x\""},
      {R"({"version":1,"formats":{}})", "a plan", "'recipe'"},
      {R"({"version":1,"formats":{},"recipe":["X"]})", "recipe", "[\"X\"]"},
      {R"({"version":1,"formats":{},"recipe":"X"})", "recipe", "\"X\""},
      {R"({"version":1,"formats":{},"recipe":{"g":1}})", "recipe.g", "1"},
      {R"({"version":1,"formats":{},"recipe":{"g":"X"}})", "recipe.g", "'X'"},
      {R"({"version":1,"formats":{},"recipe":{}})", "a plan", "'modules'"},
      {R"({"version":1,"formats":{},"recipe":{},"modules":null})", "modules", "null"},
      {R"({"version":1,"formats":{},"recipe":{},"modules":{"m":"X"}})", "modules.m", "\"X\""},
      {R"({"version":1,"formats":{},"recipe":{},"modules":{"m":{}}})", "modules.m", "'recipe'"},
      {R"({"version":1,"formats":{},"recipe":{},"modules":{"m":{"recipe":"X"}}})", "modules.m.recipe", "'X'"},
      {R"({"version":1,"formats":{},"recipe":{},"modules":{},"notes":"n"})", "notes", "\"n\""},
      {R"({"version":1,"formats":{},"recipe":{},"modules":{},"notes":["n",4]})", "notes[1]", "4"}};
  for (auto const& b : bad) {
    auto const text = error_text(error_id::search_plan,
                                 [&] { plan_from_json(nlohmann::ordered_json::parse(b.text), "plan.json"); });
    CAPTURE(text);
    CHECK(says(text, "plan.json: ", std::string{b.member} + " ", b.value));
  }
  auto const rule =
      R"j({"version":1,"formats":{},"recipe":{},"modules":{"m":{"recipe":"NONE(effective-bits: 16.0)","rule":[]}}})j";
  CHECK(says(error_text(error_id::search_plan,
                        [&] { plan_from_json(nlohmann::ordered_json::parse(rule), "plan.json"); }),
             "modules.m.rule", "[]"));
}

TEST_CASE("reports: statistics, manifest and markdown say what was measured") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(7.0)};
  s.run(search_steps_of(net));
  auto const chosen = s.choose(7.0);
  auto const plan = s.plan(chosen);
  auto const stats = to_json(s.stats());
  CHECK(stats["first.quant_recipe"]["costs"][3].get<double>() == 24 * 32);
  CHECK(stats["first.quant_recipe"]["uncompressed_cost"].get<double>() == 24 * 32);
  CHECK(stats["first.quant_recipe"]["raw_scores"][0].get<double>() == s.stats()[0].candidates[0].score);
  CHECK(stats["first.quant_recipe"]["standard_errors"][0].get<double>() > 0);
  auto const manifest = manifest_json(s.stats(), plan);
  auto const& ranking = manifest["sensitivity_ranking"];
  REQUIRE(ranking.size() == 2);
  CHECK(ranking[0]["score"].get<double>() >= ranking[1]["score"].get<double>());
  CHECK(manifest["autoquant_state"]["is_satisfied"] == true);
  auto const report = sensitivity_report(s.stats(), plan, measured_loss{1.5, 1.625});
  CHECK(report.find("| measured loss | 1.500000 unquantized, 1.625000 quantized |") != std::string::npos);
  CHECK(report.find(".quant_recipe") == std::string::npos);
  CHECK(report.find("| second |") != std::string::npos);
}

TEST_CASE("statistics: formats that no preset's name stands for come with their configs, once") {
  candidate_stat const int8{"INT8_DEFAULT_CFG(effective-bits: 8.0)", 0, 1, {}, 8};
  candidate_stat const own{"INT4_B32(effective-bits: 4.5)", 1, 1, {}, 5};
  candidate_stat const changed{"FP8_DEFAULT_CFG(effective-bits: 8.0)", 2, 1, {}, 8};
  candidate_stats const stats{{"a.quant_recipe", {"a"}, "", "", 1, {own, int8, changed}},
                              {"b.quant_recipe", {"b"}, "", "", 1, {own, int8}}};
  auto small = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  small.name = "INT4_B32";
  auto other = preset("INT8_DEFAULT_CFG");  // under the name of another preset
  std::vector<search_format> const formats{{own.format, small, 4.5},
                                           {int8.format, preset("INT8_DEFAULT_CFG"), 8},
                                           {changed.format, other, 8}};
  auto const j = to_json(stats, formats);
  auto const& configs = j["a.quant_recipe"]["configs"];
  CHECK(configs.size() == 2);
  auto const again = detail::named_config(configs[own.format], own.format, "file", "a");
  CHECK(again.name == "INT4_B32");
  CHECK(same_content(again, small));
  CHECK(configs.contains(changed.format));
  CHECK_FALSE(j["b.quant_recipe"].contains("configs"));
  CHECK_FALSE(to_json(stats)["a.quant_recipe"].contains("configs"));
}

TEST_CASE("statistics: sums that do not fit are refused by the group that they end at, before any budget") {
  constexpr std::int64_t half = std::int64_t{1} << 62;
  candidate_stats stats{{"a.quant_recipe", {"a"}, "", "", 1, {{"F", 0, 1, {}, half}}},
                        {"b.quant_recipe", {"b"}, "", "", 1, {{"F", 0, 1, {}, half}}}};
  CHECK(says(error_text(error_id::search_input, [&] { reachable(stats); }), "b.quant_recipe", "overflow 63 bits"));
  stats[1].candidates[0].bits = half - 1;
  CHECK(reachable(stats).maximum == std::numeric_limits<std::int64_t>::max());
  stats[0].elements = stats[1].elements = half;
  CHECK(says(error_text(error_id::search_input, [&] { weighted_elements(stats); }), "b.quant_recipe", "overflow"));
  CHECK(says(error_text(error_id::search_input, [&] { total_elements(stats); }), "b.quant_recipe", "overflow"));
}

TEST_CASE("candidate_stat: the standard error over steps") {
  candidate_stat c{"F", 0, 10.0, {1, 2, 3, 4}, 0};
  CHECK(c.standard_error() == doctest::Approx(std::sqrt(5.0 / 3.0) * 2.0));  // n * sd / sqrt(n), n = 4
  c.by_step = {10};
  CHECK(std::isnan(c.standard_error()));
}
