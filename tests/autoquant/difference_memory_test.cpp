// The two ways of gradient scores under a limit of memory: what fits is kept from forward to backward, the rest
// recomputed, to the same bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/search.hpp"
#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A chain whose layers can keep their differences.
struct keeping_chain {
  named_chain net{{"a", "b", "c"}};
  std::vector<pending<cpu_backend>> kept = std::vector<pending<cpu_backend>>(3);
  bool can_recompute = true;
  std::vector<int> kept_by_step = {};

  template <class Visit>
  void walk(Visit&& visit) {
    net.walk(visit);
  }
  void run(int i) {
    matrix x = named_chain::batch(i);
    for (std::size_t l = 0; l < 3; ++l) {
      auto& layer = net.layers[l];
      layer.input = x;
      x = apply(layer.slots, x, layer.weight, linear_layer::product(), &kept[l]);
    }
    auto const has = [](auto const& k) { return !k.differences.empty(); };
    kept_by_step.push_back(static_cast<int>(std::count_if(kept.begin(), kept.end(), has)));
    matrix grad = random_matrix(6, named_chain::width, 40 + static_cast<unsigned>(i));
    for (std::size_t l = 3; l-- > 0;) {
      auto& layer = net.layers[l];
      if (can_recompute) score(layer.slots, kept[l], layer.input, layer.weight, linear_layer::product(), grad);
      else score(layer.slots, kept[l], grad);
      lend(layer.slots, layer.input, layer.weight, [&](auto const&, auto const& wq) { grad = grad * wq; });
    }
  }
};

search_options options_within(std::optional<std::int64_t> bytes) {
  search_options o{.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")}, .target = 16.0};
  o.difference_bytes = bytes;
  return o;
}

struct scored {
  std::vector<double> scores;
  std::vector<int> kept;  ///< calls, by step
};

scored scored_within(std::optional<std::int64_t> bytes) {
  keeping_chain net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_within(bytes)};
  auto steps = net.net.steps(2, 3);
  steps.score = [&](int i) { net.run(i); };
  s.run(steps);
  scored r{{}, net.kept_by_step};
  for (auto const& g : s.stats())
    for (auto const& c : g.candidates) r.scores.insert(r.scores.end(), c.by_step.begin(), c.by_step.end());
  return r;
}

constexpr std::int64_t one_call = 6 * named_chain::width * 4 * 2;  // tokens, outputs, bytes, recipes

}  // namespace

TEST_CASE("difference memory: as many calls keep as the limit holds, and the scores have the same bits") {
  auto const all = scored_within(std::nullopt), none = scored_within(0);
  CHECK(all.kept == std::vector<int>{3, 3, 3});
  CHECK(none.kept == std::vector<int>{0, 0, 0});
  CHECK(all.scores == none.scores);
  CHECK(all.scores[0] > 0);
  for (int const calls : {1, 2, 3}) {
    auto const some = scored_within(calls * one_call), fewer = scored_within(calls * one_call - 1);
    CHECK(some.kept == std::vector<int>(3, calls));  // in each step: what a backward has used is given back
    CHECK(fewer.kept == std::vector<int>(3, calls - 1));
    CHECK(some.scores == all.scores);
    CHECK(fewer.scores == all.scores);
  }
}

TEST_CASE("difference memory: the plan says which way is gone") {
  keeping_chain net;
  model<cpu_backend> m{net};
  auto const text = [&](std::optional<std::int64_t> bytes) {
    return to_text(search<cpu_backend>{m, options_within(bytes)}.resolved(1, 1));
  };
  auto const has = [](std::string const& in, char const* what) { return in.find(what) != std::string::npos; };
  CHECK(has(text(std::nullopt), "where the host keeps them, 768 for each token of a step: without a limit"));
  CHECK(has(text(0), "for each token of a step: recomputed in the backward\n"));
  CHECK(has(text(767), "recomputed in the backward, over the limit of 767"));
  CHECK(has(text(7680), "kept in steps of up to 10 tokens"));
  CHECK(to_json(search<cpu_backend>{m, options_within(7680)}.resolved(1, 1))["difference_bytes"] == 7680);
  CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, options_within(-1)}; }),
             "search_options.difference_bytes is -1"));
}

TEST_CASE("difference memory: a host that cannot recompute is told, not left without a score") {
  keeping_chain net;
  net.can_recompute = false;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, options_within(one_call)};
  auto steps = net.net.steps();
  steps.score = [&](int i) { net.run(i); };
  CHECK(says(error_text(error_id::state_missing, [&] { s.run(steps); }), "c: the differences of this call are over",
             "limit of 1536 bytes"));
}
