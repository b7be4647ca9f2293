// Recipes with algorithms of their own: each as quantize() would have it alone, beside the others, on its own steps.
#include "mixbit/autoquant/recipe_calibration.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/json.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

matrix batch_of(int i) { return outliers(24, 32, 7 + static_cast<unsigned>(i)); }

quantize_config format_of(std::string const& preset_name, std::string const& method) {
  auto config = preset(preset_name);
  config.algorithm = method;
  config.name = preset_name + " by " + method;
  return config;
}
search_steps steps_of(small_network& net, int calibration) {
  return {.calibration = calibration,
          .scoring = 2,
          .calibrate = [&net](int i) { net.forward(batch_of(i)); },
          .score = [&net](int i) {
            net.forward(batch_of(i));
            net.backward(random_matrix(24, 8, 20));
          }};
}
model_options<cpu_backend> with_linalg() {
  model_options<cpu_backend> o;
  o.linalg = plain_linalg{};
  return o;
}

/// What a network computes after quantize() with this format on so many batches.
matrix alone(quantize_config const& format, int batches) {
  small_network net;
  model<cpu_backend> m{net, with_linalg()};
  quantize(m, format, [&] {
    for (int i = 0; i < batches; ++i) net.forward(batch_of(i));
  });
  return net.forward(batch_of(9));
}

}  // namespace

TEST_CASE("recipe calibration: each recipe is what its own algorithm makes of it alone, whatever lies beside it") {
  auto const awq = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite"),
             smooth = format_of("INT8_DEFAULT_CFG", "smoothquant"),
             gptq = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "gptq"), fp8 = preset("FP8_DEFAULT_CFG"),
             svd = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "svdquant");
  small_network net;
  matrix const first = net.first.weight, second = net.second.weight, before = net.forward(batch_of(9));
  model<cpu_backend> m{net, with_linalg()};
  search<cpu_backend> s{m, {.formats = {smooth, awq, fp8, gptq, svd}, .target = 16.0}};
  s.run(steps_of(net, 4));
  CHECK(same_bits(before, net.forward(batch_of(9))));
  struct {
    quantize_config const& format;
    int batches;
  } const cases[] = {{awq, 1}, {gptq, 4}, {svd, 1}, {smooth, 4}, {fp8, 4}};
  for (std::size_t k = 0; k < std::size(cases); ++k) {
    CAPTURE(cases[k].format.name);
    auto const& candidate = s.stats()[0].candidates[k];
    REQUIRE(candidate.format.find(cases[k].format.name) == 0);
    s.apply({{static_cast<int>(k), static_cast<int>(k)}});
    CHECK(same_bits(net.forward(batch_of(9)), alone(cases[k].format, cases[k].batches)));
  }
  s.apply(s.choose(16.0));
  CHECK(same_bits(before, net.forward(batch_of(9))));
  CHECK(same_bits(first, net.first.weight));
  CHECK(same_bits(second, net.second.weight));
}

TEST_CASE("recipe calibration: recipes that search scales get a quarter of the steps, and one at least") {
  for (char const* method : {"awq_lite", "awq_clip", "awq_full", "svdquant"}) {
    auto const format = format_of("INT8_DEFAULT_CFG", method);
    CHECK(calibration_steps(format, 512) == 128);
    CHECK(calibration_steps(format, 7) == 1);
    CHECK(calibration_steps(format, 1) == 1);
    CHECK(calibration_steps(format, 0) == 0);
  }
  for (char const* method : {"max", "mse", "smoothquant", "gptq"})
    CHECK(calibration_steps(format_of("INT8_DEFAULT_CFG", method), 7) == 7);
  auto several = format_of("INT8_DEFAULT_CFG", "max");
  several.algorithm = std::vector{algorithm_step{"smoothquant"}, algorithm_step{"awq_clip"}};
  CHECK(calibration_steps(several, 8) == 2);
}

TEST_CASE("recipe calibration: while a recipe calibrates, layers without it are unquantized, and progress names it") {
  small_network net;
  model<cpu_backend> m{net};
  auto const awq = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite");
  search_options o{.formats = {preset("INT8_DEFAULT_CFG")}, .target = 16.0};
  o.module_search_spaces = {{{"second"}, {awq, preset("FP8_DEFAULT_CFG")}, true}};
  search<cpu_backend> s{m, o};
  auto steps = steps_of(net, 4);
  std::vector<std::string> active, phases;
  steps.calibrate = [&](int i) {
    active.push_back(site_of(net.first).quantizers().recipe + " " + site_of(net.second).quantizers().recipe);
    net.forward(batch_of(i));
  };
  steps.progress = [&](std::string_view phase, int, int total) {
    phases.push_back(std::string{phase} + " of " + std::to_string(total));
  };
  s.run(steps);
  std::string const own = "NONE " + awq.name + "(effective-bits: 4.0)";
  CHECK(active == std::vector<std::string>{"NONE NONE", "NONE NONE", "NONE NONE", "NONE NONE", own, own});
  CHECK(phases.at(0) == "calibrate of 4");
  CHECK(phases.at(4) == "calibrate " + awq.name + " of 1");
  CHECK(s.stats()[1].candidates.size() == 3);
  auto const chosen = s.choose(9.5);
  CHECK(chosen.optimal);
}

TEST_CASE("recipe calibration: a plan makes what the search did, of each format on its part of the steps") {
  auto const awq = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite"),
             gptq = format_of("INT8_DEFAULT_CFG", "gptq"),
             svd = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "svdquant");
  small_network net;
  model<cpu_backend> m{net, with_linalg()};
  search<cpu_backend> s{m, {.formats = {awq, preset("FP8_DEFAULT_CFG"), gptq, svd}, .target = 16.0}};
  s.run(steps_of(net, 8));
  for (int first = 0; first < 5; ++first)
    for (int second = 0; second < 5; ++second) {
      allocation const mix{{first, second}};
      s.apply(mix);
      auto const plan = plan_from_json(to_json(s.plan(mix)), "plan.json");
      small_network other;
      model<cpu_backend> m2{other, with_linalg()};
      auto const report = apply_plan(m2, plan, steps_of(other, 8));
      CHECK_MESSAGE(same_bits(net.forward(batch_of(9)), other.forward(batch_of(9))), first, ' ', second);
      CHECK(site_of(other.first).recipes.size() == 1);
      if (first != 0 || second != 0) continue;
      REQUIRE(report.tokens.layers.size() == 2);
      for (auto const& layer : report.tokens.layers) CHECK(layer.tokens == 2 * 24);  // AWQ's quarter
    }
}

TEST_CASE("recipe calibration: without steps, what needs data is refused by the name of what is 0") {
  for (auto const& format : {preset("INT8_DEFAULT_CFG"), format_of("INT8_DEFAULT_CFG", "smoothquant")}) {
    small_network net;
    model<cpu_backend> m{net};
    search<cpu_backend> s{m, {.formats = {format}, .target = 16.0}};
    auto const text = error_text(error_id::state_not_calibrated, [&] { s.run(steps_of(net, 0)); });
    CHECK(says(text, "search_steps.calibration is 0", "give a forward_loop"));
  }
}

TEST_CASE("recipe calibration: an algorithm that throws, or that nobody knows, leaves the model as it was") {
  small_network net;
  model<cpu_backend> m{net};  // without linalg
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch_of(0)); });
  matrix const before = net.forward(batch_of(9));
  auto const gptq = format_of("INT8_DEFAULT_CFG", "gptq"), unknown = format_of("INT8_DEFAULT_CFG", "acme.unknown");
  search<cpu_backend> s{m, {.formats = {preset("FP8_DEFAULT_CFG"), gptq}, .target = 16.0}};
  auto const steps = steps_of(net, 2);
  CHECK(says(error_text(error_id::state_missing, [&] { s.run(steps); }), "gptq"));
  CHECK(same_bits(before, net.forward(batch_of(9))));
  CHECK_FALSE(site_of(net.first).hook);
  search_options const o{.formats = {unknown}, .target = 16.0};
  CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, o}; }), "acme.unknown"));
}
