#include "mixbit/calib/weight_columns.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using test::matrix;
using cpu = test::cpu_backend;

namespace {

/// A weight quantizer with these attributes, calibrated on w.
sequential_quantizer<cpu> calibrated(std::vector<std::string> const& attributes, matrix const& w,
                                     policy rules = policy::stored) {
  std::vector<quantizer_attribute_config> all;
  for (auto const& text : attributes) all.push_back(attributes_from_json(config_json::parse(text), "test"));
  sequential_quantizer<cpu> q{"weight_quantizer", "layer.weight_quantizer", quantizer_role::weight, true, all, rules};
  cpu device;
  arena scratch;
  for (auto& member : q.members()) {
    member.observe(device, scratch, read_view(w));
    member.finish(device);
  }
  return q;
}

matrix by_columns(sequential_quantizer<cpu>& q, matrix const& w) {
  cpu device;
  weight_columns<cpu> columns{device, q, read_view(w)};
  matrix result(w.rows(), w.cols());
  for (Eigen::Index k = 0; k < w.cols(); ++k) {
    Eigen::VectorXf const x = w.col(k);
    Eigen::VectorXf y(w.rows());
    Eigen::Index const first = w.rows() / 3;  // in two pieces
    columns(k, 0, first, x.data(), y.data());
    columns(k, first, w.rows() - first, x.data() + first, y.data() + first);
    result.col(k) = y;
  }
  return result;
}

std::string const blocks = R"({"num_bits": 4, "block_sizes": {"-1": 16, "type": "static"}})",
                  nvfp4 = R"({"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "static", "scale_bits": [4, 3]}})",
                  nf4 = R"({"num_bits": 4, "block_sizes": {"-1": 16, "scale_bits": 8,
                            "scale_block_sizes": {"-1": 8}}})";

}  // namespace

TEST_CASE("weight_columns: a column at a time gives what the whole weight gives") {
  matrix w = test::random_matrix(400, 40, 3);  // more rows than one call of the kernel takes
  w.row(7) *= 20;
  std::vector<std::vector<std::string>> const all{
      {R"({"num_bits": 8, "axis": 0})"}, {R"({"num_bits": 8})"}, {R"({"num_bits": [4, 3]})"}, {blocks}, {nvfp4}, {nf4},
      {R"({"num_bits": 4, "block_sizes": {"-1": 8, "-2": 16, "type": "static"}})"},
      {R"({"num_bits": 8, "constant_amax": 3.0})"}, {blocks, R"({"num_bits": [4, 3]})"}};
  for (auto const& attributes : all) {
    CAPTURE(attributes.front());
    auto q = calibrated(attributes, w);
    CHECK(test::same_bits(by_columns(q, w), test::by_hand(q, w)));
  }
}

TEST_CASE("weight_columns: what a single column cannot be quantized under is refused by name") {
  matrix const w = test::random_matrix(16, 32, 4);
  cpu device;
  auto const refused = [&](std::string const& attributes) {
    auto q = calibrated({attributes}, w);
    return test::error_text(error_id::format_value, [&] { weight_columns<cpu>{device, q, read_view(w)}; });
  };
  CHECK(test::says(refused(R"({"num_bits": 8, "type": "dynamic"})"), "layer.weight_quantizer", "of each call's data"));
  std::string const mx = R"({"num_bits": [2, 1], "block_sizes": {"-1": 32, "type": "dynamic", "scale_bits": [8, 0]}})";
  CHECK(test::says(refused(mx), "layer.weight_quantizer", "of each call's data"));
  CHECK(test::says(refused(R"({"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "static", "scale_bits": [4, 3],
                               "four_over_six": true}})"), "four_over_six"));
  CHECK(test::says(refused(R"({"num_bits": 8, "bias": {"-1": null, "type": "static"}})"), "a bias"));
  CHECK(test::says(refused(R"({"num_bits": 8, "rotate": true})"), "a rotation"));
}
