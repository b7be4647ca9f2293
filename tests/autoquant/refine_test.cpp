// Refinement: scores around a choice, exact choices by them, and the best measured, which is never lost.
#include "mixbit/autoquant/refine.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::string const int4 = "INT4", int8 = "INT8", none = "NONE";

/// A chain of four layers, searched, whose "loss" is a function of what each layer runs: interaction as needed.
struct rigged {
  named_chain net{{"a", "b", "c", "d"}};
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options()};
  std::function<double(std::vector<std::string> const&)> loss;
  int evaluations = 0;

  rigged() { s.run(net.steps()); }
  static search_options options() {
    search_options o{.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")},
                     .target = 16.0};
    o.cost = cost_model::modelopt;
    return o;
  }
  std::vector<std::string> active() {
    std::vector<std::string> all;
    for (auto& layer : net.layers) all.push_back(site_of(layer).quantizers().recipe.substr(0, 4));
    return all;
  }
  search_steps steps(int scoring = 2) {
    auto made = net.steps(2, scoring);
    made.metric = [this](int) { return loss(active()); };
    return made;
  }
  refined_choice refined(allocation const& from, refine_options const& options = {}) {
    return refine(s, from, steps(), [this] { return ++evaluations, loss(active()); }, options);
  }
  /// A choice under 8 bits a weight, of candidates by the layers' names.
  allocation choice(std::vector<int> of) { return detail::with_choice(s.stats(), s.choose(8.0), std::move(of)); }
};

int count_of(std::vector<std::string> const& all, std::string const& what) {
  return static_cast<int>(std::count(all.begin(), all.end(), what));
}

template <class... Parts>
bool has(std::string const& text, Parts const&... parts) {
  return (... && (text.find(parts) != text.npos));
}

/// Of one layer: what INT4, INT8 and nothing cost it.
double one(std::string const& recipe, double at4, double at8) {
  return recipe == int4 ? at4 : recipe == int8 ? at8 : 0;
}

}  // namespace

TEST_CASE("scores around a choice: the metric with one group changed less the metric of the choice") {
  rigged r;
  auto steps = r.net.steps(2, 2);
  auto const from = r.choice({0, 1, 2, 0});
  matrix const before = r.net.forward(r.net.batch(0));
  auto const around = r.s.scores_around(from, steps, score_method::degradation);
  CHECK(same_bits(before, r.net.forward(r.net.batch(0))));
  for (std::size_t g = 0; g < 4; ++g)
    for (int k = 0; k < 3; ++k) {
      auto changed = from.choice;
      changed[g] = k;
      double sum = 0;
      for (int i = 0; i < 2; ++i) {
        r.s.apply(from);
        double const base = steps.metric(i);
        r.s.apply(r.choice(changed));
        sum += steps.metric(i) - base;
      }
      CHECK(around[g].candidates[static_cast<std::size_t>(k)].score == sum);
    }
  CHECK(r.s.stats()[0].candidates[0].score != around[0].candidates[0].score);  // the search's own stay
}

TEST_CASE("scores around a choice: by kl_div the divergence from the unquantized model, kept activations or not") {
  rigged r;
  auto steps = r.net.steps(2, 1);
  auto const from = r.choice({0, 1, 2, 0});
  auto const logits = [&](std::vector<int> of) {
    r.s.apply(r.choice(std::move(of)));
    matrix const y = r.net.forward(r.net.batch(0));
    return logit_rows{{y.data(), y.data() + y.size()}, y.cols()};
  };
  auto const p = logits({2, 2, 2, 2});
  double const base = kl_divergence(p, logits(from.choice));
  auto const around = r.s.scores_around(from, steps, score_method::kl_div);
  for (std::size_t g = 0; g < 4; ++g)
    for (int k = 0; k < 3; ++k) {
      auto changed = from.choice;
      changed[g] = k;
      double const expected = k == from.choice[g] ? 0 : kl_divergence(p, logits(changed)) - base;
      CHECK(around[g].candidates[static_cast<std::size_t>(k)].score == expected);
    }
  std::vector<matrix> inputs(4);  // of the last whole forward: the choice's, where the others begin
  steps.logits = [&](int i, logits_sink const& take) {
    matrix x = r.net.batch(i);
    for (std::size_t l = 0; l < 4; ++l) x = r.net.layers[l].forward(inputs[l] = x);
    take(read_view(x));
  };
  steps.logits_from = [&](int, std::string_view first, logits_sink const& take) {
    auto const from_layer = static_cast<std::size_t>(first[0] - 'a');
    matrix x = inputs[from_layer];
    for (std::size_t l = from_layer; l < 4; ++l) x = r.net.layers[l].forward(x);
    take(read_view(x));
  };
  auto const again = r.s.scores_around(from, steps, score_method::kl_div);
  for (std::size_t g = 0; g < 4; ++g)
    for (std::size_t k = 0; k < 3; ++k) CHECK(again[g].candidates[k].score == around[g].candidates[k].score);
}

TEST_CASE("refine: repairs what groups do to one another, within the budget, and leaves the best applied") {
  rigged r;
  // INT4 of a and of b together is what hurts; alone each is almost free
  r.loss = [](auto const& of) {
    double const both = of[0] == int4 && of[1] == int4 ? 10 : 0;
    return both + one(of[0], 0.1, 0.01) + one(of[1], 0.1, 0.01) + one(of[2], 0.3, 0.02) + one(of[3], 0.4, 0.03);
  };
  auto const from = r.choice({0, 0, 1, 2});
  auto const found = r.refined(from);
  CHECK(found.before == doctest::Approx(10.22));
  double least = 1e9;  // of all choices under the budget
  for (int i = 0; i < 81; ++i) {
    auto const c = r.choice({i % 3, i / 3 % 3, i / 9 % 3, i / 27});
    if (c.bits > from.budget) continue;
    r.s.apply(c);
    least = std::min(least, r.loss(r.active()));
  }
  CHECK(found.measured == least);
  CHECK(found.best.bits <= found.best.budget);
  CHECK(found.best.budget == from.budget);
  CHECK(found.best.bound == from.bound);
  CHECK_FALSE(found.best.optimal);
  CHECK(found.best.gap == found.best.score - found.best.bound);
  auto const again = r.refined(found.best);
  CHECK(again.best.choice == found.best.choice);
  CHECK(again.attempts.empty());
  CHECK(again.ended == "nothing better is predicted");
  CHECK(r.loss(r.active()) == found.measured);
  auto const text = to_text(found);
  CHECK(has(text, "refine: round 1: ", "of 4 groups changed, predicted -", ": kept\n"));
  CHECK(has(text, "refine: 10.22 -> ", "nothing better is predicted\n"));
}

TEST_CASE("refine: changes that are right alone and wrong together are tried in smaller numbers") {
  rigged r;
  // from all INT8 every layer likes INT4 alone, and no two do
  r.loss = [](auto const& of) {
    int const n = count_of(of, int4);
    return n == 0 ? 5.0 : n == 1 ? 4.0 - (of[2] == int4 ? 0.5 : 0.0) : 10.0 * n;
  };
  auto const found = r.refined(r.choice({1, 1, 1, 1}), {.rounds = 1});
  CHECK(found.measured == 3.5);
  CHECK(found.best.choice == std::vector<int>{1, 1, 0, 1});
  REQUIRE(found.attempts.size() == 3);
  for (int i = 0; i < 3; ++i) {
    auto const& a = found.attempts[static_cast<std::size_t>(i)];
    CHECK(a.changed == std::vector<int>{4, 2, 1}[static_cast<std::size_t>(i)]);
    CHECK(a.kept == (i == 2));
    CHECK(a.predicted == doctest::Approx(std::vector<double>{-9, -5, -3}[static_cast<std::size_t>(i)]));
    CHECK(a.proven);
  }
  CHECK(found.ended == "the round limit of 1 was reached");
  CHECK(r.evaluations == 4);
}

TEST_CASE("refine: a change that is predicted to change nothing is left out where the budget allows") {
  rigged r;
  r.loss = [](auto const& of) { return of[0] == int4 ? 1.0 : 2.0; };
  std::vector<double> told;
  auto const found = r.refined(r.choice({1, 1, 1, 1}),
                               {.on_better = [&](allocation const& c, double m) { told = {m, 1.0 * c.choice[0]}; }});
  CHECK(found.best.choice == std::vector<int>{0, 1, 1, 1});
  CHECK(found.attempts.at(0).changed == 1);
  CHECK(told == std::vector<double>{1.0, 0.0});
}

TEST_CASE("refine: layers that have moved since the search are found again") {
  rigged r;
  r.loss = [](auto const& of) { return of[0] == int4 ? 1.0 : 2.0; };
  auto const from = r.choice({1, 1, 1, 1});
  r.net.layers.reserve(r.net.layers.capacity() + 100);
  CHECK(r.refined(from).measured == 1.0);
  CHECK(r.active().front() == int4);
}

TEST_CASE("refine: what measures worse than was predicted is not kept, nor what is not a number") {
  for (double const worse : {6.0, 5.0, std::nan("")}) {
    rigged r;
    auto const from = r.choice({1, 1, 1, 1});
    auto steps = r.steps();
    steps.metric = [&](int) { return -1.0 * count_of(r.active(), int4); };
    double first = 5.0;
    auto const found = refine(r.s, from, steps, [&] { return std::exchange(first, worse); });
    CHECK(found.best.choice == from.choice);
    CHECK(found.best.score == from.score);
    CHECK(found.measured == 5.0);
    CHECK(found.rounds == 1);
    CHECK(found.attempts.size() == 3);
    CHECK(found.ended == "nothing that was predicted better measured better");
    CHECK(r.active() == std::vector<std::string>{int8, int8, int8, int8});
  }
}

TEST_CASE("refine: a format whose score is not finite is left out, and said") {
  rigged r;
  r.loss = [](auto const& of) {
    return of[1] == int4 ? std::numeric_limits<double>::infinity() : 4.0 - count_of(of, int4);
  };
  auto const found = r.refined(r.choice({1, 1, 1, 1}));
  CHECK(found.best.choice[1] != 0);
  CHECK(found.measured == 1.0);
  REQUIRE_FALSE(found.notes.empty());
  CHECK(has(found.notes[0], "round 1", "b.quant_recipe", "INT4", "inf"));
}

TEST_CASE("refine: a callback that throws leaves the model as it was") {
  rigged r;
  r.loss = [](auto const& of) { return -1.0 * count_of(of, int4); };
  r.s.apply(r.choice({2, 0, 1, 2}));
  auto const before = r.active();
  matrix const y = r.net.forward(r.net.batch(0));
  auto const from = r.choice({1, 1, 1, 1});
  for (int at : {1, 3, 12, 18, 19}) {  // the metric in scoring, and the evaluation of the first and of what was found
    int calls = 0;
    auto const count = [&] {
      if (++calls == at) throw std::runtime_error{"data"};
      return r.loss(r.active());
    };
    auto steps = r.steps();
    steps.metric = [&](int) { return count(); };
    CHECK_THROWS_WITH(refine(r.s, from, steps, count), "data");
    CHECK(r.active() == before);
    CHECK(same_bits(y, r.net.forward(r.net.batch(0))));
  }
}

TEST_CASE("refine: refuses what it cannot begin with, and the model stays") {
  rigged r;
  r.loss = [](auto const&) { return 1.0; };
  r.s.apply(r.choice({2, 0, 1, 2}));
  auto const before = r.active();
  auto const from = r.choice({1, 1, 1, 1});
  auto const refused = [&](error_id id, allocation const& of, refine_options const& options = {}) {
    auto const text = error_text(id, [&] { r.refined(of, options); });
    CHECK(r.active() == before);
    return text;
  };
  using enum error_id;
  CHECK(says(refused(search_input, from, {.rounds = 0}), "rounds", "0"));
  CHECK(says(refused(search_input, from, {.method = score_method::gradient}), "gradient", "kl_div"));
  CHECK(r.evaluations == 0);
  CHECK(says(refused(search_input, r.choice({2, 2, 2, 2})), "over its budget", "choose()"));
  CHECK(says(refused(search_input, allocation{{1, 1}}), "2 group(s)", "4"));
  auto other = from;
  other.unit = 3;
  CHECK(says(refused(search_input, other), "1/3 bits"));
  r.loss = [](auto const&) { return std::nan(""); };
  CHECK(says(refused(search_input, from), "nan"));
  CHECK(says(error_text(search_no_data, [&] { refine(r.s, from, r.steps(), {}); }), "evaluates"));
  r.loss = [](auto const&) { return 1.0; };
  auto steps = r.steps();
  steps.metric = {};
  CHECK(says(error_text(search_no_data, [&] { refine(r.s, from, steps, [] { return 1.0; }); }), "search_steps.metric"));
  CHECK(says(error_text(search_no_data, [&] { refine(r.s, from, r.steps(0), [] { return 1.0; }); }), "scoring step"));
  CHECK(r.active() == before);
  search<cpu_backend> fresh{r.m, rigged::options()};
  CHECK(says(error_text(search_no_data, [&] { refine(fresh, from, r.steps(), [] { return 1.0; }); }), "run()"));
}
