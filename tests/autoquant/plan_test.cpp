// Plans that contradict themselves, and entries of a search's formats that match nothing.
#include "mixbit/autoquant/plan.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/search.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// first and second in a group, third alone.
nlohmann::ordered_json plan_of_three() {
  std::string const config = R"({"quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8}}]})";
  nlohmann::ordered_json j{{"version", 1}};
  j["formats"]["A"] = {{"nominal_bits", 8}, {"config", nlohmann::ordered_json::parse(config)}};
  j["recipe"] = {{"first.quant_recipe", "A"}, {"third.quant_recipe", none_label}};
  j["modules"]["first"]["recipe"] = "A";
  j["modules"]["second"]["recipe"] = "A";
  j["modules"]["third"]["recipe"] = none_label;
  return j;
}

std::string refusal(nlohmann::ordered_json const& j) {
  return error_text(error_id::search_plan, [&] { plan_from_json(j, "plan.json"); });
}

/// Weights in 8 bits, and an entry of the user's own.
quantize_config int8_with(quantizer_entry entry) {
  return {.name = "mine",
          .entries = {{.quantizer_name = "*", .enable = false},
                      {.quantizer_name = "*weight_quantizer", .cfg = {{{.num_bits = 8}}}},
                      std::move(entry)},
          .algorithm = "max"};
}

}  // namespace

TEST_CASE("plan: recipe and modules of its JSON agree") {
  auto const good = plan_of_three();
  CHECK(plan_from_json(good, "plan.json").modules.size() == 3);
  auto j = good;
  for (auto& [group, label] : j["recipe"].items()) label = none_label;
  CHECK(says(refusal(j), "plan.json: modules.first.recipe is 'A', but recipe.first.quant_recipe is 'NONE"));
  j = good;
  j["modules"]["second"]["recipe"] = none_label;  // one member of a group
  CHECK(says(refusal(j), "modules.second.recipe is 'NONE", "but recipe.first.quant_recipe is 'A'"));
  j = good;
  j["recipe"]["fourth.quant_recipe"] = "A";
  CHECK(says(refusal(j), "recipe.fourth.quant_recipe", "'modules' does not hold"));
  j = good;
  j["recipe"].erase("first.quant_recipe");
  CHECK(says(refusal(j), "modules.first is in no group"));
}

TEST_CASE("plan: a field that nobody reads is refused, and so is a format that has the label of none") {
  auto const good = plan_of_three();
  auto j = good;
  j["effective_bits"] = 6;
  CHECK(says(refusal(j), "plan.json: a plan has no field 'effective_bits': 6"));
  j = good;
  j["modules"]["first"]["recipee"] = "A";
  CHECK(says(refusal(j), "plan.json: modules.first has no field 'recipee': \"A\""));
  j = good;
  j["formats"]["A"]["bits"] = 4;
  CHECK(says(refusal(j), "plan.json: formats.A has no field 'bits': 4"));
  j = good;
  j["formats"][none_label] = j["formats"]["A"];
  CHECK(says(refusal(j), "plan.json: formats.NONE(effective-bits: 16.0): this label is what unquantized layers have"));
}

TEST_CASE("plan: a module that is planned twice is refused") {
  small_network net;
  model<cpu_backend> m{net};
  quantization_plan plan;
  plan.modules = {{"first", none_label, {}}, {"second", none_label, {}}, {"first", none_label, {}}};
  CHECK(says(error_text(error_id::search_plan, [&] { apply_plan(m, plan, {}); }), "'first' twice"));
}

TEST_CASE("plan: a format that quantizes no weight is refused as a search refuses it, and nothing is changed") {
  small_network net;
  model<cpu_backend> m{net};
  auto j = plan_of_three();
  j["formats"]["A"]["config"]["quant_cfg"].push_back({{"quantizer_name", "*weight_quantizer"}, {"enable", false}});
  j["recipe"].erase("third.quant_recipe");
  j["modules"].erase("third");
  auto const plan = plan_from_json(j, "plan.json");
  matrix const x = random_matrix(6, 32, 7), before = net.forward(x);
  auto const text =
      error_text(error_id::config_no_match, [&] { apply_plan(m, plan, {.calibration = 1, .calibrate = [&](int) {
                                                                 net.forward(x);
                                                               }}); });
  CHECK(says(text, "quantizes no weight of first"));
  CHECK(same_bits(before, net.forward(x)));
}

TEST_CASE("plan: method, candidates and a preset that was changed under its name survive the file") {
  small_network net;
  model<cpu_backend> m{net};
  auto changed = preset("INT8_DEFAULT_CFG");
  changed.entries.push_back({.quantizer_name = "*input_quantizer", .enable = false});
  search<cpu_backend> s{m, {.formats = {changed, preset("FP8_DEFAULT_CFG")},
                            .target = 16.0,
                            .method = score_method::degradation}};
  s.run({.calibration = 1,
         .scoring = 1,
         .calibrate = [&](int) { net.forward(random_matrix(6, 32, 7)); },
         .metric = [](int) { return 1.0; }});
  auto const written = s.plan(s.choose(9.0));
  auto const read = plan_from_json(to_json(written), "plan.json");
  CHECK(read.method == "degradation");
  REQUIRE(read.modules.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) CHECK(read.modules[i].candidates == written.modules[i].candidates);
  CHECK(read.modules[1].candidates.size() == 2);
  CHECK(read.formats[0].config.name == "INT8_DEFAULT_CFG");
  CHECK(same_content(read.formats[0].config, changed));
  CHECK(to_json(read)["formats"] == to_json(written)["formats"]);
  CHECK(read.formats[1].config.entries.front().origin == preset("FP8_DEFAULT_CFG").entries.front().origin);
  auto wrong = to_json(written);
  wrong["candidates"]["first.quant_recipe"] = {"INT9"};
  CHECK(says(refusal(wrong), "candidates.first.quant_recipe is 'INT9'"));
}

TEST_CASE("search: a format may not be called what \"do not quantize\" is called") {
  small_network net;
  model<cpu_backend> m{net};
  auto none = int8_with({});
  none.name = "NONE";
  CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, {.formats = {none}}}; }), "NONE"));
}

TEST_CASE("search: a user's entry that matches nothing is refused as quantize refuses it") {
  small_network net;
  model<cpu_backend> m{net};
  auto const make = [](model<cpu_backend>& over, quantizer_entry entry) {
    return search<cpu_backend>{over, {.formats = {int8_with(std::move(entry))}, .target = 16.0}};
  };
  quantizer_entry wrong{.quantizer_name = "*frist*", .enable = false};
  CHECK(says(error_text(error_id::config_no_match, [&] { make(m, wrong); }),
             "mine: entry 2 (\"*frist*\") matches none"));
  quantizer_entry const other_class{.quantizer_name = "*", .parent_class = "nn.Conv2d", .enable = false};
  CHECK(says(error_text(error_id::config_no_match, [&] { make(m, other_class); }), "mine: entry 2", "nn.Conv2d"));
  for (char const* name : {"first.*", "input_quantizer"})  // a full name, or what a search shows entries
    CHECK_NOTHROW(make(m, {.quantizer_name = name, .enable = false}));
  wrong.origin = entry_origin::imported;
  CHECK_NOTHROW(make(m, wrong));
}

TEST_CASE("search: in a model that is not strict such an entry is a note") {
  small_network net;
  model_options<cpu_backend> lenient;
  lenient.strict = false;
  model<cpu_backend> m{net, lenient};
  auto const format = int8_with({.quantizer_name = "*frist*", .enable = false});
  search<cpu_backend> s{m, {.formats = {format}, .target = 16.0}};
  matrix const batch = random_matrix(6, 32, 7);
  s.run({.calibration = 0, .scoring = 1, .calibrate = {}, .score = [&](int) {
           net.forward(batch);
           net.backward(random_matrix(6, 8, 20));
         }, .progress = {}});
  REQUIRE(s.notes().size() == 1);
  CHECK(s.notes().front() == "mine: entry 2 (\"*frist*\") matches no quantizer");
}

TEST_CASE("search: a format without a name and a negative number of steps are refused") {
  small_network net;
  model<cpu_backend> m{net};
  auto nameless = int8_with({});
  nameless.name.clear();
  CHECK(says(error_text(error_id::config_value,
                        [&] { search<cpu_backend>{m, {.formats = {preset("INT8_DEFAULT_CFG"), nameless}}}; }),
             "format 1 of the search has no name"));
  search<cpu_backend> s{m, {.formats = {preset("INT8_DEFAULT_CFG")}, .target = 16.0}};
  auto const nothing = [](int) {};
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run({-3, 1, nothing, nothing, {}}); }),
             "search_steps.calibration is -3"));
}
