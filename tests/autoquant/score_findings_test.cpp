// Scores that should not be believed, on a model of two towers whose loss reaches one of them; and how sure ranks are.
#include "mixbit/autoquant/score_findings.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/rank_stability.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Text and vision read the same batch; their outputs are added, and `share` is the vision tower's part of the loss.
struct two_towers {
  small_network text{1}, vision{5};
  float share = 0;

  matrix forward(matrix const& x) { return text.forward(x) + share * vision.forward(x); }
  void backward(matrix const& grad, bool both) {
    text.backward(grad);
    if (both) vision.backward(share * grad);
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("text.first", text.first.slots, text.first.weight));
    visit(linear("text.second", text.second.slots, text.second.weight));
    visit(linear("vision.first", vision.first.slots, vision.first.weight));
    visit(linear("vision.second", vision.second.slots, vision.second.weight));
  }
};

search_options int8_search(score_method method = score_method::gradient) {
  search_options o{.formats = {preset("INT8_DEFAULT_CFG")}, .target = 16.0};
  o.method = method;
  return o;
}
search_steps steps_of(two_towers& net, bool both_backward) {
  auto const batch = [](int i) { return random_matrix(6, 32, 7 + static_cast<unsigned>(i)); };
  return {.calibration = 2,
          .scoring = 2,
          .calibrate = [&net, batch](int i) { net.forward(batch(i)); },
          .score =
              [&net, batch, both_backward](int i) {
                net.forward(batch(i));
                net.backward(random_matrix(6, 8, 20), both_backward);
              },
          .logits = [&net, batch](int i, logits_sink const& take) { take(read_view(net.forward(batch(i)))); }};
}

candidate_stats stats_with(std::vector<double> by_step) {
  candidate_stat c{"F(effective-bits: 4.0)", 0, 0, std::move(by_step), 4};
  for (double const s : c.by_step) c.score += s;
  return {{"g.quant_recipe", {"g"}, "", "", 1, {c, {"F8(effective-bits: 8.0)", 1, 1, {1, 0}, 8}}}};
}
auto const always = [](std::string const&) { return true; };

}  // namespace

TEST_CASE("findings: a tower that the loss reaches with a gradient of zero is named, and why") {
  two_towers net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, int8_search()};
  s.run(steps_of(net, true));
  CHECK(mentions(s.notes(), "vision.first.quant_recipe: all formats score 0", "the loss does not reach it"));
  CHECK(mentions(s.notes(), "vision.second.quant_recipe: all formats score 0", "the loss does not reach it"));
  CHECK(s.notes().size() == 2);
  CHECK(s.plan(s.choose(16.0)).notes == s.notes());
  net.share = 1;
  s.run(steps_of(net, true));
  CHECK(s.notes().empty());
}

TEST_CASE("findings: a tower whose backward never runs is an error that names it, and disabling it ends that") {
  two_towers net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, int8_search()};
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run(steps_of(net, false)); }),
             "scored nothing of vision.first, vision.second", "the loss does not reach them"));
  auto o = int8_search();
  o.disabled_layers = {"vision.*"};
  search<cpu_backend> t{m, o};
  t.run(steps_of(net, false));
  CHECK(t.notes().empty());
}

TEST_CASE("findings: by kl_div a tower that no logit depends on is named too") {
  two_towers net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, int8_search(score_method::kl_div)};
  s.run(steps_of(net, true));
  CHECK(s.notes().size() == 2);
  CHECK(mentions(s.notes(), "vision.first.quant_recipe: all formats score 0", "does the output depend on it?"));
}

TEST_CASE("findings: NaN and overflow in a loss are named with group, format, steps and cause, and nothing is chosen") {
  two_towers net;
  net.share = 1;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, int8_search()};
  auto steps = steps_of(net, true);
  steps.score = [&](int i) {
    net.forward(random_matrix(6, 32, 7));
    matrix grad = random_matrix(6, 8, 20);
    if (i == 1) grad(0, 0) = std::numeric_limits<float>::quiet_NaN();
    net.backward(grad, true);
  };
  s.run(steps);
  CHECK(mentions(s.notes(), "text.second.quant_recipe: INT8_DEFAULT_CFG(effective-bits: 8.0) scores NaN (step 1)",
                 "the loss or its gradient is NaN"));
  CHECK(says(error_text(error_id::search_input, [&] { s.choose(16.0); }), ".quant_recipe", "nan"));
}

TEST_CASE("findings: of scores alone") {
  double const inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  auto const lines = [](std::vector<double> by_step) {
    return score_findings(stats_with(std::move(by_step)), "gradient", always);
  };
  CHECK(lines({1, 2}).empty());
  CHECK(mentions(lines({0, 0}), "g.quant_recipe: F(effective-bits: 4.0) scores 0", "weights fit it exactly"));
  CHECK(mentions(lines({1, inf}), "scores inf (step 1)", "overflows"));
  CHECK(mentions(lines({nan, 2, nan, nan, nan}), "scores NaN (steps 0, 2, 3 and 1 other)", "NaN"));
  CHECK(mentions(lines({nan, inf}), "scores NaN (step 0)", "NaN"));
  CHECK(mentions(score_findings(stats_with({nan, 1}), "kl_div", always), "scores NaN (step 0)", "logits are NaN"));
  CHECK(mentions(score_findings(stats_with({inf, 1}), "kl_div", always), "scores inf (step 0)", "logits overflow"));
  CHECK(mentions(score_findings(stats_with({inf, 1}), "degradation", always), "scores inf", "the metric overflows"));
  auto unseen = stats_with({0, 0});
  unseen[0].candidates.pop_back();
  unseen[0].candidates.push_back({none_label, -1, 0, {0, 0}, 16});
  auto const never = [](std::string const&) { return false; };
  CHECK(mentions(score_findings(unseen, "gradient", never), "g was shown no data", "router"));
  unseen[0].candidates.pop_back();  // nothing to choose: nothing to believe
  CHECK(score_findings(unseen, "gradient", never).empty());
}

TEST_CASE("rank stability: the chance of a swap is that of the paired difference") {
  auto const of = [](std::vector<double> by_step) {
    candidate_stat c{"F", 0, 0, std::move(by_step), 0};
    for (double const s : c.by_step) c.score += s;
    return c;
  };
  // d = {1, 3}: sum 4, mean 2, squares 2, e = sqrt(2 / 1 * 2) = 2, so the chance is erfc(4 / (2 sqrt 2)) / 2
  CHECK(swap_chance(of({3, 5}), of({2, 2})) == doctest::Approx(std::erfc(std::sqrt(2.0)) / 2));
  CHECK(swap_chance(of({3, 5}), of({2, 2})) == doctest::Approx(0.02275013));  // two standard errors
  CHECK(swap_chance(of({12, 52}), of({11, 51})) == 0);  // hard batches are hard for both
  CHECK(swap_chance(of({1, 2}), of({1, 2})) == 0.5);
  CHECK(swap_chance(of({0, 4}), of({4, 0})) == doctest::Approx(0.5));
  CHECK(std::isnan(swap_chance(of({1}), of({2}))));
  CHECK(std::isnan(swap_chance(of({1, 2}), of({2}))));
}

TEST_CASE("rank stability: groups in order, each with its error and the chance that the next belongs before it") {
  candidate_stats stats;
  for (double const level : {2.0, 9.0, 8.9}) {
    auto made = stats_with({level, level * 1.5})[0];
    made.candidates[0].by_step[0] += level == 9.0 ? 0.1 : 0.0;
    made.candidates[0].score = made.candidates[0].by_step[0] + made.candidates[0].by_step[1];
    stats.push_back(made);
  }
  auto const ranks = rank_stability(stats);
  REQUIRE(ranks.size() == 3);
  CHECK(ranks[0].group == 1);
  CHECK(ranks[1].group == 2);
  CHECK(ranks[0].swaps_with_next < 0.1);
  CHECK(ranks[0].swaps_with_next > 0);
  CHECK(ranks[1].swaps_with_next < 1e-3);
  CHECK(std::isnan(ranks[2].swaps_with_next));
  CHECK(ranks[1].standard_error == stats[2].candidates[0].standard_error());
  auto const j = manifest_json(stats, make_plan(stats, {}, allocation{{0, 0, 0}}, "exact"));
  auto const& first = j["sensitivity_ranking"][0];
  CHECK(first["standard_error"].get<double>() == ranks[0].standard_error);
  CHECK(first["swaps_with_next"].get<double>() == ranks[0].swaps_with_next);
  CHECK(j["sensitivity_ranking"][2]["swaps_with_next"].is_null());
}
