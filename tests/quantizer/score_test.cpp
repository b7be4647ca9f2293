#include "mixbit/quantizer/score.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <thread>

#include "mixbit/autoquant/sensitivity.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

matrix const batch = random_matrix(6, 32, 7);

/// A layer with two calibrated candidates (INT4, INT8) and the unquantized recipe, which runs.
struct scored_layer {
  small_network net;
  model<cpu_backend> m{net};

  scored_layer() {
    search_options o;
    o.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")};
    o.target = 16.0;
    search<cpu_backend> s{m, o};
    s.run({1, 1, [&](int) { net.forward(batch); },
           [&](int) {
             net.forward(batch);
             net.backward(matrix::Ones(6, 8));
           },
           {}});
  }
  std::vector<std::shared_ptr<site<cpu_backend>>> sites() {
    return {net.first.slots.shared_site(), net.second.slots.shared_site()};
  }
  /// Σ (grad · Δy)² of the first layer, computed by hand in double.
  double by_definition(int recipe, matrix const& grad) {
    auto& q = site_of(net.first).recipes[static_cast<std::size_t>(recipe)];
    auto* const input = q.find(quantizer_role::input);
    matrix const x = input ? by_hand(*input, batch) : batch;
    matrix const w = by_hand(*q.find(quantizer_role::weight), net.first.weight);
    matrix const y = x * w.transpose(), base = batch * net.first.weight.transpose();
    return (grad.cast<double>().array() * (y - base).cast<double>().array()).square().sum();
  }
};

}  // namespace

TEST_CASE("score: is the sum of squared gradient times output change") {
  scored_layer s;
  matrix const grad = random_matrix(6, 24, 11);
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 2};
  pass.begin(1);
  score(s.net.first.slots, batch, s.net.first.weight, linear_layer::product(), grad);
  for (int recipe : {0, 1}) {
    double const expected = s.by_definition(recipe, grad);
    CHECK(expected > 0);
    CHECK(pass.score(site_of(s.net.first), 1, static_cast<std::size_t>(recipe)) ==
          doctest::Approx(expected).epsilon(1e-6));
    CHECK(pass.score(site_of(s.net.first), 0, static_cast<std::size_t>(recipe)) == 0.0);
  }
  CHECK(pass.calls() == 1);
}

TEST_CASE("score: gradient times change is clamped at 1e10, infinities too; NaN stays visible") {
  scored_layer s;
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  matrix const grad = matrix::Constant(6, 24, 1e30f);
  score(s.net.first.slots, batch, s.net.first.weight, linear_layer::product(), grad);
  double const count = 6 * 24;
  CHECK(pass.score(site_of(s.net.first), 0, 0) <= count * 1e20);
  CHECK(pass.score(site_of(s.net.first), 0, 0) > 0.9 * count * 1e20);
  auto const score_of = [&](float gradient) {
    scoring_pass<cpu_backend> alone{s.sites(), s.m.device(), 1};
    alone.begin(0);
    matrix one = matrix::Zero(6, 24);
    one(2, 3) = gradient;
    score(s.net.first.slots, batch, s.net.first.weight, linear_layer::product(), one);
    return alone.score(site_of(s.net.first), 0, 0);
  };
  CHECK(score_of(-INFINITY) == doctest::Approx(1e20));
  CHECK(std::isnan(score_of(NAN)));
}

TEST_CASE("score: kept differences and recomputing give the same bits, for a layer called twice (rule 7)") {
  scored_layer s;
  auto& layer = s.net.first;
  matrix const other = random_matrix(6, 32, 8), g1 = random_matrix(6, 24, 9), g2 = random_matrix(6, 24, 10);
  double recomputed[2], kept[2];
  {
    scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
    pass.begin(0);
    score(layer.slots, other, layer.weight, linear_layer::product(), g2);
    score(layer.slots, batch, layer.weight, linear_layer::product(), g1);
    for (std::size_t i : {0u, 1u}) recomputed[i] = pass.score(site_of(layer), 0, i);
  }
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  pending<cpu_backend> first, second;
  matrix const y = apply(layer.slots, batch, layer.weight, linear_layer::product(), &first);
  apply(layer.slots, other, layer.weight, linear_layer::product(), &second);
  CHECK(same_bits(y, matrix(batch * layer.weight.transpose())));
  matrix const wrong = matrix::Ones(2, 24);
  CHECK(
      says(error_text(error_id::tensor_shape, [&] { score(layer.slots, first, wrong); }), "first", "[2,24]", "[6,24]"));
  score(layer.slots, second, g2);
  score(layer.slots, first, g1);
  for (std::size_t i : {0u, 1u}) kept[i] = pass.score(site_of(layer), 0, i);
  CHECK(recomputed[0] == kept[0]);
  CHECK(recomputed[1] == kept[1]);
  CHECK(recomputed[0] != recomputed[1]);
  score(layer.slots, first, g1);  // emptied: a second use adds nothing
  CHECK(pass.calls() == 2);
}

TEST_CASE("score: differences of another layer's call are refused") {
  scored_layer s;
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  pending<cpu_backend> kept;
  apply(s.net.first.slots, batch, s.net.first.weight, linear_layer::product(), &kept);
  auto const text =
      error_text(error_id::state_missing, [&] { score(s.net.second.slots, kept, matrix(matrix::Ones(6, 24))); });
  CHECK(says(text, "second", "first"));
}

TEST_CASE("score: outside a scoring pass it does nothing, and an op is not called") {
  scored_layer s;
  auto const never = [](auto const&, auto const&) -> matrix { throw std::runtime_error{"called"}; };
  score(s.net.first.slots, batch, s.net.first.weight, never, matrix(matrix::Ones(6, 24)));
  quantizer_slots<cpu_backend> none;
  score(none, batch, s.net.first.weight, never, matrix(matrix::Ones(6, 24)));
}

TEST_CASE("score: an op that throws in a later trial commits nothing (rule 11)") {
  scored_layer s;
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  int calls = 0;
  auto const op = [&](auto const& x, auto const& w) -> matrix {
    if (++calls == 3) throw std::runtime_error{"third"};
    return x * w.transpose();
  };
  matrix const grad = matrix::Ones(6, 24);
  CHECK_THROWS_WITH(score(s.net.first.slots, batch, s.net.first.weight, op, grad), "third");
  CHECK(pass.score(site_of(s.net.first), 0, 0) == 0.0);
  CHECK(pass.calls() == 0);
  CHECK(s.m.scratch().scratch.used() == 0);
}

TEST_CASE("score: a region is scored at its own output and ends with a restoring call (rule 6)") {
  scored_layer s;
  auto& net = s.net;
  score_region<cpu_backend> const region{s.sites()};
  matrix const grad = random_matrix(6, 8, 13), base = net.forward(batch);
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  std::vector<bool> trials;
  auto const op = [&](matrix const& x) {
    trials.push_back(net.first.slots.in_trial());
    return net.forward(x);
  };
  score(region, batch, op, grad);
  CHECK(trials == std::vector<bool>{true, true, true, false});
  for (int recipe : {0, 1}) {
    matrix h = batch;
    for (auto* layer : {&net.first, &net.second}) {
      auto& q = site_of(*layer).recipes[static_cast<std::size_t>(recipe)];
      auto* const input = q.find(quantizer_role::input);
      matrix const x = input ? by_hand(*input, h) : h;
      h = x * by_hand(*q.find(quantizer_role::weight), layer->weight).transpose();
    }
    double const expected = (grad.cast<double>().array() * (h - base).cast<double>().array()).square().sum();
    CHECK(pass.score(site_of(net.first), 0, static_cast<std::size_t>(recipe)) ==
          doctest::Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("score: with a workspace of the caller's it gives the same bits, kept or recomputed") {
  scored_layer s;
  auto& layer = s.net.first;
  matrix const grad = random_matrix(6, 24, 9);
  double sums[3];
  for (int way = 0; way < 3; ++way) {
    scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
    pass.begin(0);
    auto const run = [&](auto&... ws) {
      score(ws..., layer.slots, batch, layer.weight, linear_layer::product(), grad);
    };
    workspace<cpu_backend> ws;
    pending<cpu_backend> kept;
    std::string failed = "(no error)";
    if (way == 0) run();
    else {
      workspace_lock<cpu_backend> const held{s.m.scratch()};  // the model's own is taken
      std::thread{[&] {
        failed = error_text(error_id::state_busy, [&] {
          if (way == 1) return run(ws);
          apply(ws, layer.slots, batch, layer.weight, linear_layer::product(), &kept);
          score(ws, layer.slots, kept, grad);
        });
      }}.join();
    }
    CHECK(failed == "(no error)");
    CHECK(pass.calls() == 1);
    sums[way] = pass.score(site_of(layer), 0, 0);
  }
  CHECK(sums[0] > 0);
  CHECK(sums[1] == sums[0]);
  CHECK(sums[2] == sums[0]);
}

TEST_CASE("score: a second thread in one step is refused by name, since sums would depend on the order") {
  scored_layer s;
  matrix const grad = random_matrix(6, 24, 9), grad2 = random_matrix(6, 8, 9), hidden = random_matrix(6, 24, 8);
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 2};
  pass.begin(0);
  auto const run_first = [&] {
    workspace<cpu_backend> ws;
    score(ws, s.net.first.slots, batch, s.net.first.weight, linear_layer::product(), grad);
  };
  auto const run_second = [&] {
    workspace<cpu_backend> ws;
    score(ws, s.net.second.slots, hidden, s.net.second.weight, linear_layer::product(), grad2);
  };
  auto const elsewhere = [](auto const& call) {
    std::string text;
    std::thread{[&] { text = error_text(error_id::state_busy, call); }}.join();
    return text;
  };
  run_first();
  run_first();  // this thread's order is one order
  double const sum = pass.score(site_of(s.net.first), 0, 0);
  CHECK(says(elsewhere(run_first), "first", "step 0", "two threads"));
  CHECK(pass.score(site_of(s.net.first), 0, 0) == sum);
  CHECK(elsewhere(run_second) == "(no error)");  // another site
  CHECK(says(error_text(error_id::state_busy, run_second), "second"));
  CHECK(pass.calls() == 3);
  pass.begin(1);
  CHECK(elsewhere(run_first) == "(no error)");  // another step has a sum of its own
}

TEST_CASE("score: candidates leave a cached weight alone, which another thread may be reading") {
  scored_layer s;
  auto& layer = s.net.first;
  site_of(layer).active = 1;  // INT8 runs, and its weight is kept
  site_of(layer).refresh();
  layer.slots.cache_weight(true);
  matrix const y = layer.forward(batch);
  auto const kept = site_of(layer).cache.holder;
  REQUIRE(kept != nullptr);
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  int calls = 0;
  auto const watching = [&](auto const& x, auto const& w) -> matrix {
    ++calls;
    CHECK(site_of(layer).cache.holder == kept);
    CHECK(site_of(layer).cache.recipe == 1);
    return x * w.transpose();
  };
  score(layer.slots, batch, layer.weight, watching, random_matrix(6, 24, 9));
  CHECK(calls == 3);
  CHECK(pass.score(site_of(layer), 0, 0) > 0);
  CHECK(same_bits(y, layer.forward(batch)));
}

TEST_CASE("score: differences of another pass are refused, and calls that keep nothing empty them") {
  scored_layer s;
  auto& layer = s.net.first;
  pending<cpu_backend> kept;
  auto const keep = [&](auto const& op) {
    scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
    pass.begin(0);
    apply(layer.slots, batch, layer.weight, op, &kept);
    CHECK(kept.differences.size() == 2);
  };
  auto const plain = [&] { apply(layer.slots, batch, layer.weight, linear_layer::product(), &kept); };
  keep(linear_layer::product());
  site_of(layer).recipes.erase(site_of(layer).recipes.begin());  // a search with one format
  site_of(layer).active = 1;
  {
    scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
    pass.begin(0);
    matrix const grad = matrix::Ones(6, 24);
    auto const text = error_text(error_id::state_missing, [&] { score(layer.slots, kept, grad); });
    CHECK(says(text, "first", "another scoring pass"));
    CHECK(pass.calls() == 0);
    plain();
    score(layer.slots, kept, grad);
    CHECK(pass.calls() == 1);
    plain();
    REQUIRE(kept.differences.size() == 1);
  }
  SUBCASE("unquantized") { plain(); }
  SUBCASE("quantized") {
    site_of(layer).active = 0;
    site_of(layer).refresh();
    plain();
  }
  SUBCASE("while calibrating") {
    max_calibration<cpu_backend> const pass{s.sites()};
    plain();
  }
  CHECK(kept.differences.empty());
}

TEST_CASE("score: a call within another layer's trial leaves kept differences alone") {
  scored_layer s;
  scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
  pass.begin(0);
  pending<cpu_backend> kept;
  std::vector<void const*> seen;
  auto const op = [&](auto const& x, auto const& w) -> matrix {
    matrix const y = x * w.transpose();
    apply(s.net.second.slots, y, s.net.second.weight, linear_layer::product(), &kept);
    REQUIRE(kept.differences.size() == 2);
    seen.push_back(kept.differences[0].data());
    return y;
  };
  pending<cpu_backend> outer;
  apply(s.net.first.slots, batch, s.net.first.weight, op, &outer);
  CHECK(seen == std::vector<void const*>(3, seen.front()));  // the result and two candidates
}

TEST_CASE("score: a region refuses members without a site, and those that a search has disabled since") {
  scored_layer s;
  quantizer_slots<cpu_backend> none;
  auto members = s.sites();
  members.push_back(none.shared_site());
  CHECK(says(error_text(error_id::state_missing, [&] { score_region<cpu_backend>{members}; }), "member 2", "no site"));
  score_region<cpu_backend> const region{s.sites()};
  auto const score_it = [&] {
    score(region, batch, [&](matrix const& x) { return s.net.forward(x); }, matrix(matrix::Ones(6, 8)));
  };
  SUBCASE("the first of them") {
    scoring_pass<cpu_backend> pass{{s.sites()[1]}, s.m.device(), 1};
    pass.begin(0);
    CHECK(says(error_text(error_id::search_input, score_it), "second has 3 recipe(s) and is scored", "first has 3 "));
  }
  SUBCASE("another") {
    auto& second = site_of(s.net.second);
    second.recipes.erase(second.recipes.begin(), second.recipes.end() - 1);
    second.active = 0;
    scoring_pass<cpu_backend> pass{s.sites(), s.m.device(), 1};
    pass.begin(0);
    CHECK(says(error_text(error_id::search_input, score_it), "second has 1 recipe", "first has 3 recipe"));
  }
}
