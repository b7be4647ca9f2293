// Training hosts: saved in the middle, restored into a fresh host, and on to the same bits.
#include "mixbit/io/state.hpp"

#include <doctest/doctest.h>

#include <memory>

#include "mixbit/model/scale_training.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

quantize_config few_bits(char const* algorithm) {
  auto config = preset("INT8_DEFAULT_CFG");
  quantizer_attribute_config narrow{.num_bits = 3, .axis = 0};
  narrow.pass_through_bwd = false;
  config.entries.push_back({.quantizer_name = "*weight_quantizer", .cfg = std::vector{narrow}});
  config.algorithm = algorithm;
  return config;
}

/// Steps of gradient descent towards an output of zeros, on a batch each.
void train(small_network& net, int first, int last, scale_training<cpu_backend>* scales = nullptr) {
  for (int i = first; i < last; ++i) {
    matrix const y = net.forward(random_matrix(6, 32, 20 + static_cast<unsigned>(i)));
    matrix grad_first, grad_second;
    matrix const grad = net.second.backward(y, &grad_second);
    net.first.backward(grad, &grad_first);
    net.first.weight -= 1e-4f * grad_first;
    net.second.weight -= 1e-4f * grad_second;
    if (scales) scales->step(1e-4);
  }
}

}  // namespace

TEST_CASE("state: training under fake quantization goes on from it to the same bits") {
  temporary_folder const folder;
  matrix const x = random_matrix(6, 32, 3);
  small_network whole, fresh{77};  // of other weights
  model<cpu_backend> m{whole}, other{fresh};
  quantize(m, few_bits("max"), [&] { whole.forward(x); });
  train(whole, 0, 3);
  save_state(folder.path(), m, {.weights = true});
  train(whole, 3, 6);
  restore_state(folder.path(), other);
  matrix const at_break = fresh.first.weight;
  train(fresh, 3, 6);
  CHECK_FALSE(same_bits(fresh.first.weight, at_break));
  CHECK(same_bits(fresh.first.weight, whole.first.weight));
  CHECK(same_bits(fresh.forward(x), whole.forward(x)));
}

TEST_CASE("state: learned scales go on from it too, one of a group or two") {
  for (auto const what : {learned_scales::one, learned_scales::both, learned_scales::after_only}) {
    CAPTURE(static_cast<int>(what));
    temporary_folder const folder;
    matrix const x = random_matrix(6, 32, 3);
    small_network whole, fresh{77};
    model<cpu_backend> m{whole}, other{fresh};
    quantize(m, few_bits("lsq"), [&] { whole.forward(x); });
    scale_training<cpu_backend> scales{m, what};
    train(whole, 0, 3, &scales);
    CHECK(says(error_text(error_id::state_nested, [&] { save_state(folder.path(), m); }), "first.weight_quantizer",
               "training"));
    CHECK(listing(folder.path()).empty());
    save_state(folder.path(), m, {.weights = true, .training = scales.state()});
    train(whole, 3, 6, &scales);
    auto const was = restore_state(folder.path(), other);
    REQUIRE(was.training);
    {
      scale_training<cpu_backend> again{other, *was.training};
      train(fresh, 3, 6, &again);
      CHECK(same_bits(fresh.forward(x), whole.forward(x)));
      CHECK(same_bits(fresh.first.weight, whole.first.weight));
      auto const mine = scales.state(), its = again.state();
      for (std::size_t i = 0; i < mine.scales.size(); ++i) {
        CHECK(its.scales[i].parameter.after == mine.scales[i].parameter.after);
        CHECK(its.scales[i].parameter.before == mine.scales[i].parameter.before);
        CHECK(its.scales[i].amax == mine.scales[i].amax);
        CHECK(its.scales[i].parameter.after != its.scales[i].amax);
      }
      scales.finish();
      again.finish();
    }
    CHECK(same_bits(fresh.forward(x), whole.forward(x)));
  }
}

TEST_CASE("state: a saved training of other quantizers is refused, and the scales are then as they were") {
  matrix const x = random_matrix(6, 32, 3);
  small_network net;
  model<cpu_backend> m{net};
  quantize(m, few_bits("lsq"), [&] { net.forward(x); });
  matrix const before = net.forward(x);
  scale_training_state saved;
  {
    scale_training<cpu_backend> scales{m};
    train(net, 0, 1, &scales);
    saved = scales.state();
  }
  auto one = saved, unknown = saved, shorter = saved;
  one.scales.pop_back();
  unknown.scales[1].parameter.name = "third.weight_quantizer";
  shorter.scales[1].parameter.after.pop_back();
  auto const try_it = [&](scale_training_state const& s) { return [&m, &s] { scale_training<cpu_backend>{m, s}; }; };
  std::vector<float> const amax = amax_of(net.first, quantizer_role::weight);
  CHECK(says(error_text(error_id::config_no_match, try_it(unknown)), "2 scale(s)", "has 1"));
  CHECK(says(error_text(error_id::tensor_shape, try_it(shorter)), "second.weight_quantizer", "7 scales", "has 8"));
  CHECK(amax_of(net.first, quantizer_role::weight) == amax);
  CHECK(error_text(error_id::config_no_match, try_it(one)) == "(no error)");
}
