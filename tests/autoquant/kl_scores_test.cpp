// Scores by one quantized group at a time: KL divergence of logits, and the user's own metric.
#include "mixbit/autoquant/kl_scores.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

logit_rows rows_of(std::vector<float> values, std::int64_t width) { return {std::move(values), width}; }

named_chain three() { return named_chain{{"a", "b", "c"}}; }
search_options by(score_method method) {
  search_options o{.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")}, .target = 16.0};
  o.method = method;
  return o;
}
allocation only(std::size_t group, int candidate) {
  allocation a{{2, 2, 2}};
  a.choice[group] = candidate;
  return a;
}

/// Σ p log(p / q) as it is written, in long double.
double by_definition(matrix const& p, matrix const& q) {
  long double sum = 0;
  for (Eigen::Index r = 0; r < p.rows(); ++r) {
    long double of_p = 0, of_q = 0;
    for (Eigen::Index c = 0; c < p.cols(); ++c) {
      of_p += std::exp(static_cast<long double>(p(r, c)));
      of_q += std::exp(static_cast<long double>(q(r, c)));
    }
    for (Eigen::Index c = 0; c < p.cols(); ++c) {
      long double const a = std::exp(static_cast<long double>(p(r, c))) / of_p,
                        b = std::exp(static_cast<long double>(q(r, c))) / of_q;
      sum += a * std::log(a / b);
    }
  }
  return static_cast<double>(sum);
}

}  // namespace

TEST_CASE("kl_divergence: is that of the definition, of logits of any size") {
  matrix const p = random_matrix(5, 9, 1) * 3.0f, q = p + random_matrix(5, 9, 2) * 1e-3f;
  auto const of = [](matrix const& m) { return rows_of({m.data(), m.data() + m.size()}, m.cols()); };
  CHECK(kl_divergence(of(p), of(q)) == doctest::Approx(by_definition(p, q)).epsilon(1e-9));
  CHECK(kl_divergence(of(p), of(p)) == 0);
  CHECK(kl_divergence(rows_of({1000, 0}, 2), rows_of({0, 1000}, 2)) == 1000);
  CHECK(kl_divergence(rows_of({-2000, -2001}, 2), rows_of({5, 4}, 2)) == doctest::Approx(0));
  CHECK(kl_divergence(rows_of({0, 0, 1, 0}, 2), rows_of({0, 0, 0, 1}, 2)) == doctest::Approx(std::tanh(0.5)));
}

TEST_CASE("kl_divergence: what p rules out adds nothing, what only q rules out is infinite, and NaN stays") {
  float const inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  CHECK(kl_divergence(rows_of({0, -inf}, 2), rows_of({0, -inf}, 2)) == 0);
  CHECK(kl_divergence(rows_of({0, -inf}, 2), rows_of({0, 0}, 2)) == doctest::Approx(std::log(2.0)));
  CHECK(std::isinf(kl_divergence(rows_of({0, 0}, 2), rows_of({0, -inf}, 2))));
  CHECK(std::isnan(kl_divergence(rows_of({0, 0}, 2), rows_of({0, nan}, 2))));
  CHECK(std::isnan(kl_divergence(rows_of({nan, 0}, 2), rows_of({0, 0}, 2))));
}

TEST_CASE("kl scores: each is the divergence with that group alone quantized, summed over steps") {
  auto net = three();
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, by(score_method::kl_div)};
  matrix const before = net.forward(net.batch(0));
  s.run(net.steps(2, 3));
  CHECK(same_bits(before, net.forward(net.batch(0))));
  for (std::size_t g = 0; g < 3; ++g)
    for (int k = 0; k < 2; ++k) {
      auto const& c = s.stats()[g].candidates[static_cast<std::size_t>(k)];
      double sum = 0;
      for (int i = 0; i < 3; ++i) {
        s.apply(only(g, 2));
        matrix const p = net.forward(net.batch(i));
        s.apply(only(g, k));
        double const expected = by_definition(p, net.forward(net.batch(i)));
        CHECK(c.by_step[static_cast<std::size_t>(i)] == doctest::Approx(expected).epsilon(1e-6));
        sum += c.by_step[static_cast<std::size_t>(i)];
      }
      CHECK(c.score == sum);
      CHECK(c.score > 0);
    }
  CHECK(s.stats()[0].candidates[2].score == 0);
  CHECK(s.plan(s.choose(8.5)).method == "kl_div");
}

TEST_CASE("kl scores: a host that goes on from kept activations gives the same bits") {
  auto net = three(), again = three();
  model<cpu_backend> m{net}, m2{again};
  search<cpu_backend> s{m, by(score_method::kl_div)}, s2{m2, by(score_method::kl_div)};
  s.run(net.steps());
  auto steps = again.steps();
  std::vector<matrix> inputs(3);
  std::vector<std::string> asked;
  int whole = 0;
  steps.logits = [&](int i, logits_sink const& take) {
    matrix x = again.batch(i);
    for (std::size_t l = 0; l < 3; ++l) {
      inputs[l] = x;
      x = again.layers[l].forward(x);
    }
    take(read_view(x));
    ++whole;
  };
  steps.logits_from = [&](int, std::string_view first, logits_sink const& take) {
    asked.emplace_back(first);
    auto const from = static_cast<std::size_t>(first[0] - 'a');
    matrix x = inputs[from];
    for (std::size_t l = from; l < 3; ++l) x = again.layers[l].forward(x);
    take(read_view(x));
  };
  s2.run(steps);
  CHECK(whole == 2);
  CHECK(asked == std::vector<std::string>{"a", "a", "b", "b", "c", "c", "a", "a", "b", "b", "c", "c"});
  for (std::size_t g = 0; g < 3; ++g)
    for (std::size_t k = 0; k < 2; ++k)
      CHECK(s.stats()[g].candidates[k].by_step == s2.stats()[g].candidates[k].by_step);
}

TEST_CASE("kl scores: logits that are not handed over once, or change their shape, are refused") {
  auto net = three();
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, by(score_method::kl_div)};
  matrix const before = net.forward(net.batch(0));
  auto const refused = [&](error_id id, std::function<void(int, logits_sink const&)> logits) {
    auto steps = net.steps();
    steps.logits = std::move(logits);
    auto const text = error_text(id, [&] { s.run(steps); });
    CHECK(same_bits(before, net.forward(net.batch(0))));
    return text;
  };
  matrix const y = random_matrix(4, 8, 3), empty{0, 8};
  using enum error_id;
  CHECK(says(refused(search_no_data, [](int, logits_sink const&) {}), "0 tensors"));
  CHECK(says(refused(search_no_data, [&](int, logits_sink const& t) { t(read_view(y)), t(read_view(y)); }), "2 ten"));
  CHECK(says(refused(search_no_data, [&](int, logits_sink const& t) { t(read_view(empty)); }), "no rows"));
  int calls = 0;
  CHECK(says(refused(tensor_shape,
                     [&](int, logits_sink const& t) {
                       matrix const shrinks = random_matrix(++calls == 4 ? 3 : 4, 8, 1);
                       t(read_view(shrinks));
                     }),
             "step 0", "3 rows of 8", "b quantized", "4 of 8"));
  auto steps = net.steps();
  steps.logits = {};
  CHECK(says(error_text(search_no_data, [&] { s.run(steps); }), "kl_div", "search_steps.logits"));
}

TEST_CASE("degradation: is the metric with one group quantized less the metric without, also below zero") {
  auto net = three();
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, by(score_method::degradation)};
  auto steps = net.steps(2, 2);
  s.run(steps);
  bool below = false;
  for (std::size_t g = 0; g < 3; ++g)
    for (int k = 0; k < 2; ++k)
      for (int i = 0; i < 2; ++i) {
        s.apply(only(g, 2));
        double const unquantized = steps.metric(i);
        s.apply(only(g, k));
        double const expected = steps.metric(i) - unquantized;
        CHECK(s.stats()[g].candidates[static_cast<std::size_t>(k)].by_step[static_cast<std::size_t>(i)] == expected);
        below = below || expected < 0;
      }
  CHECK(below);
  CHECK(s.choose(8.5).optimal);
  steps.metric = {};
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run(steps); }), "degradation", "search_steps.metric"));
}

TEST_CASE("kl scores: a group with one format runs it in the reference too") {
  auto net = three();
  model<cpu_backend> m{net};
  auto o = by(score_method::degradation);
  o.module_search_spaces = {{{"b"}, {preset("INT8_DEFAULT_CFG")}, false}};
  search<cpu_backend> s{m, o};
  auto steps = net.steps(1, 1);
  std::vector<std::string> active;
  steps.metric = [&](int) {
    std::string all;
    for (auto& layer : net.layers) all += site_of(layer).quantizers().recipe.substr(0, 4) + " ";
    active.push_back(all);
    return 1.0 * static_cast<double>(active.size());
  };
  s.run(steps);
  CHECK(active == std::vector<std::string>{"NONE INT8 NONE ", "INT4 INT8 NONE ", "INT8 INT8 NONE ", "NONE INT8 INT4 ",
                                           "NONE INT8 INT8 "});
}
