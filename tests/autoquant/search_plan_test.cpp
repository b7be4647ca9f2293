// What a search knows before data: spaces, the fixed config, grouping and score rules, and what matches nothing.
#include "mixbit/autoquant/search_plan.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"
#include "support/named_chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config const int4 = preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), int8 = preset("INT8_DEFAULT_CFG"),
                      fp8 = preset("FP8_DEFAULT_CFG");
using names = std::vector<std::string>;

named_chain decoder() {
  return named_chain{{"0.attn.q_proj", "0.attn.k_proj", "0.attn.o_proj", "0.mlp.up_proj", "head"}};
}
search_options with_formats(std::vector<quantize_config> formats) {
  search_options o;
  o.formats = std::move(formats);
  o.target = 16.0;
  return o;
}
module_search_space space(std::vector<pattern> modules, std::vector<quantize_config> formats, bool none = true) {
  return {std::move(modules), std::move(formats), none};
}

/// What planning with these options says.
std::string refusal(error_id id, search_options const& o, bool strict = true) {
  auto net = decoder();
  model_options<cpu_backend> with;
  with.strict = strict;
  model<cpu_backend> m{net, with};
  return error_text(id, [&] { search<cpu_backend>{m, o}; });
}

matched_rule const* row(std::vector<matched_rule> const& rules, std::string const& kind, std::string const& label) {
  for (auto const& r : rules)
    if (r.kind == kind && r.rule == label) return &r;
  return nullptr;
}

}  // namespace

TEST_CASE("search plan: a space's formats replace the search's for the groups that it covers") {
  auto net = decoder();
  model<cpu_backend> m{net};
  auto o = with_formats({int4, int8});
  o.module_search_spaces = {space({"*attn.[qk]_proj"}, {fp8, int8}, false), space({"head"}, {fp8}, false)};
  search<cpu_backend> s{m, o};
  CHECK(formats_of(group_named(s.stats(), "0.attn.q_proj")) == names{"INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG"});
  CHECK(formats_of(group_named(s.stats(), "0.attn.o_proj")) ==
        names{"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT8_DEFAULT_CFG", "NONE"});
  CHECK(formats_of(group_named(s.stats(), "head")) == names{"FP8_DEFAULT_CFG"});
  CHECK(s.formats().size() == 3);  // INT8 of both lists is one
  CHECK(group_named(s.stats(), "head").space == "head");
  s.run(net.steps());
  auto const plan = s.plan(s.choose(16.0));
  CHECK(plan.modules[4].rule == "given its only format, in the space of 'head'");
  CHECK(plan.modules[4].recipe == "FP8_DEFAULT_CFG(effective-bits: 8.0)");
  CHECK(plan.modules[0].recipe != none_label);
  CHECK(plan.modules[2].recipe == none_label);
  s.apply(s.choose(16.0));
  CHECK(site_of(net.layers[4]).quantizers().recipe == "FP8_DEFAULT_CFG(effective-bits: 8.0)");
  CHECK(site_of(net.layers[2]).quantizers().recipe == "NONE");
}

TEST_CASE("search plan: a group with one format runs it while the others are scored") {
  auto net = decoder();
  model<cpu_backend> m{net};
  auto o = with_formats({int4});
  o.module_search_spaces = {space({"head"}, {int8}, false)};
  search<cpu_backend> s{m, o};
  auto steps = net.steps();
  steps.score = [&, score = steps.score](int i) {
    CHECK(site_of(net.layers[4]).quantizers().recipe == "INT8_DEFAULT_CFG(effective-bits: 8.0)");
    CHECK_FALSE(site_of(net.layers[4]).scoring);
    CHECK(site_of(net.layers[0]).quantizers().recipe == "NONE");
    score(i);
  };
  steps.calibrate = [&, calibrate = steps.calibrate](int i) {
    CHECK(site_of(net.layers[4]).quantizers().recipe == "NONE");
    calibrate(i);
  };
  s.run(steps);
  CHECK(group_named(s.stats(), "head").candidates.at(0).score == 0);
  CHECK(group_named(s.stats(), "0.attn.o_proj").candidates.at(0).score > 0);
}

TEST_CASE("search plan: spaces that take a part of a group, overlap or are empty are refused") {
  auto o = with_formats({int4});
  auto const with = [&](std::vector<module_search_space> spaces) {
    o.module_search_spaces = std::move(spaces);
    return o;
  };
  using enum error_id;
  CHECK(says(refusal(config_conflict, with({space({"*q_proj"}, {int8})})), "[0]", "0.attn.q_proj", "not 0.attn.k_proj",
             "{q_proj,k_proj,v_proj}"));
  CHECK(says(refusal(config_conflict, with({space({"head"}, {int8}), space({"h*"}, {fp8})})), "[0]", "[1]", "head"));
  CHECK(says(refusal(config_no_match, with({space({"head", "tail*"}, {int8})})), "'tail*'"));
  CHECK(says(refusal(config_value, with({space({}, {int8})})), "module_search_spaces[0]"));
  CHECK(says(refusal(config_value, with({space({"head"}, {})})), "module_search_spaces[0]"));
  auto other = fp8;
  other.name = int4.name;
  CHECK(says(refusal(state_duplicate, with({space({"head"}, {other})})), int4.name));
  CHECK(says(refusal(config_no_match, with({space({"*"}, {int8})})), "format " + int4.name, "no layer"));
  o.formats.clear();
  CHECK(says(refusal(search_input, with({space({"head"}, {int8})})), "0.attn.q_proj", "none of module_search_spaces"));
}

TEST_CASE("search plan: the fixed config rules what no space covers, by its names too") {
  auto net = decoder();
  model<cpu_backend> m{net};
  auto fixed = fp8;
  fixed.entries.push_back({.quantizer_name = "*o_proj*", .enable = false});
  search_options o;
  o.target = 12.0;
  o.module_search_spaces = {space({"*up_proj"}, {int4, int8})};
  o.fixed_quantization_config = fixed;
  search<cpu_backend> s{m, o};
  CHECK(formats_of(group_named(s.stats(), "0.attn.q_proj")) == names{"FP8_DEFAULT_CFG"});
  CHECK(group_named(s.stats(), "0.attn.q_proj").fixed);
  CHECK(formats_of(group_named(s.stats(), "0.attn.o_proj")) == names{"NONE"});
  CHECK(group_named(s.stats(), "0.attn.o_proj").disabled_by == "fixed_quantization_config FP8_DEFAULT_CFG");
  CHECK(group_named(s.stats(), "0.mlp.up_proj").candidates.size() == 3);
  s.run(net.steps());
  auto const chosen = s.choose(12.0);
  s.apply(chosen);
  CHECK(site_of(net.layers[0]).quantizers().recipe == "FP8_DEFAULT_CFG(effective-bits: 8.0)");
  CHECK(s.plan(chosen).modules[0].rule == "fixed, grouped by '{q_proj,k_proj,v_proj}'");

  using enum error_id;
  auto with = o;
  with.formats = {int8};
  CHECK(says(refusal(config_conflict, with), "fixed_quantization_config FP8", "no formats"));
  with = o;
  with.module_search_spaces.clear();
  CHECK(says(refusal(config_conflict, with), "needs module_search_spaces"));
  with = o;
  with.fixed_quantization_config->entries.push_back({.quantizer_name = "*k_proj*", .enable = false});
  CHECK(says(refusal(config_conflict, with), "1 of the 2 layers", "0.attn.q_proj.quant_recipe"));
  with = o;
  quantizer_attribute_config const int6{.num_bits = 6};
  with.fixed_quantization_config->entries.push_back(
      {.quantizer_name = "head.weight_quantizer", .cfg = std::vector{int6}});
  CHECK(says(refusal(config_conflict, with), "head.weight_quantizer", "by its name"));
}

TEST_CASE("search plan: the user's grouping rules come before the default ones, which can be dropped") {
  auto net = decoder();
  model<cpu_backend> m{net};
  auto o = with_formats({int4});
  auto const groups = [&] {
    std::vector<std::size_t> sizes;
    search<cpu_backend> const s{m, o};
    for (auto const& g : s.stats()) sizes.push_back(g.modules.size());
    return sizes;
  };
  CHECK(groups() == std::vector<std::size_t>{2, 1, 1, 1});
  o.grouping = {"{k_proj,o_proj}"};
  CHECK(groups() == std::vector<std::size_t>{1, 2, 1, 1});
  o.grouping = {{"all", [](std::string_view) { return std::string{"all"}; }}};
  CHECK(groups() == std::vector<std::size_t>{5});
  o.grouping = {};
  o.default_grouping = false;
  CHECK(groups() == std::vector<std::size_t>{1, 1, 1, 1, 1});
  o.grouping = {"{w7,w8}"};
  CHECK(says(refusal(error_id::config_no_match, o), "grouping rule '{w7,w8}'"));
  model_options<cpu_backend> lenient;
  lenient.strict = false;
  model<cpu_backend> any{net, lenient};
  search<cpu_backend> s{any, o};
  CHECK(mentions(s.resolved(1, 1).notes, "{w7,w8}", "groups no layer"));
}

TEST_CASE("search plan: every rule is listed with what it decides about") {
  auto net = decoder();
  model<cpu_backend> m{net};
  auto o = with_formats({int4, int8});
  o.disabled_layers = {"head"};
  o.grouping = {"{o_proj,up_proj}.nothing", "attn.{q_proj,o_proj}"};
  CHECK(says(refusal(error_id::config_no_match, o), "nothing"));
  o.grouping.erase(o.grouping.begin());
  o.cost_excluded = {"*k_proj"};
  search<cpu_backend> s{m, o};
  auto const rules = s.resolved(1, 1).rules;
  auto const has = [&](char const* kind, char const* label, names const& modules) {
    auto const* const r = row(rules, kind, label);
    return r != nullptr && r->modules == modules;
  };
  CHECK(has("grouping rule", "attn.{q_proj,o_proj}", {"0.attn.q_proj", "0.attn.o_proj"}));
  CHECK(has("default grouping rule", "{q_proj,k_proj,v_proj}", {"0.attn.k_proj"}));
  CHECK(row(rules, "default grouping rule", "{w1_linear,w2_linear,w3_linear}.#") == nullptr);
  CHECK(has("disabled layer", "head", {"head"}));
  CHECK(has("excluded from cost", "*k_proj", {"0.attn.k_proj"}));
  CHECK(has("format", "INT8_DEFAULT_CFG(effective-bits: 8.0)",
            {"0.attn.q_proj", "0.attn.o_proj", "0.attn.k_proj", "0.mlp.up_proj"}));
}

TEST_CASE("search plan: a score rule moves a group's score to a region, and its layers' own calls are left out") {
  named_chain net{{"moe.0.w1", "moe.0.w2", "out"}};
  model<cpu_backend> m{net};
  auto o = with_formats({int4, int8});
  o.score_rules = {grouping_rule{"moe", [](std::string_view name) -> std::optional<std::string> {
                                   if (name.find("moe.") == name.npos) return std::nullopt;
                                   return "moe";
                                 }}};
  search<cpu_backend> s{m, o};
  CHECK(row(s.resolved(1, 1).rules, "score rule", "moe")->modules == names{"moe.0.w1", "moe.0.w2"});
  auto const mlp = [&](matrix const& x) -> matrix { return net.layers[1].forward(net.layers[0].forward(x)); };
  std::vector<matrix> gradients;
  auto steps = net.steps(2, 2);
  CHECK(says(error_text(error_id::search_no_data, [&] { s.run(steps); }), "score rule", "regions(\"moe\")"));
  steps.score = [&](int i) {
    net.forward(net.batch(i));
    matrix const at_mlp = net.layers[2].backward(random_matrix(6, 32, 40 + static_cast<unsigned>(i)));
    gradients.push_back(at_mlp);
    for (auto const& region : s.regions("moe")) score(region, net.batch(i), mlp, at_mlp);
    net.layers[0].backward(net.layers[1].backward(at_mlp));  // which call mixbit::score too
  };
  s.run(steps);
  auto const& group = group_named(s.stats(), "moe.0.w1");
  for (int k = 0; k < 2; ++k) {
    double expected = 0;
    for (int i = 0; i < 2; ++i) {
      s.apply({{2, 2}});
      matrix const y = mlp(net.batch(i));
      s.apply({{k, 2}});
      matrix const changed = (mlp(net.batch(i)) - y).cwiseProduct(gradients[static_cast<std::size_t>(i)]);
      expected += static_cast<double>(changed.squaredNorm());
    }
    CHECK(group.candidates[static_cast<std::size_t>(k)].score == doctest::Approx(expected).epsilon(1e-5));
  }
  CHECK(says(error_text(error_id::state_missing, [&] { s.regions("mlp"); }), "'mlp'"));
  o.score_rules = {"(x).{y}"};
  CHECK(says(error_text(error_id::config_no_match, [&] { search<cpu_backend>{m, o}; }), "score rule '(x).{y}'"));
}
