// byte_lm on the library's whole path: search on any number of threads, and training under fake quantization.
#include <doctest/doctest.h>

#include "byte_lm/search_steps.hpp"
#include "byte_lm/training.hpp"
#include "golden_suites/lm_model.hpp"

namespace {

using golden::windows_of;
using byte_lm::backend;

struct searched {
  mixbit::candidate_stats stats;
  double loss = 0;
};

/// Some steps of calibration and scoring, a choice at 6 bits, and the loss of a few windows under it.
searched search_on(int threads, mixbit::score_method method, int count) {
  mixbit::test::golden_file const file{"lm"};
  mixbit::thread_pool pool{threads};
  auto host = byte_lm::load_model(MIXBIT_DATA_DIR "/byte-lm", pool);
  auto const steps = windows_of(file, "score");
  mixbit::model<backend> model{host, {.device = backend{pool}}};
  mixbit::search_options o;
  o.formats = {mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), mixbit::preset("INT8_DEFAULT_CFG"),
               mixbit::preset("FP8_DEFAULT_CFG")};
  o.target = 6.0;
  o.method = method;
  mixbit::search<backend> s{model, o};
  s.run(byte_lm::search_steps(host, steps, count, steps, count));
  s.apply(s.choose(6.0));
  return {s.stats(), byte_lm::evaluate(host, windows_of(file, "validation").at(0).slice(0, 8))};
}

void check_same_bits(mixbit::score_method method, int count) {
  auto const one = search_on(1, method, count);
  CHECK(one.stats.size() == 17);
  for (int threads : {2, 3}) {
    auto const other = search_on(threads, method, count);
    CHECK(other.loss == one.loss);
    REQUIRE(other.stats.size() == one.stats.size());
    for (std::size_t g = 0; g < one.stats.size(); ++g)
      for (std::size_t c = 0; c < one.stats[g].candidates.size(); ++c)
        CHECK(other.stats[g].candidates[c].by_step == one.stats[g].candidates[c].by_step);
  }
}

}  // namespace

TEST_CASE("byte_lm: scores, choice and loss are the same bits on 1, 2 and 3 threads") {
  check_same_bits(mixbit::score_method::gradient, 2);
}

TEST_CASE("byte_lm: so they are by kl_div") { check_same_bits(mixbit::score_method::kl_div, 1); }

TEST_CASE("byte_lm: a forward from a layer on gives the bits of a whole one") {
  mixbit::test::golden_file const file{"lm"};
  mixbit::thread_pool pool{2};
  auto host = byte_lm::load_model(MIXBIT_DATA_DIR "/byte-lm", pool);
  auto const steps = windows_of(file, "score");
  byte_lm::matrix const whole = host.logits(steps[0].inputs());
  auto const inputs = host.layer_inputs();
  REQUIRE(inputs.size() == 5);
  CHECK(host.layer_of("model.layers.3.mlp.up_proj") == 3);
  CHECK(host.layer_of("lm_head") == 4);
  for (std::size_t layer = 5; layer-- > 0;) CHECK(host.logits_from(layer, inputs[layer]) == whole);
}

TEST_CASE("byte_lm: training under fake quantization lowers the quantized loss, and fold_weight ends it") {
  mixbit::test::golden_file const file{"lm"};
  mixbit::thread_pool pool{2};
  auto host = byte_lm::load_model(MIXBIT_DATA_DIR "/byte-lm", pool);
  auto const steps = windows_of(file, "calibration");
  mixbit::model<backend> model{host, {.device = backend{pool}}};
  mixbit::quantize_config config = mixbit::preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG");
  mixbit::quantize(model, config);
  auto const loss = [&] { return byte_lm::cross_entropy(pool, host.logits(steps[0].inputs()), steps[0].targets()); };
  double const before = loss();
  {
    byte_lm::adam optimizer{host, 2e-4f};
    for (int i = 0; i < 6; ++i) byte_lm::train_step(host, optimizer, steps[0]);
    CHECK(loss() < before - 0.01);
    mixbit::fold_weight(model);
    CHECK_THROWS_AS(byte_lm::train_step(host, optimizer, steps[0]), mixbit::error);
  }
  CHECK(loss() < before - 0.01);
}
