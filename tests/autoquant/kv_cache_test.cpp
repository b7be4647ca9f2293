// Key/value caches in a search: what they cost for so many tokens, and which format each attention's is held in.
#include "mixbit/autoquant/kv_cache.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <deque>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/plan_config.hpp"
#include "mixbit/quantizer/packed_weight.hpp"
#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Two blocks of one head each, x + o(softmax(q kᵀ) v), with quantizers on keys and values.
struct attention_host {
  static constexpr Eigen::Index width = 32, head_dim = 16, tokens = 12;
  struct block {
    linear_layer q, k, v, o;
    quantizer_slots<cpu_backend> slots;
  };
  std::deque<block> blocks;

  attention_host() {
    for (unsigned i = 0; i < 2; ++i) {
      auto& b = blocks.emplace_back();
      for (auto* layer : {&b.q, &b.k, &b.v}) layer->weight = random_matrix(head_dim, width, 60 + ++seed_) / 5.0f;
      b.o.weight = random_matrix(width, head_dim, 90 + i) / 4.0f;
    }
  }
  static matrix attend(block& b, matrix const& x) {
    matrix const q = b.q.forward(x);
    matrix k = b.k.forward(x), v = b.v.forward(x);
    apply(b.slots, k, 1);
    apply(b.slots, v, 2);
    matrix p = (q * k.transpose() / 4.0f).array().exp();
    for (Eigen::Index r = 0; r < p.rows(); ++r) p.row(r) /= p.row(r).sum();
    return b.o.forward(p * v);
  }
  matrix forward(matrix x) {
    for (auto& b : blocks) x += attend(b, x);
    return x;
  }
  template <class Visit>
  void walk(Visit&& visit) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      auto& b = blocks[i];
      std::string const at = "layers." + std::to_string(i) + ".attn";
      visit(linear(at + ".q_proj", b.q.slots, b.q.weight));
      visit(linear(at + ".k_proj", b.k.slots, b.k.weight));
      visit(linear(at + ".v_proj", b.v.slots, b.v.weight));
      visit(module(at, "attention", b.slots));
      visit(linear(at + ".o_proj", b.o.slots, b.o.weight));
    }
  }

  static matrix batch(int i) { return random_matrix(tokens, width, 7 + static_cast<unsigned>(i)); }
  search_steps steps() {
    return {.calibration = 2,
            .scoring = 2,
            .calibrate = [this](int i) { forward(batch(i)); },
            .logits = [this](int i, logits_sink const& take) { take(read_view(forward(batch(i)))); },
            .metric = [this](int i) { return static_cast<double>(forward(batch(i)).squaredNorm()); }};
  }

 private:
  unsigned seed_ = 0;
};

constexpr std::int64_t cached = 40, a_token = 16 + 16;

search_options with_cache() {
  search_options o{.formats = {preset("INT8_DEFAULT_CFG")}, .target = 12.0};
  o.method = score_method::kl_div;
  o.kv_cache = kv_cache_cost{.tokens = cached, .owners = {{"layers.*.attn", 1, 16, 16}}};
  return o;
}
search_options with_searched_cache() {
  auto o = with_cache();
  o.module_search_spaces = {{{"layers.*.attn"}, {preset("NVFP4_KV_CFG"), preset("FP8_KV_CFG")}, true}};
  return o;
}
std::int64_t bits_of(group_stats const& g, std::size_t k) { return g.candidates.at(k).bits; }

}  // namespace

TEST_CASE("kv cache: what no space covers is paid at 16 bits, and a budget has to cover it") {
  attention_host net;
  model<cpu_backend> m{net};
  search<cpu_backend> s{m, with_cache()};
  auto const& g = group_named(s.stats(), "layers.1.attn");
  CHECK(g.elements == cached * a_token);
  CHECK(formats_of(g) == std::vector<std::string>{"NONE"});
  CHECK(bits_of(g, 0) == 16 * cached * a_token);
  auto o = with_cache();
  o.target = 10.0;  // which weights alone meet
  CHECK(says(error_text(error_id::search_infeasible, [&] { search<cpu_backend>{m, o}; }), "10 effective bits",
             "no module_search_space"));
  o.kv_cache.reset();
  CHECK(group_named(search<cpu_backend>{m, o}.stats(), "layers.1.attn.o_proj").candidates.size() == 2);
  CHECK(to_text(s.resolved(1, 1)).find("exact, key/value cache of 40 tokens") != std::string::npos);
  CHECK(to_text(s.resolved(1, 1)).find("key/value cache 'layers.*.attn': layers.0.attn, layers.1.attn\n") !=
        std::string::npos);
}

TEST_CASE("kv cache: bits are those of the codes and scales of such a cache") {
  attention_host net;
  model<cpu_backend> m{net};
  auto const o = with_searched_cache();
  search<cpu_backend> s{m, o};
  s.run(net.steps());
  auto const& g = group_named(s.stats(), "layers.0.attn");
  CHECK(formats_of(g) == std::vector<std::string>{"NVFP4_KV_CFG", "FP8_KV_CFG", "NONE"});
  matrix const keys = random_matrix(cached, 16, 3);
  for (int k = 0; k < 2; ++k) {
    auto& q = net.blocks[0].slots.shared_site()->recipes[static_cast<std::size_t>(k)].quantizers[1];
    REQUIRE(q.leaf() == "k_bmm_quantizer");
    workspace_lock<cpu_backend> const held{m.scratch()};
    packed_weight<cpu_backend> const packed{m.device(), m.scratch().scratch, q.members().front(), read_view(keys)};
    auto const arrays = packed.arrays(m.device());
    auto const bytes = arrays.codes.size() + arrays.scales.size() + 4 * arrays.tensor_scale.size();
    CHECK(bits_of(g, static_cast<std::size_t>(k)) == 2 * 8 * static_cast<std::int64_t>(bytes));
  }
}

TEST_CASE("kv cache: keys and values are paid apart, each by its own heads and format; others stay at 16 bits") {
  attention_host net;
  model<cpu_backend> m{net};
  auto const attention = m.modules()[3];
  auto recipe = search_recipe(m, preset("FP8_KV_CFG"), attention);
  auto keys_alone = preset("FP8_KV_CFG");
  keys_alone.entries.push_back({.quantizer_name = "*v_bmm_quantizer", .enable = false});
  auto of_keys = search_recipe(m, keys_alone, attention);
  kv_cache_owner const owner{"*", 3, 64, 32};
  CHECK(cache_bits(cost_model::modelopt, recipe, owner, 7) == 8 * 7 * 3 * 96);
  CHECK(cache_bits(cost_model::exact, recipe, owner, 7) == 8 * 7 * 3 * 96 + 2 * 32);
  CHECK(cache_bits(cost_model::exact, of_keys, owner, 7) == 8 * 7 * 3 * 64 + 32 + 16 * 7 * 3 * 32);
  kv_cache_owner const latent{"*", 1, 576, 0};
  CHECK(cache_bits(cost_model::modelopt, recipe, latent, 5) == 8 * 5 * 576);
}

TEST_CASE("kv cache: a search scores caches beside weights; plans and configs make what it applied, bit for bit") {
  for (auto const method : {score_method::kl_div, score_method::degradation}) {
    attention_host net;
    model<cpu_backend> m{net};
    auto o = with_searched_cache();
    o.method = method;
    search<cpu_backend> s{m, o};
    s.run(net.steps());
    auto const best = s.choose(8.0);
    CHECK(best.bits <= best.budget);
    std::size_t attention = 0;
    while (s.stats()[attention].modules.front() != "layers.1.attn") ++attention;
    auto one = best;
    for (std::size_t g = 0; g < one.choice.size(); ++g)
      one.choice[g] = static_cast<int>(s.stats()[g].candidates.size()) - 1;
    CHECK(best.choice[attention] != one.choice[attention]);  // at 8 bits a cache has to be quantized
    if (method == score_method::degradation) {
      double expected = 0;
      for (int const k : {0, 2}) {
        one.choice[attention] = k;
        s.apply(one);
        for (int i = 0; i < 2; ++i) expected += (k == 0 ? 1 : -1) * net.steps().metric(i);
      }
      CHECK(s.stats()[attention].candidates[0].score == doctest::Approx(expected));
      CHECK(expected != 0);
    }
    s.apply(best);
    matrix const y = net.forward(net.batch(5));
    auto const plan = plan_from_json(to_json(s.plan(best)), "plan.json");
    attention_host other, third;
    model<cpu_backend> m2{other}, m3{third};
    apply_plan(m2, plan, other.steps());
    CHECK(same_bits(y, other.forward(net.batch(5))));
    auto const made = plan_config(m3, plan);
    quantize(m3, made.config, [&] { for (int i = 0; i < 2; ++i) third.forward(net.batch(i)); });
    CHECK(same_bits(y, third.forward(net.batch(5))));
  }
}

TEST_CASE("kv cache: by gradient a cache is scored where a score rule says, and asked for one before anything runs") {
  attention_host net;
  model<cpu_backend> m{net};
  auto o = with_searched_cache();
  o.method = score_method::gradient;
  CHECK(says(error_text(error_id::config_value, [&] { search<cpu_backend>{m, o}; }), "layers.0.attn", "score rule"));
  o.disabled_layers = {"*_proj", "layers.0.attn"};
  o.formats.clear();
  o.target = 16.0;
  o.score_rules = {grouping_rule{"attn", [](std::string_view name) -> std::optional<std::string> {
                                   if (!name.ends_with(".attn")) return std::nullopt;
                                   return std::string{name};
                                 }}};
  search<cpu_backend> s{m, o};
  auto& last = net.blocks[1];
  auto const attend = [&](matrix const& x) -> matrix { return net.attend(last, x); };
  auto const inputs = [&](int i) -> matrix { return net.batch(i) + net.attend(net.blocks[0], net.batch(i)); };
  auto const gradient = [&](int i) { return random_matrix(12, 32, 30 + static_cast<unsigned>(i)); };
  auto steps = net.steps();
  steps.score = [&](int i) {
    for (auto const& region : s.regions("layers.1.attn")) score(region, inputs(i), attend, gradient(i));
  };
  s.run(steps);
  auto const& g = group_named(s.stats(), "layers.1.attn");
  allocation choice{std::vector<int>(s.stats().size(), 0)};
  auto const at = static_cast<std::size_t>(&g - s.stats().data());
  for (int const k : {0, 1}) {
    double expected = 0;
    for (int i = 0; i < 2; ++i) {
      choice.choice[at] = 2;
      s.apply(choice);
      matrix const x = inputs(i), y = attend(x);
      choice.choice[at] = k;
      s.apply(choice);
      expected += static_cast<double>((attend(x) - y).cwiseProduct(gradient(i)).squaredNorm());
    }
    CHECK(g.candidates[static_cast<std::size_t>(k)].score == doctest::Approx(expected).epsilon(1e-5));
    CHECK(expected > 0);
  }
}

TEST_CASE("kv cache: patterns that match no attention, sizes that none has and formats without caches are refused") {
  attention_host net;
  model<cpu_backend> m{net};
  auto const refusal = [&](error_id id, auto&& change) {
    auto o = with_searched_cache();
    change(o);
    return error_text(id, [&] { search<cpu_backend>{m, o}; });
  };
  CHECK(says(refusal(error_id::config_no_match, [](auto& o) { o.kv_cache->owners.push_back({"*.o_proj", 1, 1, 1}); }),
             "'*.o_proj'", "attention"));
  CHECK(says(refusal(error_id::config_value, [](auto& o) { o.kv_cache->tokens = 0; }), "tokens is 0"));
  CHECK(says(refusal(error_id::config_value, [](auto& o) { o.kv_cache->owners[0].heads = 0; }), "0 heads"));
  CHECK(says(refusal(error_id::config_value, [](auto& o) { o.kv_cache->owners[0].value_dim = -1; }), "-1 for values"));
  CHECK(says(refusal(error_id::config_no_match,
                     [](auto& o) { o.module_search_spaces[0].formats = {preset("INT8_DEFAULT_CFG")}; }),
             "quantizes no weight", "layers.0.attn"));
}
