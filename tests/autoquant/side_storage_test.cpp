// What the exact cost model plans for a recipe is what is there once it has been calibrated, applied and compressed: by
// the tensors that a state writes of it, counted one by one.
#include "mixbit/autoquant/side_storage.hpp"

#include <doctest/doctest.h>

#include <set>

#include "mixbit/io/quantizer_tensors.hpp"
#include "mixbit/model/compress.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Layers side by side, of odd sizes; the last two may have one weight.
struct side_by_side {
  std::vector<linear_layer> layers;
  bool tied;
  std::size_t used = 99;  ///< layers before it see data

  explicit side_by_side(std::vector<std::pair<int, int>> const& shapes, bool tie = false) : tied{tie} {
    for (unsigned i = 0; i < shapes.size(); ++i)
      layers.push_back({random_matrix(shapes[i].first, shapes[i].second, 10 + i), {}, {}});
  }
  matrix& weight(std::size_t i) { return tied && i + 1 == layers.size() ? layers[i - 1].weight : layers[i].weight; }
  /// Every layer sees inputs of its own.
  void forward(int batch) {
    for (std::size_t i = 0; i < std::min(used, layers.size()); ++i) {
      auto& w = weight(i);
      matrix const x = outliers(12, w.cols(), static_cast<unsigned>(50 * batch) + static_cast<unsigned>(i));
      apply(layers[i].slots, x, w, linear_layer::product());
    }
  }
  template <class Visit>
  void walk(Visit&& visit) {
    for (std::size_t i = 0; i < layers.size(); ++i)
      visit(linear("layer" + std::to_string(i), layers[i].slots, weight(i)));
  }
};

quantize_config format_of(char const* name, algorithm_config algorithm) {
  auto config = preset(name);
  config.algorithm = std::move(algorithm);
  config.name = "format";
  return config;
}
algorithm_config low_rank(std::int64_t rank) {
  algorithm_step step{"svdquant"};
  step.parameters = {{"lowrank", rank}};
  return std::vector{step};
}

search_steps steps_of(side_by_side& net) {
  return {.calibration = 2,
          .scoring = 1,
          .calibrate = [&net](int i) { net.forward(i); },
          .metric = [](int) { return 0.0; }};
}
model_options<cpu_backend> with_linalg() {
  model_options<cpu_backend> o;
  o.linalg = plain_linalg{};
  return o;
}

/// Bytes of the tensors that a runtime needs of a compressed layer: all that a state has of it but what simulates the
/// branch through the host's op, the scale that the codes were made under, and amaxes of inputs.
std::int64_t stored_bytes(recipe_quantizers<cpu_backend> const& recipe) {
  cpu_backend device;
  detail::file_tensors tensors;
  detail::add_recipe(tensors, "", recipe, device);
  std::int64_t bytes = 0;
  for (auto const& t : tensors.all()) {
    bool const needed = t.name.starts_with("packed.") || t.name == "branch.down" || t.name == "branch.up" ||
                        t.name == "input_quantizer.pre_quant_scale" || t.name == "weight_quantizer.1.amax";
    if (needed) bytes += t.tensor.bytes();
  }
  return bytes;
}

/// Planned and stored bits of a network whose layers all have the format.
std::pair<std::int64_t, std::int64_t> planned_and_stored(side_by_side& net, quantize_config const& format) {
  model<cpu_backend> m{net, with_linalg()};
  search<cpu_backend> s{m, {.formats = {format}, .target = 16.0, .method = score_method::degradation}};
  std::int64_t planned = 0;
  for (auto const& g : s.stats()) planned += g.candidates.front().bits;
  s.run(steps_of(net));
  s.apply({std::vector<int>(s.stats().size(), 0)});
  compress(m);
  std::int64_t stored = 0;
  std::set<void const*> counted;
  for (auto& layer : net.layers) {
    auto const& recipe = site_of(layer).quantizers();
    REQUIRE(recipe.packed != nullptr);
    stored += 8 * stored_bytes(recipe);
    if (!counted.insert(recipe.packed.get()).second) stored -= recipe.packed->size().bits();
  }
  return {planned, stored};
}

}  // namespace

TEST_CASE("side storage: exact bits are those of what is stored, of every algorithm and of odd shapes") {
  struct {
    char const* preset_name;
    algorithm_config algorithm;
  } const formats[] = {{"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "max"},
                       {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "mse"},
                       {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite"},
                       {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_clip"},
                       {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_full"},
                       {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "gptq"},
                       {"INT8_DEFAULT_CFG", "smoothquant"},
                       {"INT8_DEFAULT_CFG", std::vector{algorithm_step{"smoothquant"}, algorithm_step{"max"}}},
                       {"NVFP4_DEFAULT_CFG", "awq_lite"},
                       {"W4A8_AWQ_BETA_CFG", "awq_lite"},
                       {"FP8_DEFAULT_CFG", "max"},
                       {"NVFP4_DEFAULT_CFG", low_rank(1)},
                       {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", low_rank(5)},
                       {"INT8_DEFAULT_CFG", low_rank(1000)}};
  for (auto const& f : formats)
    for (bool const tied : {false, true}) {
      CAPTURE(f.preset_name);
      CAPTURE(f.algorithm.steps().front().method);
      CAPTURE(tied);
      side_by_side net{{{7, 37}, {24, 16}, {12, 64}, {12, 64}}, tied};
      auto const [planned, stored] = planned_and_stored(net, format_of(f.preset_name, f.algorithm));
      CHECK(planned == stored);
    }
}

TEST_CASE("side storage: a layer that its algorithm leaves at max for want of data stores less than was planned") {
  auto const format = format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite");
  side_by_side net{{{8, 32}, {8, 40}}};
  net.used = 1;
  auto const [planned, stored] = planned_and_stored(net, format);
  CHECK(planned - stored == 32 * 40);
}

TEST_CASE("side storage: a factor an input channel, and matrices of the weight's type and of its rank at most") {
  side_by_side net{{{6, 10}}};
  model<cpu_backend> m{net, with_linalg()};
  auto const module = m.modules().front();
  const_tensor_ref weight = canonical_weight(module);
  auto const of = [&](char const* name, algorithm_config const& how, site_kind kind = site_kind::linear) {
    auto recipe = search_recipe(m, preset(name), module);
    return side_storage_of(how, recipe, kind, weight);
  };
  CHECK(of("INT8_DEFAULT_CFG", "smoothquant").bits() == 32 * 10);
  CHECK(of("FP8_DEFAULT_CFG", "smoothquant").bits() == 0);  // it smooths INT8 alone
  CHECK(of("INT8_WEIGHT_ONLY_CFG", "smoothquant").bits() == 0);
  CHECK(of("FP8_DEFAULT_CFG", "awq_lite").bits() == 32 * 10);
  CHECK(of("FP8_DEFAULT_CFG", "awq_clip").bits() == 0);
  CHECK(of("FP8_DEFAULT_CFG", "gptq").bits() == 0);
  CHECK(of("INT8_DEFAULT_CFG", std::vector{algorithm_step{"smoothquant"}, algorithm_step{"awq_full"}}).bits() == 320);
  CHECK(of("FP8_DEFAULT_CFG", low_rank(2)).pre_quant_scale == 4 * 10);
  CHECK(of("FP8_DEFAULT_CFG", low_rank(2)).branch == 4 * 2 * (6 + 10));
  CHECK(of("FP8_DEFAULT_CFG", low_rank(7)).branch == 4 * 6 * (6 + 10));
  weight.type = dtype::bf16;
  CHECK(of("FP8_DEFAULT_CFG", low_rank(2)).branch == 2 * 2 * (6 + 10));
  CHECK(of("FP8_DEFAULT_CFG", low_rank(2), site_kind::conv).bits() == 0);
  for (char const* shared : {"max", "mse", "nvfp4_act_headroom"}) CHECK_FALSE(of("FP8_DEFAULT_CFG", shared).own_codes);
  for (char const* own : {"awq_lite", "awq_clip", "awq_full", "gptq", "local_hessian", "svdquant", "my.own"})
    CHECK(of("FP8_DEFAULT_CFG", own).own_codes);
  CHECK_FALSE(of("FP8_DEFAULT_CFG", "smoothquant").own_codes);
}

TEST_CASE("side storage: ModelOpt's cost leaves it out, and counts a tied weight once") {
  side_by_side net{{{12, 64}, {12, 64}}, true};
  model<cpu_backend> m{net, with_linalg()};
  search_options o{.formats = {format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", low_rank(3))}, .target = 16.0};
  o.cost = cost_model::modelopt;
  search<cpu_backend> s{m, o};
  REQUIRE(s.stats().size() == 1);
  CHECK(s.stats().front().candidates.front().bits == 4 * 12 * 64);
}

TEST_CASE("side storage: a target that codes alone would meet is refused where the branch does not fit") {
  side_by_side net{{{16, 128}}};
  model<cpu_backend> m{net, with_linalg()};
  search_options o{.formats = {format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", low_rank(1))}, .target = 4.5};
  o.allow_no_quant = false;
  // 4.25 bits for codes and scales, 2 for 128 float32 factors, 2.25 for 16 + 128 float32
  CHECK(says(error_text(error_id::search_infeasible, [&] { search<cpu_backend>{m, o}; }), "8.5 to 8.5"));
  o.target = 8.5;
  CHECK(search<cpu_backend>{m, o}.stats().front().candidates.front().bits == 17 * 1024);
}
