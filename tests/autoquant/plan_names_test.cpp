#include <doctest/doctest.h>

#include "mixbit/autoquant/json.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A plan with one format, whose config has this member before its rules.
nlohmann::ordered_json plan_with(std::string const& member) {
  return nlohmann::ordered_json::parse(R"({"version": 1, "recipe": {}, "modules": {}, "formats": {"eight":
    {"nominal_bits": 8, "config": {)" + member + R"("quant_cfg": [{"quantizer_name": "*", "enable": false}]}}}})");
}

std::string refusal(std::string const& member) {
  return error_text(error_id::search_plan, [&] { plan_from_json(plan_with(member), "plan.json"); });
}

}  // namespace

TEST_CASE("plan: a format's config has a name, its label where it says none") {
  CHECK(plan_from_json(plan_with(""), "plan.json").formats.front().config.name == "eight");
  CHECK(plan_from_json(plan_with(R"("name": "mine", )"), "plan.json").formats.front().config.name == "mine");
  CHECK(says(refusal(R"("name": "", )"), "plan.json: formats.eight.config.name must be a name, got \"\""));
  CHECK(says(refusal(R"("name": 5, )"), "plan.json: formats.eight.config.name must be a text, got 5"));
}
