// The plan before any forward: forwards and memory that it predicts against what a run takes, and its text.
#include "mixbit/autoquant/resolved_search.hpp"

#include <doctest/doctest.h>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/refine.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

named_chain decoder() { return named_chain{{"0.attn.q_proj", "0.attn.k_proj", "0.mlp.up_proj", "head"}}; }

quantize_config with_algorithm(char const* preset_name, char const* method) {
  auto config = preset(preset_name);
  config.algorithm = method;
  config.name = method;
  return config;
}

struct counted {
  int calibration = 0, scoring = 0;
};
counted count_run(search<cpu_backend>& s, named_chain& net, int calibration, int scoring) {
  counted n;
  auto steps = net.steps(calibration, scoring);
  auto const count = [](auto& f, int& by) {
    f = [&by, f](int i, auto&&... more) {
      ++by;
      return f(i, more...);
    };
  };
  count(steps.calibrate, n.calibration);
  count(steps.score, n.scoring);
  count(steps.metric, n.scoring);
  steps.logits = [&n, logits = steps.logits](int i, logits_sink const& take) {
    ++n.scoring;
    logits(i, take);
  };
  s.run(steps);
  return n;
}

}  // namespace

TEST_CASE("resolved search: the forwards that it foretells are those of a run") {
  struct {
    std::vector<quantize_config> formats;
    int calibration;
  } const cases[] = {
      {{preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG")}, 0},
      {{preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG"), preset("FP8_DEFAULT_CFG")}, 8},
      {{with_algorithm("INT8_DEFAULT_CFG", "smoothquant")}, 8},
      {{with_algorithm("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite"), preset("INT8_DEFAULT_CFG")}, 2 * 2 + 8},
      {{with_algorithm("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_full")}, 3 * 2},
  };
  for (auto const& c : cases) {
    auto net = decoder();
    model<cpu_backend> m{net};
    search<cpu_backend> s{m, {.formats = c.formats, .target = 16.0}};
    auto const told = s.resolved(8, 3);
    CAPTURE(told.calibrations.front().algorithm);
    CHECK(told.calibration_is_exact);
    CHECK(told.calibration_forwards == c.calibration);
    CHECK(told.scoring_forwards == 3);
    CHECK(told.scoring_backwards == 3);
    auto const n = count_run(s, net, 8, 3);
    CHECK(n.calibration == told.calibration_forwards);
    CHECK(n.scoring == told.scoring_forwards);
  }
}

TEST_CASE("resolved search: one group at a time takes a forward for each candidate, and one without") {
  for (auto const method : {score_method::kl_div, score_method::degradation}) {
    auto net = decoder();
    model<cpu_backend> m{net};
    search_options o{.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")}, .target = 16.0};
    o.method = method;
    o.disabled_layers = {"head"};
    search<cpu_backend> s{m, o};
    auto const told = s.resolved(2, 3);
    CHECK(told.scoring_forwards == 3 * (1 + 2 * 2));
    CHECK(told.scoring_backwards == 0);
    CHECK(count_run(s, net, 2, 3).scoring == told.scoring_forwards);
  }
}

TEST_CASE("resolved search: an algorithm of the user's own runs its steps at least once") {
  auto net = decoder();
  model_options<cpu_backend> with;
  with.algorithms.add("acme.twice", [](calibration<cpu_backend>& c, algorithm_step const&) {
    calibrate_max(c);
    calibrate_max(c);
  });
  model<cpu_backend> m{net, with};
  search<cpu_backend> s{m, {.formats = {with_algorithm("INT8_DEFAULT_CFG", "acme.twice")}, .target = 16.0}};
  auto const told = s.resolved(4, 1);
  CHECK_FALSE(told.calibration_is_exact);
  CHECK(told.calibration_forwards == 4);
  CHECK(to_text(told).find("acme.twice, 4 steps, run at least 1 time\n") != std::string::npos);
  CHECK(count_run(s, net, 4, 1).calibration == 8);
}

TEST_CASE("resolved search: scratch memory is what a step takes") {
  auto net = decoder();
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, {.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")},
                            .target = 16.0}};
  auto const told = s.resolved(2, 2);
  s.run(net.steps());
  auto const taken = static_cast<std::int64_t>(m.scratch().scratch.peak());
  auto const foretold = told.scratch_bytes + 6 * told.scratch_bytes_a_token;
  CHECK(taken <= foretold + 1024);  // where tensors are aligned, bytes are left between them
  CHECK(foretold <= taken + 1024);
  // three layers' amaxes and sums: [32] rows and an input for INT8, 32 blocks for INT4, two steps of two doubles
  CHECK(told.kept_bytes == 4 * (4 * (32 + 1) + 4 * 32 + 2 * 2 * 8));
}

TEST_CASE("resolved search: memory counts the scales of both operands and a branch") {
  auto net = decoder();
  model<cpu_backend> m{net};
  auto const kept = [&](char const* method) {
    auto const format = with_algorithm("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", method);
    return search<cpu_backend>{m, {.formats = {format}, .target = 16.0}}.resolved(1, 1).kept_bytes;
  };
  auto const layers = static_cast<std::int64_t>(net.layers.size());
  CHECK(kept("awq_lite") - kept("max") == layers * 2 * 4 * 32);
  CHECK(kept("svdquant") - kept("awq_lite") == layers * (4 * 32 * (32 + 32) + 2 * 4 * 32 * 32));
}

TEST_CASE("resolved search: the text has rules, groups, costs, range, forwards and memory") {
  auto net = decoder();
  model<cpu_backend> m{net};
  search_options o{.formats = {preset("INT8_DEFAULT_CFG")}, .target = 12.0};
  o.disabled_layers = {"head"};
  o.cost_excluded = {"head"};
  o.cost = cost_model::modelopt;
  o.method = score_method::kl_div;
  search<cpu_backend> s{m, o};
  std::string const text = to_text(s.resolved(4, 2));
  for (char const* part :
       {"  disabled layer 'head': head\n", "  excluded from cost 'head': head\n",
        "  default grouping rule '{q_proj,k_proj,v_proj}': 0.attn.q_proj, 0.attn.k_proj\n", "groups: 3\n",
        "  0.attn.q_proj.quant_recipe: 2048 elements, searched, grouped by '{q_proj,k_proj,v_proj}'\n",
        "    of 0.attn.q_proj, 0.attn.k_proj\n",
        "    INT8_DEFAULT_CFG(effective-bits: 8.0): 16384 bits, 8 an element\n",
        "  head.quant_recipe: 1024 elements, disabled by 'head', counts for 0/1\n",
        "cost model: modelopt; target 12 bits an element, of 8 to 16 that can be reached\n",
        "  INT8_DEFAULT_CFG: max, 4 steps, run 1 time\n", "forwards: 4 to calibrate, 6 to score by kl_div\n",
        "memory beside the host's: "}) {
    CAPTURE(part);
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  }
  CHECK_FALSE(net.layers[0].slots.live());
}

TEST_CASE("resolved search: nothing is cut, in text and in JSON, unless asked") {
  std::vector<std::string> names;
  for (int i = 0; i < 12; ++i) names.push_back("e." + std::to_string(i) + ".w1");
  named_chain net{names};
  model<cpu_backend> m{net};
  search_options o{.formats = {preset("INT8_DEFAULT_CFG")}, .target = 12.0};
  o.grouping = {grouping_rule{"all", [](std::string_view) { return std::optional<std::string>{"all"}; }}};
  o.max_bytes = 1 << 20;
  auto const told = search<cpu_backend>{m, o}.resolved(1, 1);
  std::string all;
  for (auto const& name : names) all += (all.empty() ? "" : ", ") + name;
  auto const text = to_text(told);
  CHECK(text.find("  grouping rule 'all': " + all + '\n') != std::string::npos);
  CHECK(text.find("    of " + all + '\n') != std::string::npos);
  CHECK(to_text(told, 2).find("    of e.0.w1, e.1.w1, ... (12 in all)\n") != std::string::npos);
  auto const j = to_json(told);
  CHECK(j["rules"][0]["modules"] == names);
  CHECK(j["rules"][1]["kind"] == "format");
  auto const& group = j["groups"]["e.0.w1.quant_recipe"];
  CHECK(group["modules"] == names);
  CHECK(group["candidates"][0]["bits"] == told.groups[0].candidates[0].bits);
  CHECK(group["candidates"][1]["format"] == none_label);
  CHECK(j["limits"][0].dump() == R"({"of":"effective_bits","limit":12.0,"least":9.0,"most":16.0})");
  CHECK(j["limits"][1]["of"] == "bytes");
  CHECK(j["limits"][1]["most"] == 12 * 1024 * 2.0);
  CHECK(j["calibration_forwards"] == told.calibration_forwards);
}

TEST_CASE("resolved search: a refinement's forwards are at most those foretold") {
  for (auto const method : {score_method::kl_div, score_method::degradation}) {
    auto net = decoder();
    model<cpu_backend> m{net};
    search<cpu_backend> s{m, {.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")},
                              .target = 8.0}};
    auto steps = net.steps();
    auto told = s.resolved(2, 2);
    add_refinement(told, 1, 2, method, 3);
    s.run(steps);
    int forwards = 0, evaluations = 0;
    steps.logits = [&, logits = steps.logits](int i, logits_sink const& take) { ++forwards, logits(i, take); };
    steps.metric = [&, metric = steps.metric](int i) { return ++forwards, metric(i); };
    auto const measured = [&] { return 100.0 - ++evaluations; };
    (void)refine(s, s.choose(), steps, measured, {.method = method, .rounds = 1});
    CHECK(forwards == told.refinement->scoring_forwards);
    CHECK(evaluations <= told.refinement->evaluations);
    CHECK(evaluations >= 2);
    CHECK(told.seconds(2, 5) == 2.0 * (2 + 2 + forwards + told.refinement->evaluations * 3) + 5.0 * 2);
    CHECK(to_text(told).find("in 1 round(s) of refinement") != std::string::npos);
  }
}
