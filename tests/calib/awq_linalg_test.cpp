// The searches of awq_lite and awq_clip with a linalg (calib/output_error.hpp) against those by the layer's op.
#include <doctest/doctest.h>

#include "mixbit/calib/awq_clip.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// Two layers, batches of several lengths, and a model with or without a linalg.
struct bench {
  small_network net;
  std::vector<matrix> data;
  model<cpu_backend> m;
  int forwards = 0;

  bench(bool products, std::vector<Eigen::Index> const& rows, unsigned seed = 1)
      : net{seed}, m{net, model_options<cpu_backend>{.linalg = products ? any_linalg{plain_linalg{}} : any_linalg{}}} {
    for (auto const n : rows) data.push_back(outliers(n, 32, static_cast<unsigned>(data.size() + 5)));
  }
  std::vector<std::string> run(quantize_config const& config) {
    forwards = 0;
    return quantize(m, config, [&] {
             for (auto const& x : data) net.forward(x), ++forwards;
           }).notes;
  }
  std::vector<float> of(linear_layer& l) { return amax_of(l, quantizer_role::weight); }
};

quantize_config with(char const* preset_name, algorithm_step const& step) {
  auto config = preset(preset_name);
  config.algorithm = step;
  return config;
}

/// The notes that name alphas.
std::vector<std::string> alphas(std::vector<std::string> notes) {
  std::erase_if(notes, [](auto const& n) { return n.find(" alpha ") == std::string::npos; });
  return notes;
}

}  // namespace

TEST_CASE("awq_lite: with a linalg the alphas that the op finds, in one run of the loop") {
  algorithm_step const step{"awq_lite", {{"debug", true}, {"alpha_step", 0.05}}};
  for (std::vector<Eigen::Index> const& rows : {std::vector<Eigen::Index>{3, 5}, {40, 7}, {64}, {1, 90, 2}})
    for (char const* name : {"INT4_AWQ_CFG", "W4A8_AWQ_BETA_CFG", "NVFP4_AWQ_LITE_CFG"}) {
      bench by_op{false, rows}, by_products{true, rows};
      auto const expected = alphas(by_op.run(with(name, step)));
      REQUIRE(expected.size() == 2);
      CHECK(alphas(by_products.run(with(name, step))) == expected);
      CHECK(by_op.forwards == 2 * by_products.forwards);
      CHECK(by_op.of(by_op.net.first) == by_products.of(by_products.net.first));
      matrix const x = outliers(9, 32, 77);
      CHECK(same_bits(by_op.net.forward(x), by_products.net.forward(x)));
    }
}

TEST_CASE("awq: NVFP4's amax is clipped with a linalg as by the op, also on scaled inputs") {
  for (char const* method : {"awq_clip", "awq_full"})
    for (unsigned const seed : {1, 11, 21, 31, 41, 51})
      for (std::vector<Eigen::Index> const& rows : {std::vector<Eigen::Index>{3, 5}, {40, 7}}) {
        bench by_op{false, rows, seed}, by_products{true, rows, seed};
        by_op.run(with("NVFP4_AWQ_CLIP_CFG", {method}));
        by_products.run(with("NVFP4_AWQ_CLIP_CFG", {method}));
        CHECK(by_op.of(by_op.net.first) == by_products.of(by_products.net.first));
        CHECK(by_op.of(by_op.net.second) == by_products.of(by_products.net.second));
      }
}

TEST_CASE("awq: with a linalg too, what cannot be searched stays at max, and layer after layer one is kept at a time") {
  bench b{true, {40}};
  CHECK(mentions(quantize(b.m, with("INT4_AWQ_CFG", {"awq_lite"}), [&] { b.net.first.forward(b.data[0]); }).notes,
                 "second", "saw no data"));
  b.data[0](1, 1) = NAN;
  CHECK(mentions(b.run(with("INT4_AWQ_CFG", {"awq_lite"})), "first", "NaN"));
  CHECK(mentions(b.run(with("NVFP4_AWQ_CLIP_CFG", {"awq_clip"})), "first", "stays at max"));
  b.data[0](1, 1) = 0;
  auto const notes = b.run(with("INT4_AWQ_CFG", {"awq_lite", {{"layerwise", true}, {"debug", true}}}));
  CHECK(alphas(notes).size() == 2);
}
