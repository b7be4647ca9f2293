#include "mixbit/config/module_classes.hpp"

#include <doctest/doctest.h>

#include <string>

#include "mixbit/config/resolve.hpp"
#include "support/error_text.hpp"

using namespace mixbit;

TEST_CASE("PyTorch's classes go by their short and long names") {
  module_class_registry const classes = default_module_classes();
  REQUIRE(classes.find("nn.Linear"));
  CHECK(classes.find("Linear") == classes.find("nn.Linear"));
  CHECK(classes.find("torch.nn.Linear") == classes.find("nn.Linear"));
  CHECK(classes.canonical("Linear") == "nn.Linear");
  CHECK(classes.canonical("my.Thing") == "my.Thing");
  CHECK(classes.find("Dropout") == nullptr);
  CHECK(classes.at("ConvTranspose3d").size() == 3);
  CHECK(classes.at("nn.LeakyReLU").size() == 2);
  std::string const text = test::error_text(error_id::config_unknown_field, [&] { classes.at("nn.Liner"); });
  CHECK_MESSAGE(test::says(text, "nn.Liner", "close: nn.Linear"), text);
}

TEST_CASE("a user declares a class and an alias, and configs reach both") {
  module_class_registry classes = default_module_classes();
  quantizer_attribute_config off;
  off.enable = false;
  classes.declare("latent_attention", {{"kv_bmm_quantizer", {off}}, {"q_bmm_quantizer"}});
  classes.alias("my_linear", "nn.Linear");
  CHECK(classes.at("my_linear") == classes.at("nn.Linear"));
  std::vector<module_quantizers> const model{classes.module("a", "latent_attention"), classes.module("b", "my_linear")};
  CHECK(model[1].class_name == "nn.Linear");
  quantizer_entry entry{.quantizer_name = "*", .cfg = {{{.num_bits = 4}}}};
  entry.parent_class = "my_linear";
  quantizer_entry const keys{.quantizer_name = "*kv_bmm*", .cfg = {{{.num_bits = 8}}}};
  resolution const result = resolve(model, {.entries = {entry, keys}}, true, classes);
  CHECK(result.matches == std::vector<std::size_t>{3, 1});
  CHECK(result.find("a.kv_bmm_quantizer")->enabled());
  CHECK(result.find("b.weight_quantizer")->attributes.at(0).num_bits == 4);
}

TEST_CASE("declarations are checked") {
  module_class_registry classes = default_module_classes();
  auto const refuses = [&](error_id id, std::string const& name, std::vector<quantizer_placement> placements) {
    return test::error_text(id, [&] { classes.declare(name, placements); });
  };
  CHECK(test::says(refuses(error_id::state_duplicate, "Linear", {}), "Linear"));
  CHECK(test::says(refuses(error_id::config_value, "", {}), "name"));
  CHECK(test::says(refuses(error_id::config_value, "x", {{""}}), "quantizer 0 has no name"));
  CHECK(test::says(refuses(error_id::config_value, "x", {{"a", {}}}), "x.a"));
  CHECK(test::says(refuses(error_id::config_conflict, "x", {{"a"}, {"a"}}), "x.a: is placed twice"));
  CHECK(test::says(refuses(error_id::config_value, "x", {{"a", {{.num_bits = -1}}}}), "x.a.num_bits"));
  CHECK(test::says(test::error_text(error_id::config_unknown_field, [&] { classes.alias("y", "x"); }), "\"x\""));
  CHECK_THROWS_AS(classes.alias("Linear", "nn.Conv2d"), error);
  classes.replace("Linear", {{"only_quantizer"}});
  CHECK(classes.at("nn.Linear").size() == 1);
}
