// Key/value caches in a search: what they cost for so many tokens, and which format each attention's is held in.
#include "mixbit/autoquant/kv_cache.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/autoquant/plan_config.hpp"
#include "mixbit/quantizer/packed_weight.hpp"
#include "support/attention_host.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::int64_t bits_of(group_stats const& g, std::size_t k) { return g.candidates.at(k).bits; }

/// Three heads' keys of a cache, [batch, heads, tokens, width].
constexpr std::int64_t heads = 3, width = 16;
kv_cache_owner const keys_of_three{"*", heads, width, 0};

recipe_quantizers<cpu_backend> keys_as(model<cpu_backend>& m, quantizer_attribute_config const& keys) {
  quantize_config config;
  config.name = "KEYS";
  config.entries.push_back({.quantizer_name = "*k_bmm_quantizer", .cfg = std::vector{keys}});
  return search_recipe(m, config, m.modules()[3]);
}
/// The quantizer of keys after it has seen some, which are given to `then` with it.
template <class Then>
void show_keys(model<cpu_backend>& m, recipe_quantizers<cpu_backend>& recipe, Then&& then) {
  matrix const values = random_matrix(heads * cached, width, 3);
  const_tensor_ref const keys{dense_geometry(dtype::f32, {1, heads, cached, width}), values.data()};
  auto& q = recipe.quantizers[1].members().front();
  REQUIRE(q.name().find("k_bmm_quantizer") != std::string::npos);
  workspace_lock<cpu_backend> const held{m.scratch()};
  q.observe(m.device(), m.scratch().scratch, keys);
  q.finish(m.device());
  then(q, keys);
}

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
  CHECK(kv_cache_owner{"*", 2, 64}.elements_a_token() == 2 * 128);  // values are as wide as keys unless they are told
  kv_cache_owner const latent{"*", 1, 576, 0};
  CHECK(cache_bits(cost_model::modelopt, recipe, latent, 5) == 8 * 5 * 576);
}

TEST_CASE("kv cache: axes and blocks are those of [batch, heads, tokens, width], as the quantizer stores them") {
  attention_host net;
  model<cpu_backend> m{net};
  quantizer_attribute_config by_channel{.num_bits = bit_spec{4, 3}}, by_tokens = by_channel;
  by_channel.axis = axis_list{1, 3};
  by_tokens.block_sizes = block_config{{{-2, 32}}};
  for (auto const& keys : {std::pair{by_channel, heads * width}, {by_tokens, heads * width * 2}}) {
    auto recipe = keys_as(m, keys.first);
    show_keys(m, recipe, [&](auto& q, const_tensor_ref x) {
      packed_weight<cpu_backend> const packed{m.device(), m.scratch().scratch, q, x};
      CHECK(packed.groups().group_count() == keys.second);
      CHECK(cache_bits(cost_model::exact, recipe, keys_of_three, cached) == packed.size().bits());
    });
  }
}

TEST_CASE("kv cache: a static bias of keys is paid, a value for each channel of each head") {
  attention_host net;
  model<cpu_backend> m{net};
  auto recipe = search_recipe(m, preset("FP8_AFFINE_KV_CFG"), m.modules()[3]);
  show_keys(m, recipe, [&](auto& q, const_tensor_ref x) {
    auto const biases = static_cast<std::int64_t>(q.bias()->values().size());
    CHECK(biases == heads * width);
    CHECK(cache_bits(cost_model::exact, recipe, keys_of_three, cached) == 8 * x.size() + 32 + 32 * biases);
    CHECK(cache_bits(cost_model::modelopt, recipe, keys_of_three, cached) == 8 * x.size());
  });
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
  CHECK(says(refusal(error_id::config_value, [](auto& o) { o.kv_cache->owners.clear(); }), "owners is empty"));
  CHECK(says(refusal(error_id::config_value, [](auto& o) { o.kv_cache->owners[0].heads = 0; }), "0 heads"));
  CHECK(says(refusal(error_id::config_value, [](auto& o) { o.kv_cache->owners[0].value_dim = -1; }), "-1 for values"));
  CHECK(says(refusal(error_id::config_no_match,
                     [](auto& o) { o.module_search_spaces[0].formats = {preset("INT8_DEFAULT_CFG")}; }),
             "quantizes no weight", "layers.0.attn"));
}
