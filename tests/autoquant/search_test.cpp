#include "mixbit/autoquant/search.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/json.hpp"
#include "support/error_text.hpp"
#include "support/searched_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::string const nothing_matches = "*no_such_layer*";

/// Three layers that share one weight, two of them grouped by a rule, and one with its own.
struct tied_network {
  matrix shared = random_matrix(32, 32, 1), own = random_matrix(32, 32, 2);
  quantizer_slots<cpu_backend> q, k, lone, head;
  void walk(module_visitor<cpu_backend> const& visit) {
    visit(linear("attn.q_proj", q, own));
    visit(linear("lone", lone, shared));
    visit(linear("attn.k_proj", k, shared));
    visit(linear("head", head, shared));
  }
};

std::size_t count_of(std::vector<std::string> const& notes, std::string const& line) {
  return static_cast<std::size_t>(std::count(notes.begin(), notes.end(), line));
}

}  // namespace

TEST_CASE("search: plans before any forward - groups, candidates by bits, exact costs, reachable range") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(8.0)};
  auto const& stats = s.stats();
  REQUIRE(stats.size() == 2);
  CHECK(stats[0].name == "first.quant_recipe");
  CHECK(stats[0].elements == 24 * 32);
  REQUIRE(stats[0].candidates.size() == 4);
  CHECK(stats[0].candidates[0].format == "INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)");
  CHECK(stats[0].candidates[1].format == "INT8_DEFAULT_CFG(effective-bits: 8.0)");
  CHECK(stats[0].candidates[3].format == none_label);
  CHECK(stats[0].candidates[0].bits == 24 * 32 * 4 + 24 * 32);  // one float32 scale a row of 32
  CHECK(stats[0].candidates[1].bits == 24 * 32 * 8 + 24 * 32);
  CHECK(stats[0].candidates[2].bits == 24 * 32 * 8 + 32);
  CHECK(stats[0].candidates[3].bits == 24 * 32 * 16);
  auto const range = reachable(stats);
  CHECK(range.minimum == stats[0].candidates[0].bits + stats[1].candidates[0].bits);
  CHECK(range.maximum == 16 * total_elements(stats));
  CHECK_FALSE(net.first.slots.live());
}

TEST_CASE("search: an infeasible target is refused before any forward, with what can be reached") {
  small_network net;
  model<cpu_backend> m{net};
  CHECK(says(error_text(error_id::search_infeasible,
                        [&] {
                          search<cpu_backend> s{m, three_formats(3.0)};
                        }),
             "3 effective", "first.quant_recipe", "16"));
}

TEST_CASE("search: the least that an infeasible target's error names can be met") {
  small_network net;
  model<cpu_backend> m{net};
  for (char const* pattern : {"first", "second"}) {
    auto o = three_formats(1.0);
    o.disabled_layers = {pattern};
    auto const text = error_text(error_id::search_infeasible, [&] { search<cpu_backend>{m, o}; });
    auto const from = text.find("cannot be met: ") + 15;
    auto const least = text.substr(from, text.find(" to ", from) - from);
    o.target = effective_bits{std::string_view{least}};
    CHECK_NOTHROW(search<cpu_backend>{m, o});
    CHECK(effective_bits{std::string_view{least}}.value() <= 16);
  }
  CHECK(detail::least_target(10, 3) == "3.333334");
  CHECK(detail::least_target(12, 3) == "4");
  CHECK(detail::least_target(9, 2) == "4.5");
}

TEST_CASE("search: layers that share a weight share a recipe, and the weight is charged once") {
  tied_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(8.0)};
  REQUIRE(s.stats().size() == 1);
  auto const& g = s.stats()[0];
  CHECK(g.modules == std::vector<std::string>{"attn.q_proj", "lone", "attn.k_proj", "head"});
  CHECK(g.rule == "{q_proj,k_proj,v_proj} + tied weight");
  CHECK(g.elements == 2 * 32 * 32);
  CHECK(g.candidates[0].bits == 2 * (32 * 32 * 4 + 32 * 32));
  auto const plan = s.plan(allocate(s.stats(), 8.0));
  CHECK(plan.modules[3].rule == "searched, grouped by '{q_proj,k_proj,v_proj} + tied weight'");
  auto o = three_formats(8.0);
  o.default_grouping = false;
  search<cpu_backend> without{m, o};
  REQUIRE(without.stats().size() == 2);
  CHECK(without.stats()[1].rule == "tied weight");
  CHECK(without.stats()[1].modules == std::vector<std::string>{"lone", "attn.k_proj", "head"});
  CHECK(without.stats()[1].candidates[0].bits == without.stats()[0].candidates[0].bits);
}

TEST_CASE("search: nothing is chosen or applied before a run, nor what another search chose") {
  small_network net;
  model<cpu_backend> m{net};
  matrix const before = net.forward(search_batch);
  search<cpu_backend> s{m, three_formats(8.0)};
  auto const planned = allocate(s.stats(), 8.0);
  CHECK(says(error_text(error_id::search_no_data, [&] { s.choose(8.0); }), "choose", "run()"));
  CHECK(says(error_text(error_id::search_no_data, [&] { s.apply(planned); }), "apply", "run()"));
  auto broken = search_steps_of(net);
  broken.score = [](int) { throw std::runtime_error{"data"}; };
  CHECK_THROWS_WITH(s.run(broken), "data");
  CHECK(says(error_text(error_id::search_no_data, [&] { s.apply(planned); }), "run()"));
  s.run(search_steps_of(net));
  auto other = s.choose(8.0);
  other.choice[1] = 4;
  CHECK(says(error_text(error_id::search_input, [&] { s.apply(other); }), "second.quant_recipe", "candidate 4"));
  CHECK(says(error_text(error_id::search_input, [&] { s.plan(other); }), "second.quant_recipe"));
  other.choice.pop_back();
  CHECK(says(error_text(error_id::search_input, [&] { s.apply(other); }), "1 group", "2"));
  CHECK(same_bits(before, net.forward(search_batch)));
}

TEST_CASE("search: a choice is not applied to recipes that are gone, inside a pass, or to folded weights") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(8.0)};
  s.run(search_steps_of(net));
  auto const chosen = s.choose(8.0);
  auto const inside = [&] { calibrate(m, {}, [&] { s.apply(chosen); }); };
  s.apply(chosen);
  CHECK(says(error_text(error_id::state_nested, inside), "first"));
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  matrix const int8 = net.forward(search_batch);
  CHECK(says(error_text(error_id::state_missing, [&] { s.apply(chosen); }), "first", "run() again"));
  CHECK(same_bits(int8, net.forward(search_batch)));
  s.run(search_steps_of(net));
  s.apply(chosen);
  auto const plan = s.plan(chosen);
  CHECK(fold_weight(m) > 0);
  matrix const folded = net.forward(search_batch);
  CHECK(says(error_text(error_id::state_folded, [&] { s.apply(chosen); }), "first", "fold_weight"));
  auto nothing = plan;
  for (auto& p : nothing.modules) p.recipe = none_label;
  for (auto const& p : {plan, nothing})
    CHECK(says(error_text(error_id::state_folded, [&] { apply_plan(m, p, search_steps_of(net)); }), "first",
               "fold_weight"));
  CHECK(same_bits(folded, net.forward(search_batch)));
}

TEST_CASE("search: layers may move between run and apply") {
  struct host {
    std::vector<linear_layer> layers;
    void walk(module_visitor<cpu_backend> const& visit) { visit(linear("0", layers[0].slots, layers[0].weight)); }
  } h;
  h.layers.resize(1);
  h.layers[0].weight = random_matrix(8, 32, 1);
  model<cpu_backend> m{h};
  search<cpu_backend> s{m, three_formats(8.0)};
  auto const forward = [&](int) { h.layers[0].forward(search_batch); };
  s.run({1, 1, forward,
         [&](int) {
           h.layers[0].forward(search_batch);
           h.layers[0].backward(random_matrix(6, 8, 20));
         },
         {}});
  matrix const before = h.layers[0].forward(search_batch);
  auto const chosen = s.choose(8.5);
  h.layers.resize(100);
  s.apply(chosen);
  CHECK_FALSE(same_bits(before, h.layers[0].forward(search_batch)));
}

TEST_CASE("search: NaN that calibration met is told once, in the plan too") {
  small_network net;
  net.second.weight(3, 5) = NAN;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(8.0)};
  CHECK(s.notes().empty());
  auto steps = search_steps_of(net, 1, 1);
  matrix bad = search_batch;
  bad(2, 7) = bad(0, 0) = NAN;
  steps.calibrate = [&](int) { net.forward(bad); };
  s.run(steps);
  std::string const left_out = " NaN or infinite value(s) were left out of the calibration";
  CHECK(count_of(s.notes(), "first.input_quantizer: 2" + left_out) == 1);
  CHECK(count_of(s.notes(), "second.weight_quantizer: 1" + left_out) == 1);
  auto plan = s.plan(allocation{{0, 0}});
  CHECK(plan.notes == s.notes());
  CHECK(plan_from_json(to_json(plan), "plan.json").notes == plan.notes);
  for (auto& p : plan.modules) p.recipe = s.formats()[1].label;  // INT8: inputs too
  auto const report = apply_plan(m, plan, steps);
  CHECK(report.tokens.layers.size() == 2);
  CHECK(count_of(report.notes, "first.input_quantizer: 2" + left_out) == 1);
  CHECK(count_of(report.notes, "second.weight_quantizer: 1" + left_out) == 1);
}

TEST_CASE("search: the choice is within its budget, applied, and the same on every run") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(7.0)};
  s.run(search_steps_of(net));
  auto const chosen = s.choose(7.0);
  CHECK(chosen.bits <= chosen.budget);
  CHECK(chosen.optimal);
  s.apply(chosen);
  matrix const y = net.forward(search_batch);
  small_network again;
  model<cpu_backend> m2{again};
  search<cpu_backend> s2{m2, three_formats(7.0)};
  s2.run(search_steps_of(again));
  auto const second = s2.choose(7.0);
  CHECK(second.choice == chosen.choice);
  CHECK(second.score == chosen.score);
  s2.apply(second);
  CHECK(same_bits(y, again.forward(search_batch)));
}

TEST_CASE("search: more bits never score worse, and all bits leave the model unquantized") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(16.0)};
  matrix const before = net.forward(search_batch);
  s.run(search_steps_of(net));
  double last = INFINITY;
  for (double bits : {5.5, 6.0, 7.0, 8.5, 9.0, 12.0, 16.0}) {
    double const score = s.choose(bits).score;
    CHECK(score <= last);
    last = score;
  }
  CHECK(last == 0.0);
  s.apply(s.choose(16.0));
  CHECK(same_bits(before, net.forward(search_batch)));
}

TEST_CASE("search: disabled layers stay unquantized, count in the budget, and are named in the plan") {
  small_network net;
  model<cpu_backend> m{net};
  auto o = three_formats(12.0);
  o.disabled_layers = {"sec*"};
  search<cpu_backend> s{m, o};
  REQUIRE(s.stats()[1].candidates.size() == 1);
  s.run(search_steps_of(net));
  auto const plan = s.plan(s.choose(12.0));
  CHECK(plan.modules[1].recipe == none_label);
  CHECK(plan.modules[1].rule == "disabled by 'sec*'");
  o.disabled_layers = {"f*", "sec*"};
  CHECK(says(error_text(error_id::search_input, [&] { search<cpu_backend> t{m, o}; }), "every layer", "'f*'", "first"));
  o.disabled_layers = {nothing_matches};
  CHECK(says(error_text(error_id::config_no_match, [&] { search<cpu_backend> t{m, o}; }), nothing_matches));
}

TEST_CASE("search: ruling out no-quant keeps every layer quantized") {
  small_network net;
  model<cpu_backend> m{net};
  auto o = three_formats(16.0);
  o.allow_no_quant = false;
  search<cpu_backend> s{m, o};
  s.run(search_steps_of(net));
  for (auto const& p : s.plan(s.choose(16.0)).modules) CHECK(p.recipe != none_label);
}

TEST_CASE("search: name-based entries of a format do not apply inside it") {
  small_network net;
  model<cpu_backend> m{net};
  auto o = three_formats(12.0);
  auto named = preset("INT8_DEFAULT_CFG");
  named.name = "WITHOUT_FIRST";
  named.entries.push_back({.quantizer_name = "*first*", .enable = false});
  o.formats = {named};
  search<cpu_backend> s{m, o};
  CHECK(s.stats()[0].candidates.size() == 2);
}

TEST_CASE("search: a callback that throws halfway leaves the model as it was") {
  small_network net;
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(search_batch); });
  matrix const before = net.forward(search_batch);
  for (bool in_scoring : {false, true}) {
    search<cpu_backend> s{m, three_formats(8.0)};
    auto steps = search_steps_of(net);
    auto& broken = in_scoring ? steps.score : steps.calibrate;
    broken = [&](int i) {
      net.forward(search_batch);
      if (i == 1) throw std::runtime_error{"data"};
    };
    CHECK_THROWS_WITH(s.run(steps), "data");
    CHECK(same_bits(before, net.forward(search_batch)));
    CHECK_FALSE(site_of(net.first).scoring);
  }
}

TEST_CASE("search: steps that score nothing, and formats that quantize nothing, are errors") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(8.0)};
  auto steps = search_steps_of(net);
  steps.score = [&](int) { net.forward(search_batch); };
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run(steps); }), "mixbit::score"));
  steps.score = [&](int) {
    net.forward(search_batch);
    net.second.backward(matrix::Ones(6, 8));  // the first layer's backward has forgotten to score
  };
  auto const text = error_text(error_id::search_no_data, [&] { s.run(steps); });
  CHECK(says(text, "nothing of first:", "mixbit::score"));
  steps.scoring = 0;
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run(steps); }), "scoring step"));
  search_options o;
  o.target = 8.0;
  CHECK(says(error_text(error_id::search_input, [&] { search<cpu_backend> t{m, o}; }), "format"));
  o.formats = {preset("INT8_DEFAULT_CFG"), preset("INT8_DEFAULT_CFG")};
  CHECK(says(error_text(error_id::state_duplicate, [&] { search<cpu_backend> t{m, o}; }), "INT8_DEFAULT_CFG"));
}

TEST_CASE("search: a score that is not finite names group and format") {
  small_network net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, three_formats(8.0)};
  auto steps = search_steps_of(net, 1, 1);
  steps.score = [&](int) {
    net.forward(search_batch);
    net.backward(matrix::Constant(6, 8, NAN));
  };
  s.run(steps);
  CHECK(says(error_text(error_id::search_input, [&] { s.choose(8.0); }), ".quant_recipe", "nan"));
}
