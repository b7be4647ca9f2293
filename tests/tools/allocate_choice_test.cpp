#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include <unistd.h>

#include "examples/tools/allocate/choice.hpp"
#include "examples/tools/allocate/frontier.hpp"
#include "examples/tools/allocate/output.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/search_options.hpp"
#include "mixbit/io/json.hpp"
#include "support/solver_families.hpp"

namespace {

using namespace mixbit;

/// A file of a test's own, removed at its end.
class temporary_file {
 public:
  explicit temporary_file(std::string const& text) {
    write_file_atomically(path_, text);
  }
  temporary_file(temporary_file const&) = delete;
  temporary_file& operator=(temporary_file const&) = delete;
  ~temporary_file() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("mixbit-allocate-" + std::to_string(::getpid()) + ".json");
};

allocate::options options_for(std::string const& file, std::string const& bits) {
  allocate::options o;
  o.stats = file;
  o.target.emplace(std::string_view{bits});
  return o;
}

std::string one_group(std::string const& costs, std::string const& size) {
  return R"x({"a.quant_recipe": {"formats": ["INT8_DEFAULT_CFG(effective-bits: 8.0)", "NONE(effective-bits: 16.0)"],)x"
         R"x("scores": [1, 0], "module_names": ["a"], "costs": )x" +
         costs + ", \"uncompressed_cost\": " + size + "}}";
}

}  // namespace

TEST_CASE("allocate: on ModelOpt's own statistics never worse than its choice, within its budget") {
  auto const golden = read_json_file(std::string{MIXBIT_GOLDEN_DIR} + "/lm_autoquant.json");
  REQUIRE(golden.at("runs").size() == 7);
  for (auto const& run : golden.at("runs")) {
    json_document state;
    state["candidate_stats"] = run.at("candidate_stats");
    temporary_file const file{state.dump()};
    std::string const bits = run.at("effective_bits").dump();
    CAPTURE(bits);
    auto const o = options_for(file.path(), bits);
    auto const stats = allocate::read_statistics(file.path());
    allocate::budgets const given{allocate::cost_budget(o, stats), {}};
    auto const got = allocate::choose(stats, given, false);
    CHECK(got.optimal);
    CHECK(got.cost <= *given.cost);
    double theirs = 0;
    for (auto const& g : stats.groups) {
      std::string const& label = run.at("best").at("recipe").at(g.name).get_ref<std::string const&>();
      auto const at = std::find_if(g.candidates.begin(), g.candidates.end(),
                                   [&](allocate::candidate const& c) { return c.format == label; });
      REQUIRE(at != g.candidates.end());
      theirs += at->score;
    }
    CHECK(got.score <= theirs * (1 + 1e-12));
    auto const fair = allocate::choose(stats, given, true);
    CHECK(fair.largest <= got.largest);
    CHECK(fair.score >= got.score);
    CHECK(fair.largest == fair.largest_bound);
  }
}

TEST_CASE("allocate: the plan reads back, with the configs of its formats and every module") {
  auto const golden = read_json_file(std::string{MIXBIT_GOLDEN_DIR} + "/lm_autoquant.json");
  auto const& run = golden.at("runs").at(0);
  temporary_file const file{run.at("candidate_stats").dump()};
  auto const o = options_for(file.path(), "6");
  auto const stats = allocate::read_statistics(file.path());
  allocate::budgets const given{allocate::cost_budget(o, stats), {}};
  auto const best = allocate::choose(stats, given, false);
  auto const plan = allocate::plan_of(stats, o, given, best);
  auto const again = plan_from_json(to_json(plan), "plan.json");
  REQUIRE(again.recipe.size() == stats.groups.size());
  std::size_t modules = 0;
  for (std::size_t g = 0; g < stats.groups.size(); ++g) {
    std::string const& label = stats.groups[g].candidates[static_cast<std::size_t>(best.of_group[g])].format;
    CHECK(again.recipe[g].first == stats.groups[g].name);
    CHECK(again.recipe[g].second == label);
    for (std::string const& m : stats.groups[g].modules) {
      CHECK(again.modules[modules].name == m);
      CHECK(again.modules[modules++].recipe == label);
    }
  }
  CHECK(again.modules.size() == modules);
  CHECK(again.formats.size() >= 2);
  CHECK(plan.achieved.bits <= plan.achieved.budget);
  CHECK(plan.achieved.optimal);
}

TEST_CASE("allocate: the frontier's last point within a budget is the choice for it") {
  auto const golden = read_json_file(std::string{MIXBIT_GOLDEN_DIR} + "/lm_autoquant.json");
  temporary_file const file{golden.at("runs").at(1).at("candidate_stats").dump()};
  auto const stats = allocate::read_statistics(file.path());
  auto o_all = options_for(file.path(), "16");
  std::string text;
  allocate::write_json(stats, allocate::frontier_of(o_all, stats), [&](std::string_view part) { text += part; });
  auto const all = json_document::parse(text);
  CHECK(all.at("gap") == 0);
  CHECK(all.at("of") == all.at("points").size());
  REQUIRE(all.at("points").size() > 50);
  for (char const* const bits : {"4.8", "6", "8", "11", "16"}) {
    auto const o = options_for(file.path(), bits);
    auto const got = allocate::choose(stats, {allocate::cost_budget(o, stats), {}}, false);
    json_document const* best = nullptr;
    for (auto const& point : all.at("points"))
      if (point.at("effective_bits").get<double>() <= o.target->value()) best = &point;
    REQUIRE(best != nullptr);
    CHECK(best->at("score").get<double>() == got.score);
    CHECK(best->at("bits").get<double>() * static_cast<double>(stats.units) == static_cast<double>(got.cost));
  }
}

TEST_CASE("allocate: of a long frontier the best choices within evenly spaced budgets are written") {
  auto const golden = read_json_file(std::string{MIXBIT_GOLDEN_DIR} + "/lm_autoquant.json");
  temporary_file const file{golden.at("runs").at(1).at("candidate_stats").dump()};
  auto const stats = allocate::read_statistics(file.path());
  auto o = options_for(file.path(), "16");
  o.pareto_points = 20;
  auto const some = allocate::frontier_of(o, stats);
  auto const points = some.all.points();
  CHECK(some.shown.size() <= 20);
  CHECK(some.shown.size() >= 15);
  CHECK(some.shown.front() == 0);
  CHECK(some.shown.back() == points.size() - 1);
  CHECK(std::is_sorted(some.shown.begin(), some.shown.end(), std::less_equal<>{}));
  o.pareto_range.emplace(5, 7);
  auto const part = allocate::frontier_of(o, stats);
  for (std::size_t const i : {part.shown.front(), part.shown.back()}) {
    CHECK(allocate::effective(stats, points[i].cost) >= 5);
    CHECK(allocate::effective(stats, points[i].cost) <= 7);
  }
  CHECK(allocate::effective(stats, points[part.shown.front() - 1].cost) < 5);
  CHECK(allocate::effective(stats, points[part.shown.back() + 1].cost) > 7);
  o.limit.seconds = 1e-9;
  CHECK_FALSE(allocate::frontier_of(o, stats).all.exact());
}

TEST_CASE("allocate: scores are those that the search chose by; as measured they are where that is asked for") {
  candidate_stats measured{{"a.quant_recipe", {"a"}, "", "", 32,
                            {{"INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)", 0, 1, {1}, 144},
                             {"INT8_DEFAULT_CFG(effective-bits: 8.0)", 1, 2, {2}, 256}}}};
  make_monotone(measured);
  temporary_file const file{to_json(measured).dump()};
  auto const chosen_by = [&](bool raw) {
    auto const stats = allocate::read_statistics(file.path(), raw);
    CHECK(stats.rewritten);
    CHECK(stats.raw == raw);
    return stats.groups.at(0).candidates.at(1).score;
  };
  CHECK(chosen_by(false) == 1);
  CHECK(chosen_by(true) == 2);
}

TEST_CASE("allocate: a limit of memory bounds choice and frontier, and each says its gap") {
  auto const problem = solver_families::make("weakly_correlated", 100, 8, 10'000, 0.4, 3);
  allocate::statistics stats;
  for (std::size_t g = 0; g < problem.groups(); ++g) {
    stats.groups.push_back({"g" + std::to_string(g), {}, 1e6, {}});
    for (auto const& c : problem.group(g)) stats.groups.back().candidates.push_back({"F", c.score, c.cost, {}});
    stats.elements += 1'000'000;
  }
  CHECK(allocate::choose(stats, {problem.budget, {}}, false).optimal);
  auto const got = allocate::choose(stats, {problem.budget, {}}, false, {0, std::int64_t{1} << 20});
  CHECK(got.cost <= problem.budget);
  CHECK(got.bound < got.score);
  CHECK_FALSE(got.optimal);
  auto o = options_for("none", "8");
  o.limit.memory = std::int64_t{1} << 20;
  auto const within = allocate::frontier_of(o, stats);
  CHECK_FALSE(within.all.exact());
  CHECK(within.all.points().size() < 1000);
}

TEST_CASE("allocate: a plan from a search's own statistics has the configs of formats that are no presets") {
  auto own = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  own.name = "INT4_B32";
  std::vector<search_format> const formats{{"INT4_B32(effective-bits: 4.5)", own, 4.5},
                                           {"INT8_DEFAULT_CFG(effective-bits: 8.0)", preset("INT8_DEFAULT_CFG"), 8}};
  candidate_stats const measured{
      {"a.quant_recipe", {"a"}, "", "", 32, {{formats[0].label, 0, 2, {}, 144}, {formats[1].label, 1, 1, {}, 256}}},
      {"b.quant_recipe", {"b"}, "", "", 32, {{formats[0].label, 0, 9, {}, 144}, {formats[1].label, 1, 0, {}, 256}}}};
  temporary_file const file{to_json(measured, formats).dump()};
  auto const stats = allocate::read_statistics(file.path());
  auto const o = options_for(file.path(), "6.5");
  allocate::budgets const given{allocate::cost_budget(o, stats), {}};
  auto const plan = allocate::plan_of(stats, o, given, allocate::choose(stats, given, false));
  auto const again = plan_from_json(to_json(plan), "plan.json");
  REQUIRE(again.recipe.size() == 2);
  CHECK(again.recipe[0].second == formats[0].label);
  CHECK(again.recipe[1].second == formats[1].label);
  for (auto const& f : formats) {
    REQUIRE(again.format(f.label) != nullptr);
    CHECK(same_content(again.format(f.label)->config, f.config));
    CHECK(again.format(f.label)->config.name == f.config.name);
  }
}

TEST_CASE("allocate: costs in parts of a bit stay whole, and what is finer is rounded against the choice") {
  temporary_file const exact{one_group("[10.3125, 20]", "20")};
  auto const stats = allocate::read_statistics(exact.path());
  CHECK(stats.units == 1);
  CHECK(stats.groups[0].candidates[0].cost == 165);
  temporary_file const halves{one_group("[10.03125, 20]", "20")};
  auto const finer = allocate::read_statistics(halves.path());
  CHECK(finer.units == 2);
  CHECK(finer.groups[0].candidates[0].cost == 321);
  CHECK(finer.elements == 40);
  CHECK_FALSE(finer.rounded);
  temporary_file const thirds{one_group("[3.3333333333333335, 6.666666666666667]", "6.666666666666667")};
  auto const rounded = allocate::read_statistics(thirds.path());
  CHECK(rounded.rounded);
  auto const units = static_cast<double>(rounded.units);
  CHECK(static_cast<double>(rounded.groups[0].candidates[0].cost) > units * 16 * 3.3333333333333335);
  CHECK(static_cast<double>(rounded.elements) < units * 6.666666666666667);
}
