// Odd models and inputs, each through a whole search: nothing to choose, tied and repeated layers, missing data.
#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>

#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config const int4 = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), int8 = preset("INT8_DEFAULT_CFG");

search_options options_of(std::vector<quantize_config> formats, double bits, score_method method) {
  search_options o{.formats = std::move(formats), .target = bits};
  o.method = method;
  return o;
}
constexpr score_method all_methods[] = {score_method::gradient, score_method::kl_div, score_method::degradation};

named_chain three() { return named_chain{{"a.q_proj", "a.k_proj", "b"}}; }

/// One layer that runs twice in a forward, with a score for each of its calls.
struct recurrent {
  matrix weight = random_matrix(32, 32, 3) / 6.0f, first, second;
  quantizer_slots<cpu_backend> slots;

  matrix forward(matrix const& x) {
    if (!slots.in_trial()) first = x;
    second = mixbit::apply(slots, x, weight, linear_layer::product());
    return mixbit::apply(slots, second, weight, linear_layer::product());
  }
  void backward(matrix const& grad) {
    score(slots, second, weight, linear_layer::product(), grad);
    matrix const between = grad * weight;
    score(slots, first, weight, linear_layer::product(), between);
  }
  void walk(module_visitor<cpu_backend> const& visit) { visit(linear("cell", slots, weight)); }
};

}  // namespace

TEST_CASE("odd inputs: a target below the minimum is refused by every method before any call") {
  for (auto const method : all_methods) {
    auto net = three();
    model<cpu_backend> m{net};
    auto const o = options_of({int8}, 7.9, method);
    CHECK(says(error_text(error_id::search_infeasible, [&] { search<cpu_backend>{m, o}; }), "7.9 effective", "9 to 16",
               "a.q_proj.quant_recipe alone needs"));
    CHECK_FALSE(net.layers[0].slots.live());
  }
}

TEST_CASE("odd inputs: one candidate only is no choice, so that nothing needs to be scored") {
  for (auto const method : all_methods) {
    auto net = three();
    model<cpu_backend> m{net};
    auto o = options_of({int8}, 9.0, method);
    o.allow_no_quant = false;
    search<cpu_backend> s{m, o};
    auto steps = net.steps(2, 0);
    steps.score = {};
    steps.logits = {};
    steps.metric = {};
    s.run(steps);
    CHECK(s.resolved(2, 0).scoring_forwards == 0);
    auto const chosen = s.choose(9.0);
    CHECK(chosen.choice == std::vector<int>{0, 0});
    CHECK(chosen.optimal);
    s.apply(chosen);
    CHECK(s.notes().empty());
    named_chain other = three();
    model<cpu_backend> alone{other};
    quantize(alone, int8, [&] {
      for (int i = 0; i < 2; ++i) other.forward(other.batch(i));
    });
    CHECK(same_bits(net.forward(net.batch(5)), other.forward(net.batch(5))));
  }
}

TEST_CASE("odd inputs: a disabled member disables its group, which is in the budget at 16 bits") {
  for (auto const method : all_methods) {
    auto net = three();
    model<cpu_backend> m{net};
    auto o = options_of({int4, int8}, 13.0, method);
    o.disabled_layers = {"a.k_proj"};
    search<cpu_backend> s{m, o};
    REQUIRE(s.stats().size() == 2);
    CHECK(s.stats()[0].disabled_by == "a.k_proj");
    CHECK(s.stats()[0].candidates.size() == 1);
    CHECK(total_elements(s.stats()) == 3 * 32 * 32);
    s.run(net.steps());
    CHECK(s.stats()[0].candidates[0].score == 0);
    CHECK(s.notes().empty());
    auto const chosen = s.choose(13.0);
    CHECK(chosen.choice[0] == 0);
    CHECK(chosen.choice[1] < 2);  // 16 bits for b too would be above 13
    s.apply(chosen);
    CHECK(site_of(net.layers[0]).quantizers().recipe == "NONE");
    CHECK(site_of(net.layers[1]).quantizers().recipe == "NONE");
  }
}

TEST_CASE("odd inputs: tied weights are switched together, and scored in both places") {
  struct tied {
    matrix shared = random_matrix(32, 32, 1) / 6.0f;
    quantizer_slots<cpu_backend> in, out;
    matrix forward(matrix const& x) {
      return mixbit::apply(out, mixbit::apply(in, x, shared, linear_layer::product()), shared, linear_layer::product());
    }
    void walk(module_visitor<cpu_backend> const& visit) {
      visit(linear("embed", in, shared));
      visit(linear("head", out, shared));
    }
  } net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_of({int4}, 8.0, score_method::degradation)};
  REQUIRE(s.stats().size() == 1);
  auto const metric = [&](int) { return static_cast<double>(net.forward(named_chain::batch(0)).squaredNorm()); };
  s.run({.calibration = 0, .scoring = 1, .metric = metric});
  s.apply({{1}});
  double const before = metric(0);
  s.apply({{0}});
  CHECK(net.in.shared_site()->quantizers().recipe == net.out.shared_site()->quantizers().recipe);
  CHECK(s.stats()[0].candidates[0].score == metric(0) - before);
}

TEST_CASE("odd inputs: a layer that runs twice in a forward is scored for both calls") {
  recurrent net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_of({int4}, 8.0, score_method::gradient)};
  matrix const grad = random_matrix(6, 32, 9);
  auto const run = [&](bool both) {
    s.run({.calibration = 0, .scoring = 1, .score = [&](int) {
             net.forward(named_chain::batch(0));
             if (both) return net.backward(grad);
             score(net.slots, net.second, net.weight, linear_layer::product(), grad);
           }});
    return s.stats()[0].candidates[0].score;
  };
  double const last = run(false), both = run(true);
  CHECK(last > 0);
  CHECK(both > last);
  auto const kl = options_of({int4}, 8.0, score_method::kl_div);
  search<cpu_backend> by_kl{m, kl};
  by_kl.run({.calibration = 0, .scoring = 1, .logits = [&](int i, logits_sink const& take) {
               take(read_view(net.forward(named_chain::batch(i))));
             }});
  CHECK(by_kl.stats()[0].candidates[0].score > 0);
}

TEST_CASE("odd inputs: a loss or metric that is NaN is named, nothing is chosen, and the model computes what it did") {
  for (auto const method : all_methods) {
    auto net = three();
    model<cpu_backend> m{net};
    search<cpu_backend> s{m, options_of({int8}, 16.0, method)};
    matrix const before = net.forward(net.batch(9));
    auto steps = net.steps(1, 2);
    steps.score = [&](int i) {
      net.forward(net.batch(i));
      net.backward(matrix::Constant(6, 32, i == 1 ? NAN : 1.0f));
    };
    steps.logits = [&](int i, logits_sink const& take) {
      matrix y = net.forward(net.batch(i));
      if (i == 1) y(0, 0) = NAN;
      take(read_view(y));
    };
    steps.metric = [&](int i) { return i == 1 ? std::nan("") : 1.0; };
    s.run(steps);
    CAPTURE(name_of(method));
    CHECK(mentions(s.notes(), "a.q_proj.quant_recipe: INT8_DEFAULT_CFG(effective-bits: 8.0) scores NaN (step 1)", ""));
    CHECK(says(error_text(error_id::search_input, [&] { s.choose(16.0); }), "a.q_proj.quant_recipe", "nan"));
    CHECK(same_bits(before, net.forward(net.batch(9))));
  }
}

TEST_CASE("odd inputs: a callback that throws, at whichever call, leaves the model quantized as it was") {
  for (auto const method : all_methods) {
    auto net = three();
    model<cpu_backend> m{net};
    auto const earlier = preset("INT8_WEIGHT_ONLY_CFG");
    quantize(m, earlier);
    matrix const before = net.forward(net.batch(9));
    search<cpu_backend> s{m, options_of({int4, int8}, 16.0, method)};
    auto const total = s.resolved(2, 2);
    auto const calls = total.calibration_forwards + total.scoring_forwards;
    for (std::int64_t at = 0; at < calls; ++at) {
      std::int64_t done = 0;
      auto steps = net.steps();
      auto const guarded = [&](auto& f) {
        f = [&, f](int i, auto&&... more) {
          auto const result = [&] { return f(i, more...); };
          net.forward(net.batch(i));
          if (done++ == at) throw std::runtime_error{"data"};
          return result();
        };
      };
      guarded(steps.calibrate);
      guarded(steps.score);
      guarded(steps.logits);
      guarded(steps.metric);
      CAPTURE(at);
      CHECK_THROWS_WITH(s.run(steps), "data");
      CHECK(same_bits(before, net.forward(net.batch(9))));
      CHECK_FALSE(site_of(net.layers[0]).hook);
      CHECK_FALSE(site_of(net.layers[0]).scoring);
    }
    s.run(net.steps());
    CHECK(s.choose(16.0).optimal);
  }
}

TEST_CASE("odd inputs: an empty data loader is refused where data is needed, and says what for") {
  auto net = three();
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_of({int8}, 16.0, score_method::gradient)};
  matrix const before = net.forward(net.batch(9));
  auto steps = net.steps(0, 2);
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { s.run(steps); }), "a.q_proj.input_quantizer"));
  steps = net.steps(2, 2);
  steps.calibrate = [](int) {};  // batches without rows
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { s.run(steps); }), "3 static", "no such layer"));
  steps = net.steps(2, 0);
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run(steps); }), "at least one scoring step"));
  CHECK(same_bits(before, net.forward(net.batch(9))));
  search<cpu_backend> weights{m, options_of({int4}, 16.0, score_method::gradient)};
  weights.run(net.steps(0, 1));  // weights alone need none
  CHECK(weights.choose(16.0).optimal);
}

TEST_CASE("odd inputs: more steps than batches is the loader's to refuse, and what it throws comes through") {
  for (auto const method : all_methods) {
    auto net = three();
    model<cpu_backend> m{net};
    search<cpu_backend> s{m, options_of({int8}, 16.0, method)};
    std::vector<matrix> const batches{net.batch(0), net.batch(1)};
    auto steps = net.steps(2, 5);
    steps.score = [&](int i) {
      net.forward(batches.at(static_cast<std::size_t>(i)));
      net.backward(random_matrix(6, 32, 1));
    };
    steps.logits = [&](int i, logits_sink const& take) {
      take(read_view(net.forward(batches.at(static_cast<std::size_t>(i)))));
    };
    steps.metric = [&](int i) {
      return static_cast<double>(net.forward(batches.at(static_cast<std::size_t>(i))).sum());
    };
    matrix const before = net.forward(batches[0]);
    CHECK_THROWS_AS(s.run(steps), std::out_of_range);
    CHECK(same_bits(before, net.forward(batches[0])));
    CHECK(says(error_text(error_id::search_no_data, [&] { s.choose(16.0); }), "run()"));
  }
}
