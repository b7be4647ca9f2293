// The algorithms lsq and dual_lsq: the scales that a training starts from.
#include "mixbit/calib/lsq_algorithm.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "mixbit/model/quantize.hpp"
#include "support/chain.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("lsq algorithm: weights start from the scales of mse, and a note says who learns them") {
  auto config = nothing_on();
  turn_on(config, "*weight_quantizer", {.num_bits = 3, .axis = 0});
  turn_on(config, "*input_quantizer", {.num_bits = 8});
  auto const run = [&](chain& net, char const* method) {
    config.algorithm = method;
    model<cpu_backend> m{net};
    return quantize(m, config, [&] { net.forward(batch); }).notes;
  };
  chain max, mse;
  run(max, "max");
  run(mse, "mse");
  for (char const* method : {"lsq", "dual_lsq"}) {
    chain net;
    auto const notes = run(net, method);
    CHECK(amax(net.s1, quantizer_role::weight) == amax(mse.s1, quantizer_role::weight));
    CHECK(amax(net.s1, quantizer_role::weight) != amax(max.s1, quantizer_role::weight));
    CHECK(amax(net.s2, quantizer_role::input) == amax(mse.s2, quantizer_role::input));
    CHECK(std::ranges::any_of(notes, [&](std::string const& n) {
      return n.starts_with(std::string{method} + ": ") && n.find("scale_training") != std::string::npos;
    }));
  }
}
