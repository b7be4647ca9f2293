#include "mixbit/calib/act_headroom_algorithm.hpp"

#include <doctest/doctest.h>

#include "mixbit/calib/act_headroom.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

float input_amax(model<cpu_backend>& m, linear_layer& layer) {
  auto& q = *layer.slots.shared_site()->quantizers().find(quantizer_role::input);
  return q.members().front().amax(m.device()).at(0);
}

}  // namespace

TEST_CASE("act_headroom: the algorithm takes NVFP4 activations by their blocks, weights by max") {
  small_network net;
  matrix x = random_matrix(16, 32, 7);
  model<cpu_backend> m{net};
  auto const loop = [&] { net.forward(x); };
  auto config = preset("NVFP4_DEFAULT_CFG");
  quantize(m, config, loop);
  float const largest = input_amax(m, net.first);
  CHECK(largest == x.cwiseAbs().maxCoeff());
  auto const weight = [&] {
    return net.first.slots.shared_site()->quantizers().find(quantizer_role::weight)->members()[0].amax(m.device());
  };
  auto const by_max = weight();

  config.algorithm = algorithm_step{"nvfp4_act_headroom", {{"rho", 4.0}, {"anchor", 1.0}, {"upper", 100.0}}};
  quantize(m, config, loop);
  block_amax_histogram blocks;
  for (Eigen::Index i = 0; i < x.rows(); ++i)
    for (Eigen::Index b = 0; b < x.cols(); b += 16) blocks.add(x.row(i).segment(b, 16).cwiseAbs().maxCoeff());
  CHECK(input_amax(m, net.first) == headroom_of(blocks, 4, 1, 100).amax);
  CHECK(input_amax(m, net.first) > largest);  // four times the smallest block's
  CHECK(weight() == by_max);
  calibrate(m, "max", loop);  // what the config said: max
  CHECK(input_amax(m, net.first) == largest);
}

TEST_CASE("act_headroom: where no activation is in NVFP4 it says so, and the model is as before") {
  small_network net;
  model<cpu_backend> m{net};
  auto config = preset("INT8_DEFAULT_CFG");
  config.algorithm = "nvfp4_act_headroom";
  auto const loop = [&] { net.forward(random_matrix(4, 32, 7)); };
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, config, loop); }),
             "nvfp4_act_headroom", "NVFP4"));
  CHECK(net.first.slots.shared_site()->recipes.empty());
}
