// A plan as a config: the same model from quantize(), by exact names.
#include "mixbit/autoquant/plan_config.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/json.hpp"
#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Names that a wildcard would take for more than themselves, and ones that those would match.
std::vector<std::string> const odd_names = {"blk[0]*", "blk0", "blk0x", "a?", "ab",
                                            "[!a]",    "b",    "x]",    "n*.up", "n1.up"};

search_options options_of(std::vector<quantize_config> formats) {
  search_options o{.formats = std::move(formats), .target = 16.0};
  o.default_grouping = false;
  return o;
}

/// The network's outputs under `choice`, by the search and by quantize() with what a file says of its plan.
struct outputs {
  matrix searched, by_config;
  std::vector<std::string> notes;
};
outputs both(std::vector<quantize_config> const& formats, std::vector<int> choice) {
  named_chain net{odd_names}, other{odd_names};
  model<cpu_backend> m{net}, m2{other};
  search<cpu_backend> s{m, options_of(formats)};
  s.run(net.steps());
  allocation const mix{std::move(choice)};
  s.apply(mix);
  auto const made = plan_config(m2, plan_from_json(to_json(s.plan(mix)), "plan.json"));
  auto const config = config_from_json(config_to_text(made.config), "");
  auto const steps = other.steps();
  quantize(m2, config, [&] {
    for (int i = 0; i < steps.calibration; ++i) steps.calibrate(i);
  });
  return {net.forward(net.batch(5)), other.forward(net.batch(5)), made.notes};
}

}  // namespace

TEST_CASE("plan config: quantize() with it makes what the search left, whatever characters names have") {
  auto const choice = std::vector{0, 1, 2, 3, 0, 1, 2, 3, 3, 0};
  auto const same =
      both({preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG"), preset("FP8_DEFAULT_CFG")}, choice);
  CHECK(same_bits(same.searched, same.by_config));
  CHECK(same.notes.empty());
}

TEST_CASE("plan config: names are exact, and everything else is off") {
  named_chain net{odd_names};
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_of({preset("INT8_WEIGHT_ONLY_CFG")})};
  std::vector<int> choice(odd_names.size(), 1);
  choice[0] = choice[5] = 0;
  auto const config = plan_config(m, s.plan({choice}), "mine").config;
  CHECK(config.name == "mine");
  REQUIRE(config.entries.size() == 3);
  CHECK_FALSE(config.entries[0].enable);
  CHECK(config.entries[1].quantizer_name.label() == "blk[[]0][*].weight_quantizer");
  CHECK(config.entries[2].quantizer_name.label() == "[[]!a].weight_quantizer");
  auto const resolved = quantize(m, config);
  CHECK(resolved.enabled_count() == 2);
  CHECK(resolved.matches[1] == 1);
}

TEST_CASE("plan config: one algorithm is the config's, and what quantize() does otherwise is noted") {
  auto awq = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  awq.algorithm = "awq_lite";
  awq.name = "AWQ";
  std::vector<int> all(odd_names.size(), 0), one = all, mixed = all;
  auto const whole = both({awq}, all);
  CHECK(mentions(whole.notes, "AWQ", "a quarter of its steps"));
  CHECK(whole.notes.size() == 1);
  one[3] = 1;
  CHECK(mentions(both({awq}, one).notes, "calibrated it in a? too", "bits may differ"));
  mixed[3] = 1;
  auto const refused = [&] { both({awq, preset("FP8_DEFAULT_CFG")}, mixed); };
  CHECK(says(error_text(error_id::config_conflict, refused), "blk[0]* as AWQ", "a? as FP8_DEFAULT_CFG"));
}

TEST_CASE("plan config: a plan of another model is refused") {
  named_chain net{{"a", "b"}}, other{{"a", "c"}};
  model<cpu_backend> m{net}, m2{other};
  search<cpu_backend> s{m, options_of({preset("INT8_WEIGHT_ONLY_CFG")})};
  auto const plan = s.plan({{0, 0}});
  CHECK(says(error_text(error_id::search_plan, [&] { plan_config(m2, plan); }), "names 'b'"));
}
