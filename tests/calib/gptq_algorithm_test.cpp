#include "mixbit/calib/gptq_algorithm.hpp"

#include <doctest/doctest.h>

#include <exception>
#include <thread>

#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

model_options<cpu_backend> with_linalg() {
  model_options<cpu_backend> options;
  options.linalg = plain_linalg{};
  return options;
}

quantize_config int4_gptq(std::string const& algorithm = R"("gptq")") {
  return config_from_json(R"({"quant_cfg": [{"quantizer_name": "*", "enable": false},
    {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4, "block_sizes": {"-1": 8, "type": "static"}}}],
    "algorithm": )" + algorithm + "}", "test");
}

matrix rewritten(linear_layer& layer) {
  auto& s = site_of(layer);
  auto const* const held = s.rewritten(s.active);
  REQUIRE(held != nullptr);
  return Eigen::Map<matrix const>(held->view().as<float>(), layer.weight.rows(), layer.weight.cols());
}

/// Inputs whose channels share much.
matrix correlated(Eigen::Index tokens, Eigen::Index channels, unsigned seed) {
  return random_matrix(tokens, 4, seed) * random_matrix(4, channels, seed + 1) +
         0.2f * random_matrix(tokens, channels, seed + 2);
}

}  // namespace

TEST_CASE("gptq algorithm: a recipe's weight lies on its own grid, errs less than max, and the host's stays") {
  small_network net;
  matrix const weight = net.first.weight, x = correlated(200, 32, 5), plain = net.forward(x);
  model<cpu_backend> m{net, with_linalg()};
  quantize(m, int4_gptq(R"("max")"));
  double const by_max = (net.forward(x) - plain).squaredNorm();
  auto const resolved = quantize(m, int4_gptq(), [&] { (void)net.forward(x); });
  CHECK(resolved.notes.empty());
  CHECK((net.forward(x) - plain).squaredNorm() < 0.6 * by_max);
  CHECK(same_bits(net.first.weight, weight));
  matrix const kept = rewritten(net.first);
  CHECK(same_bits(kept, by_hand(*site_of(net.first).quantizers().find(quantizer_role::weight), kept)));
  CHECK(!same_bits(kept, by_hand(*site_of(net.first).quantizers().find(quantizer_role::weight), weight)));
}

TEST_CASE("gptq algorithm: the Hessian is of quantized inputs behind weights that are not") {
  small_network net;
  matrix const x = correlated(60, 32, 6), y = correlated(70, 32, 7);
  auto config = int4_gptq();
  config.entries.push_back(quant_cfg_from_json(config_json::parse(
      R"([{"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 3}}])")).front());
  model<cpu_backend> m{net, with_linalg()};
  quantize(m, config, [&] {
    (void)net.forward(x);
    (void)net.forward(y);
  });
  auto& s = site_of(net.second);
  auto& input = *s.quantizers().find(quantizer_role::input);
  auto& first_input = *site_of(net.first).quantizers().find(quantizer_role::input);
  input_gram gram{24};
  for (matrix const& batch : {x, y}) {
    matrix const hidden = by_hand(first_input, batch) * net.first.weight.transpose(), seen = by_hand(input, hidden);
    gram.add(plain_linalg{}, dense_matrix<float const>(seen.data(), seen.rows(), 24));
  }
  cpu_backend device;
  matrix expected = net.second.weight;
  weight_columns<cpu_backend> columns{device, *s.quantizers().find(quantizer_role::weight), read_view(expected)};
  gptq(plain_linalg{}, dense_matrix(expected.data(), 8, 24), gram.hessian(), {}, columns);
  CHECK(same_bits(rewritten(net.second), expected));
}

TEST_CASE("gptq algorithm: its parameters reach it") {
  small_network net;
  matrix const x = correlated(200, 32, 5);
  model<cpu_backend> m{net, with_linalg()};
  auto const kept = [&](std::string const& algorithm) {
    quantize(m, int4_gptq(algorithm), [&] { (void)net.forward(x); });
    return rewritten(net.first);
  };
  matrix const usual = kept(R"("gptq")");
  CHECK(same_bits(kept(R"({"method": "gptq", "block_size": 5})"), usual));  // plain_linalg sums in float64
  CHECK(!same_bits(kept(R"({"method": "gptq", "perc_damp": 1.0})"), usual));
  CHECK(!same_bits(kept(R"({"method": "gptq", "activation_order": true})"), usual));
}

TEST_CASE("gptq algorithm: a layer without tokens is rounded to nearest, and named") {
  small_network net;
  model<cpu_backend> m{net, with_linalg()};
  auto const resolved = quantize(m, int4_gptq(), [&] { (void)net.first.forward(correlated(50, 32, 5)); });
  REQUIRE(resolved.notes.size() == 1);
  CHECK(resolved.notes[0].find("second: gptq saw no tokens") != std::string::npos);
  CHECK(site_of(net.second).rewritten(0) == nullptr);
  CHECK(site_of(net.first).rewritten(0) != nullptr);
}

TEST_CASE("gptq algorithm: inputs of zeros leave a note, with the layer's name") {
  small_network net;
  model<cpu_backend> m{net, with_linalg()};
  auto const resolved = quantize(m, int4_gptq(), [&] { (void)net.forward(matrix::Zero(4, 32)); });
  REQUIRE(resolved.notes.size() == 2);
  CHECK(resolved.notes[0].find("first: gptq: the Hessian is not positive definite") != std::string::npos);
}

TEST_CASE("gptq algorithm: what it cannot do is refused, and the model is as before") {
  small_network net;
  matrix const x = correlated(50, 32, 5), before = net.forward(x);
  model<cpu_backend> without{net}, m{net, with_linalg()};
  auto const loop = [&] { (void)net.forward(x); };
  CHECK(says(error_text(error_id::state_missing, [&] { quantize(without, int4_gptq(), loop); }), "gptq",
             "model_options::linalg"));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, int4_gptq()); }), "gptq", "forward_loop"));
  CHECK(says(error_text(error_id::state_not_calibrated, [&] { quantize(m, int4_gptq(), [] {}); }), "gptq",
             "none of 2 layer(s)"));
  auto dynamic = int4_gptq();
  dynamic.entries.back().cfg->front().type = quantizer_type::dynamic_type;
  CHECK(says(error_text(error_id::format_value, [&] { quantize(m, dynamic, loop); }), "first.weight_quantizer",
             "of each call's data"));
  auto inputs_only = int4_gptq();
  inputs_only.entries.push_back({.quantizer_name = "*weight_quantizer", .enable = false});
  inputs_only.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = {{quantizer_attribute_config{}}}});
  CHECK(says(error_text(error_id::config_conflict, [&] { quantize(m, inputs_only, loop); }), "gptq",
             "no linear layer has a weight quantizer that is on"));
  CHECK(net.first.slots.shared_site()->recipes.empty());
  CHECK(same_bits(net.forward(x), before));
}

namespace {

/// An embedding and a linear layer that holds its weight as [in, out].
struct kinds {
  matrix table = random_matrix(10, 16, 1), weight = random_matrix(16, 8, 2);
  quantizer_slots<cpu_backend> embedding_slots, linear_slots;
  bool with_embedding = false;

  matrix forward(matrix const& x) {
    return apply(linear_slots, x, weight, [](auto const& a, auto const& w) -> matrix { return a * w; });
  }
  template <class Visit>
  void walk(Visit&& visit) {
    if (with_embedding) visit(embedding("embed", embedding_slots, table));
    visit(linear("linear", linear_slots, weight, layouts::linear_in_out));
  }
};

struct one_layer {
  linear_layer& layer;
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("linear", layer.slots, layer.weight));
  }
};

}  // namespace

TEST_CASE("gptq algorithm: a weight held as [in, out] gives the transposed of one held as [out, in]") {
  kinds turned;
  small_network net;
  net.first.weight = turned.weight.transpose();
  matrix const x = correlated(100, 16, 3);
  model<cpu_backend> a{turned, with_linalg()};
  quantize(a, int4_gptq(), [&] { (void)turned.forward(x); });
  one_layer host{net.first};
  model<cpu_backend> b{host, with_linalg()};
  quantize(b, int4_gptq(), [&] { (void)net.first.forward(x); });
  CHECK(same_bits(turned.forward(x), matrix{net.first.forward(x)}));
}

TEST_CASE("gptq algorithm: an embedding has no inputs and is refused by name") {
  kinds host;
  host.with_embedding = true;
  model<cpu_backend> m{host, with_linalg()};
  CHECK(says(error_text(error_id::format_value, [&] { quantize(m, int4_gptq(), [] {}); }), "embed.weight_quantizer",
             "embedding"));
}

TEST_CASE("gptq algorithm: two threads that show one layer are refused, and the model is as before") {
  small_network net;
  matrix const x = correlated(40, 32, 5), before = net.forward(x);
  model<cpu_backend> m{net, with_linalg()};
  auto const run = [&] {
    net.forward(x);
    std::exception_ptr thrown;
    std::thread{[&] {
      try {
        net.forward(x);
      } catch (...) {
        thrown = std::current_exception();
      }
    }}.join();
    if (thrown) std::rethrow_exception(thrown);
  };
  for (std::string const algorithm :
       {R"("gptq")", R"({"method": "local_hessian", "fp8_scale_sweep": false, "block_size": 8})"})
    CHECK(says(error_text(error_id::state_busy, [&] { quantize(m, int4_gptq(algorithm), run); }), "first",
               "two threads"));
  CHECK(same_bits(net.forward(x), before));
  CHECK_NOTHROW(quantize(m, int4_gptq(R"("max")"), run));
}
