// Training at few bits: learned scales end with a lower loss than scales that stay where the largest weight put them.
#include <doctest/doctest.h>

#include <functional>

#include "digits/quantization.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/model/scale_training.hpp"
#include "support/digits_data.hpp"

namespace {

using namespace digits;
using namespace digits_test;
using mixbit::learned_scales;

constexpr int bits = 2;

/// Weights with one scale a layer.
mixbit::quantize_config few_bits(char const* algorithm) {
  mixbit::quantizer_attribute_config a{.num_bits = bits};
  a.narrow_range = true;  // -1, 0, 1
  a.pass_through_bwd = false;  // clipped weights have no gradient, as in LSQ
  mixbit::quantize_config config{.name = "FEW_BITS", .entries = {{.quantizer_name = "*", .enable = false}}};
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = {{a}}});
  config.algorithm = algorithm;
  return config;
}

image_set const& images() {
  static auto const some = batches(data().training, 640, 1).front();
  return some;
}

/// A network that was trained unquantized; the same one each time.
network trained() {
  network net{3};
  trainer t{net, 4};
  for (int epoch = 0; epoch < 12; ++epoch) t.epoch(images());
  return net;
}

struct outcome {
  double training, test;
};

/// Trains under fake quantization; `after` is called behind each of the host's steps.
outcome train(network& net, std::function<void()> const& after_step) {
  trainer t{net, 5, 1e-3f};
  t.after_step = after_step;
  for (int epoch = 0; epoch < 6; ++epoch) t.epoch(images());
  return {evaluate(net, images()).loss, evaluate(net, data().test).loss};
}

outcome with_fixed_scales(char const* algorithm) {
  network net = trained();
  mixbit::model<backend> m{net};
  mixbit::quantize(m, few_bits(algorithm));
  return train(net, {});
}

/// The scales start from those that `algorithm` finds.
outcome with_learned_scales(char const* algorithm, learned_scales what) {
  network net = trained();
  mixbit::model<backend> m{net};
  mixbit::quantize(m, few_bits(algorithm));
  mixbit::scale_training<backend> scales{m, what};
  outcome const end = train(net, [&] { scales.step(1e-2); });
  scales.finish();
  CHECK(evaluate(net, images()).loss == end.training);  // what is kept is what was trained
  return end;
}

}  // namespace

TEST_CASE("digits: learned scales train to a lower loss at 2 bits than fixed ones, from the same start") {
  auto const max = with_fixed_scales("max"), from_max = with_learned_scales("max", learned_scales::one);
  auto const mse = with_fixed_scales("mse"), lsq = with_learned_scales("lsq", learned_scales::one),
             dual = with_learned_scales("dual_lsq", learned_scales::both);
  INFO("loss on training and test images: max ", max.training, " ", max.test, ", learned from it ",
          from_max.training, " ", from_max.test, "; mse ", mse.training, " ", mse.test, ", lsq ", lsq.training, " ",
          lsq.test, ", dual_lsq ", dual.training, " ", dual.test);
  CHECK(from_max.training < max.training);
  CHECK(from_max.test < max.test);
  CHECK(mse.training < max.training);
  CHECK(lsq.training < mse.training);
  CHECK(dual.training < mse.training);
  CHECK(lsq.test < max.test);
  CHECK(dual.test < max.test);
}
