#include <doctest/doctest.h>

#include "mixbit/model/json.hpp"
#include "support/checkpoint_host.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

plain_tensor ramp(std::int64_t rows, std::int64_t columns) {
  plain_tensor w{rows, columns};
  for (std::size_t i = 0; i < w.values.size(); ++i) w.values[i] = static_cast<float>(i) - 2.0f;
  return w;
}

}  // namespace

TEST_CASE("quantizers.json: attributes and amax of what is on, by full name") {
  checkpoint_host host;
  host.add("a", ramp(2, 4));
  host.add("b", ramp(2, 4));
  model<cpu_backend> m{host};
  CHECK(quantizers_json(m).empty());
  auto config = nothing_on();
  quantizer_attribute_config channel, blocks, dynamic, constant;
  channel.axis = 0;
  blocks.num_bits = 4;
  blocks.block_sizes = block_config{{{-1, 2}}};
  dynamic.type = quantizer_type::dynamic_type;
  constant.constant_amax = 3.0;
  turn_on(config, "a.weight_quantizer", channel);
  turn_on(config, "a.input_quantizer", quantizer_attribute_config{});
  turn_on(config, "b.weight_quantizer", blocks);
  turn_on(config, "b.input_quantizer", dynamic);
  turn_on(config, "b.output_quantizer", constant);
  quantize(m, config, [&] { host.show("a", 5.5f); });

  auto const j = quantizers_json(m);
  CHECK(j.size() == 5);
  CHECK(j["a.weight_quantizer"]["amax"].dump() == R"({"shape":[2,1],"values":[2.0,5.0]})");
  CHECK(j["a.input_quantizer"]["amax"].dump() == R"({"shape":[],"values":[5.5]})");
  CHECK(j["b.weight_quantizer"]["amax"].dump() == R"({"shape":[4,1],"values":[2.0,1.0,3.0,5.0]})");
  CHECK(j["b.input_quantizer"]["amax"].is_null());
  CHECK(j["b.output_quantizer"]["amax"].dump() == R"({"shape":[],"values":[3.0]})");
  CHECK(attributes_from_json(j["b.weight_quantizer"]["attributes"]) == blocks);
  CHECK(attributes_from_json(j["b.input_quantizer"]["attributes"]) == dynamic);
}

TEST_CASE("quantizers.json: members of a sequence have names of their own") {
  checkpoint_host host;
  host.add("a", ramp(2, 4));
  model<cpu_backend> m{host};
  auto config = nothing_on();
  quantizer_attribute_config first, second;
  first.axis = 0;
  turn_on(config, "a.weight_quantizer", first);
  config.entries.back().cfg->push_back(second);
  quantize(m, config);
  auto const j = quantizers_json(m);
  REQUIRE(j.size() == 2);
  CHECK(j["a.weight_quantizer.0"]["amax"]["values"].size() == 2);
  CHECK(j["a.weight_quantizer.1"]["amax"]["values"].size() == 1);
}
