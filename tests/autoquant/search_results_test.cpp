// What comes of a search: its plan as JSON and applied, and its reports.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

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

TEST_CASE("plan: what it says of its search is read, checked and held against what applies it") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(7.0)};
  auto const steps = search_steps_of(net);
  s.run(steps);
  auto const j = to_json(s.plan(s.choose()));
  CHECK(j["searched_with"]["calibration steps"] == std::to_string(steps.calibration));
  CHECK(j["searched_with"]["scoring steps"] == std::to_string(steps.scoring));
  CHECK(j["searched_with"]["numerics"].get<std::string>().starts_with("stored "));
  auto const plan = plan_from_json(j, "plan.json");
  CHECK(to_json(plan) == j);
  auto old = j;
  for (char const* key : {"searched_with", "achieved", "constraints", "method"}) old.erase(key);
  CHECK(plan_from_json(old, "plan.json").searched_with.empty());

  auto const notes_of = [&](quantization_plan const& applied, policy rules) {
    small_network other;
    model<cpu_backend> m2{other, {.numerics = rules}};
    return apply_plan(m2, applied, search_steps_of(other)).notes;
  };
  CHECK(notes_of(plan, policy::stored).empty());
  auto const changed = notes_of(plan, policy::modelopt);
  REQUIRE(changed.size() == 1);
  CHECK(changed[0].find("had numerics 'stored ") != std::string::npos);
  CHECK(notes_of(plan_from_json(old, "plan.json"), policy::modelopt).empty());

  auto const refusal = [&](char const* member, char const* key, nlohmann::ordered_json const& value) {
    auto wrong = j;
    (key == nullptr ? wrong[member] : wrong[member][key]) = value;
    return error_text(error_id::search_plan, [&] { plan_from_json(wrong, "plan.json"); });
  };
  for (char const* method : {"gradient", "kl_div", "degradation", "weight_error"}) {
    auto other = j;
    other["method"] = method;
    CHECK(plan_from_json(other, "plan.json").method == method);
  }
  CHECK(says(refusal("method", nullptr, "magic"),
             "method must be gradient, kl_div, degradation or weight_error, got \"magic\""));
  CHECK(says(refusal("searched_with", "numerics", 3), "searched_with.numerics must be a text, got 3"));
  CHECK(says(refusal("achieved", "effective_bits", "6"), "achieved.effective_bits must be a number from 0 on"));
  CHECK(says(refusal("achieved", "bits", 1e9), "achieved.bits must be within achieved.budget_bits"));
  CHECK(says(refusal("achieved", "optimal", 1), "achieved.optimal must be true or false, got 1"));
  CHECK(says(refusal("achieved", "bitz", 1), "achieved has no field 'bitz'"));
  CHECK(says(refusal("achieved", "cost_model", {}), "achieved.cost_model must be a text"));
  CHECK(says(refusal("constraints", "effective_bits", 17), "constraints.effective_bits must be above 0"));
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

TEST_CASE("search: monotone scores choose as ModelOpt's do, and what was measured stays beside them") {
  small_network net;
  model<cpu_backend> m{net};
  auto options = three_formats(16.0);
  search<cpu_backend> raw{m, options};
  raw.run(search_steps_of(net));
  options.monotone_scores = true;
  small_network other;
  model<cpu_backend> m2{other};
  search<cpu_backend> made{m2, options};
  CHECK(to_text(made.resolved(1, 1)).find("by gradient, monotone with as many backwards") != std::string::npos);
  made.run(search_steps_of(other));
  bool rose = false;
  for (std::size_t g = 0; g < raw.stats().size(); ++g) {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t k = 0; k < raw.stats()[g].candidates.size(); ++k) {
      auto const &measured = raw.stats()[g].candidates[k], &shown = made.stats()[g].candidates[k];
      rose = rose || measured.score > least;
      least = std::min(least, measured.score);
      CHECK(shown.score == least);
      CHECK(shown.raw_score() == measured.score);
      CHECK((shown.standard_error() == measured.standard_error()));
    }
  }
  CHECK(rose);
  auto const j = to_json(made.stats());
  CHECK(j["first.quant_recipe"]["raw_scores"] == to_json(raw.stats())["first.quant_recipe"]["scores"]);
  CHECK(made.notes().back().starts_with("scores are monotone"));
  CHECK(raw.notes().empty());
}
