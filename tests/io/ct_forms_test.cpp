// What compressed-tensors has no form for is said of a search, a config and a plan before anything runs.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "mixbit/config/presets.hpp"
#include "mixbit/io/ct_forms.hpp"
#include "support/cache_bench.hpp"
#include "support/ct_bench.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Two layers, none of which is ever run; rows of the second are no whole groups of 32.
struct ct_two_layers {
  checkpoint_host host;
  mixbit::model<cpu_backend> m{host};
  ct_two_layers() {
    host.add("mlp.up_proj", make_weight({4, 64}));
    host.add("mlp.down_proj", make_weight({4, 48}));
  }
  std::string said(std::vector<quantize_config> formats, std::vector<pattern> disabled = {}) {
    search_options o;
    o.formats = std::move(formats);
    o.target = 16.0;
    o.disabled_layers = std::move(disabled);
    search<cpu_backend> const s{m, o};
    return error_text(error_id::format_value, [&] { require_ct_forms(m, s); });
  }
};

quantize_config named_format(char const* name, quantizer_attribute_config weight) {
  auto config = nothing_on();
  config.name = name;
  turn_on(config, "*weight_quantizer", std::move(weight));
  return config;
}

}  // namespace

TEST_CASE("ct forms: each format of a search is asked for, in each layer that may be given it") {
  ct_two_layers n;
  auto const bytes = named_format("BYTES", per_axis(8, 0)), e4m3 = named_format("E4M3", per_axis({4, 3}, 0));
  auto const groups = named_format("GROUPS", blocks(4, {{-1, 32}}));
  CHECK(n.said({bytes, e4m3, preset("FP8_DEFAULT_CFG"), preset("NVFP4_DEFAULT_CFG")}) == "(no error)");
  CHECK(says(n.said({bytes, groups}), "GROUPS: mlp.down_proj: rows of 48 elements are no whole groups of 32"));
  CHECK(n.said({bytes, groups}, {"*down_proj"}) == "(no error)");
  CHECK(says(n.said({named_format("SIX", per_axis(6, 0)), bytes}), "SIX: mlp.up_proj: compressed-tensors has no form"));
  for (auto const& module : n.m.modules()) CHECK(module.slots->shared_site()->recipes.empty());
}

TEST_CASE("ct forms: of configs and plans what layers are given") {
  ct_two_layers n;
  auto const groups = named_format("GROUPS", blocks(4, {{-1, 32}}));
  auto const of_config = [&] { require_ct_forms(n.m, groups); };
  CHECK(says(error_text(error_id::format_value, of_config), "GROUPS: mlp.down_proj: rows of 48"));
  quantization_plan plan;
  plan.formats = {{"groups", groups, 4}, {"bytes", named_format("BYTES", per_axis(8, 0)), 8}};
  plan.modules = {{"mlp.up_proj", "groups", {}}, {"mlp.down_proj", "bytes", {}}};
  auto const of_plan = [&] { return error_text(error_id::format_value, [&] { require_ct_forms(n.m, plan); }); };
  CHECK(of_plan() == "(no error)");
  plan.modules[1].recipe = "groups";
  CHECK(says(of_plan(), "groups: mlp.down_proj: rows of 48"));
}
