#include "mixbit/io/hf_config.hpp"

#include <doctest/doctest.h>

#include <ctime>
#include <string>
#include <vector>

using namespace mixbit;

TEST_CASE("hf config: patterns of modules that stay, where names begin alike") {
  std::vector<std::string> const quantized{"model.layers.10.up", "a.b-c.d", "model.layers.1.up", "a.b"};
  CHECK(exclude_patterns({"model.layers.2.up", "model.layers.1.down", "lm_head", "a.b-c.e", "model.layers.100.up"},
                         quantized) ==
        std::vector<std::string>{"a.b-c.e", "lm_head", "model.layers.1.down", "model.layers.100*", "model.layers.2*"});
  CHECK(exclude_patterns({"model.layers.1.a.b", "vision.x.y", "a.bcd.e"}, {"model.layers.1.ab", "vision2.x"}) ==
        std::vector<std::string>{"a*", "model.layers.1.a.*", "vision.*"});
  CHECK(exclude_patterns({"a.b"}, {}) == std::vector<std::string>{"a*"});
  CHECK(exclude_patterns({"m.fc.a.b"}, {"m.fc"}) == std::vector<std::string>{"m.fc.*"});
  CHECK(exclude_patterns({}, quantized).empty());
}

TEST_CASE("hf config: patterns of tens of thousands of layers are no matter of minutes") {
  std::vector<std::string> quantized, kept;
  for (int i = 0; i < 60000; ++i) {
    std::string const layer = "model.layers." + std::to_string(i);
    quantized.push_back(layer + ".mlp.up_proj");
    kept.push_back(layer + ".mlp.router");
  }
  std::clock_t const start = std::clock();
  CHECK(exclude_patterns(kept, quantized).size() == kept.size());
  CHECK(std::clock() - start < 3 * CLOCKS_PER_SEC);  // 0.1 s; each with each other is some 20 s
}
