#include "mixbit/model/postprocess.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Weights' amaxes, of what stands in their place.
void calibrate_weight_again(model<cpu_backend>& m) {
  for (auto const& module : m.modules()) {
    workspace_lock<cpu_backend> const held{m.scratch()};
    std::vector<std::string> notes;
    observe_weight(*module.slots->shared_site(), m.scratch(), source_weight(module), false, {}, notes);
  }
}

}  // namespace

TEST_CASE("postprocess_amax: scales, clips and sets by wildcard; the rest is left alone") {
  small_network net;
  matrix const x = random_matrix(8, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  float const input = amax_of(net.first, quantizer_role::input).front();
  auto const weight = amax_of(net.first, quantizer_role::weight);
  float const other = amax_of(net.second, quantizer_role::input).front();
  matrix const before = net.forward(x);
  CHECK(postprocess_amax(m, "first.input_quantizer", scaled_amax(0.5f)) == 1);
  CHECK(amax_of(net.first, quantizer_role::input).front() == 0.5f * input);
  CHECK(amax_of(net.second, quantizer_role::input).front() == other);
  CHECK_FALSE(same_bits(net.forward(x), before));
  CHECK(postprocess_amax(m, "*weight_quantizer", clipped_amax(2.0f, 2.5f)) == 2);
  auto const clipped = amax_of(net.first, quantizer_role::weight);
  REQUIRE(clipped.size() == weight.size());
  for (std::size_t i = 0; i < weight.size(); ++i) CHECK(clipped[i] == std::clamp(weight[i], 2.0f, 2.5f));
  CHECK(postprocess_amax(m, "*input_quantizer", set_amax_to(3)) == 2);
  CHECK(amax_of(net.second, quantizer_role::input).front() == 3);
}

TEST_CASE("postprocess_amax: what it refuses changes nothing") {
  small_network net;
  matrix const x = random_matrix(8, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(x); });
  matrix const before = net.forward(x);
  auto const late = [](float amax) { return amax > 100 ? amax : -1.0f; };
  CHECK(says(error_text(error_id::format_amax, [&] { postprocess_amax(m, "*", late); }), "first", "quantizer"));
  int calls = 0;
  CHECK(says(error_text(error_id::format_amax,  // the second quantizer's: the first one's is not set either
                        [&] { postprocess_amax(m, "*input_quantizer",
                                               [&](float) { return ++calls == 1 ? 1.0f : NAN; }); }),
             "second.input_quantizer"));
  CHECK(says(error_text(error_id::config_no_match, [&] { postprocess_amax(m, "*nowhere*", scaled_amax(2)); }),
             "*nowhere*"));
  CHECK(says(error_text(error_id::state_not_calibrated,
                        [&] { postprocess_amax(m, "*output_quantizer", scaled_amax(2)); }),
             "*output_quantizer", "none of 2"));
  CHECK(says(error_text(error_id::config_value, [&] { clipped_amax(2, 1); }), "2", "1"));
  CHECK(same_bits(net.forward(x), before));
}

TEST_CASE("quantizer_guard: on or off, attributes, amaxes and scales are put back, also by an exception") {
  small_network net;
  matrix const x = random_matrix(8, 32, 7);
  model<cpu_backend> m{net};
  auto config = preset("INT8_SMOOTHQUANT_CFG");
  quantize(m, config, [&] { net.forward(x); });
  matrix const before = net.forward(x);
  try {
    quantizer_guard<cpu_backend> const keep{m, "*"};
    CHECK(same_bits(net.forward(x), before));
    postprocess_amax(m, "*weight_quantizer", scaled_amax(0.5f));
    CHECK_FALSE(same_bits(net.forward(x), before));
    set_quantizer_attributes(m, "first.input_quantizer", {.num_bits = 4, .type = quantizer_type::dynamic_type});
    disable_quantizer(m, "second.*");
    quantizer_of(net.first, quantizer_role::input).set_pre_quant_scale(m.device(), {});
    throw std::runtime_error{"left early"};
  } catch (std::runtime_error const&) {
  }
  CHECK(same_bits(net.forward(x), before));
  {
    quantizer_guard<cpu_backend> const keep{m, "first.*"};
    quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));  // anew: what the guard kept is of no quantizer that is there
  }
  small_network fresh;
  model<cpu_backend> expected{fresh};
  quantize(expected, preset("INT8_WEIGHT_ONLY_CFG"));
  CHECK(same_bits(net.forward(x), fresh.forward(x)));
}

TEST_CASE("postprocess_amax: an amax is checked for the type that its scale is held in, before any is set") {
  small_network net;
  model_options<cpu_backend> options;
  options.numerics = policy::modelopt_pack;
  model<cpu_backend> m{net, options};
  quantize(m, preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"));
  std::vector<half> const halves(8 * 24, half{});
  auto& second = quantizer_of(net.second, quantizer_role::weight).members().front();
  arena scratch;
  second.forget();
  second.observe(m.device(), scratch, dense_view(halves.data(), {8, 24}));
  second.finish(m.device());
  auto const before = amax_of(net.first, quantizer_role::weight);
  CHECK(says(error_text(error_id::format_amax, [&] { postprocess_amax(m, "*weight_quantizer", set_amax_to(1e-6f)); }),
             "second.weight_quantizer", "overflows"));
  CHECK(amax_of(net.first, quantizer_role::weight) == before);
}

TEST_CASE("quantizer_guard: what an algorithm has put in a weight's place is put back; a folded weight stays folded") {
  small_network net;
  matrix const x = random_matrix(8, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_WEIGHT_ONLY_CFG"));
  auto& recipe = site_of(net.first).quantizers();
  matrix twice = 2 * net.first.weight;
  cpu_backend device;
  recipe.weight.emplace(device, read_view(twice));
  std::copy_n(twice.data(), twice.size(), static_cast<float*>(recipe.weight->view().data));
  recipe.absorbed_scale = {1, 2};
  calibrate_weight_again(m);
  matrix const before = net.forward(x);
  {
    quantizer_guard<cpu_backend> const keep{m, "*"};
    CHECK(same_bits(net.forward(x), before));
    static_cast<float*>(recipe.weight->view().data)[3] += 1;
    recipe.absorbed_scale.clear();
    CHECK_FALSE(same_bits(net.forward(x), before));
  }
  CHECK(same_bits(net.forward(x), before));
  CHECK(recipe.absorbed_scale == std::vector<float>{1, 2});
  {
    quantizer_guard<cpu_backend> const keep{m, "*"};
    recipe.weight.reset();
  }
  CHECK(same_bits(net.forward(x), before));
  {
    quantizer_guard<cpu_backend> const keep{m, "*"};
    CHECK(fold_weight(m) == 2);
  }
  CHECK_FALSE(quantizer_of(net.first, quantizer_role::weight).enabled());
  CHECK(same_bits(net.forward(x), before));
}
