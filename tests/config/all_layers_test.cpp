#include "mixbit/config/all_layers.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/json.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/config/resolve.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::size_t enabled(quantize_config const& config, std::string const& name) {
  auto const& classes = default_module_classes();
  std::vector<module_quantizers> const modules{classes.module(name, "nn.Linear")};
  return apply_entries(modules, config, classes).enabled_count();
}

}  // namespace

TEST_CASE("all layers: what a preset leaves out by name is quantized, as it quantizes the others") {
  auto const fp8 = preset("FP8_DEFAULT_CFG");
  auto const all = all_layers(fp8);
  CHECK(all.name == "CUSTOM_0");
  CHECK(all.algorithm == fp8.algorithm);
  CHECK(enabled(fp8, "lm_head") == 0);
  CHECK(enabled(all, "lm_head") == 2);
  CHECK(enabled(all, "model.layers.0.mlp.up_proj") == enabled(fp8, "model.layers.0.mlp.up_proj"));
  CHECK(enabled(all_layers(preset("INT8_WEIGHT_ONLY_CFG"), "MINE"), "lm_head") == 1);
  CHECK(all_layers(fp8, "MINE").name == "MINE");
}

TEST_CASE("all layers: a file holds it, and single entries of it may match nothing") {
  auto const all = all_layers(preset("INT4_AWQ_CFG"), "MINE");
  auto const read = config_from_json(config_to_text(all), "");
  CHECK(read.name == "MINE");
  CHECK(same_content(read, all));
  for (auto const& e : all.entries) CHECK(e.origin != entry_origin::user);
}

TEST_CASE("all layers: rules by name or class are left out, and a format without weights is refused") {
  quantize_config config{.name = "mine",
                         .entries = {{.quantizer_name = "*weight_quantizer", .cfg = {{{.num_bits = 8}}}},
                                     {.quantizer_name = "*", .parent_class = "nn.Linear", .enable = false},
                                     {.quantizer_name = "*up_proj*", .enable = false},
                                     {.quantizer_name = "*output_quantizer", .cfg = {{{.num_bits = 8}}}}}};
  auto const all = all_layers(config);
  REQUIRE(all.entries.size() == 2);
  CHECK(all.entries[1].quantizer_name.label() == "*weight_quantizer");
  config.entries.erase(config.entries.begin());
  CHECK(says(error_text(error_id::config_no_match, [&] { all_layers(config); }), "mine", "weights of all layers"));
}
