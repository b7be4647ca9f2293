// What surrounds the cast: affine bias, rotation and pre_quant_scale, in a quantizer and in a site.
#include <doctest/doctest.h>

#include <cmath>

#include "mixbit/model/json.hpp"
#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

using quantizer = tensor_quantizer<cpu_backend>;

template <class F>
quantizer_attribute_config with(F change) {
  quantizer_attribute_config a;
  change(a);
  return a;
}

bias_config bias_over(std::vector<int> axes, bias_method method, quantizer_type type = quantizer_type::static_type) {
  return {std::move(axes), type, method};
}

struct bench {
  cpu_backend device;
  arena scratch;

  matrix quantized(quantizer& q, matrix const& x) {
    matrix y(x.rows(), x.cols());
    q.quantize(device, scratch, read_view(x), write_view(y));
    return y;
  }
  template <class Q>
  matrix backward(Q& q, matrix const& x, matrix const& grad) {
    matrix g = grad;
    q.mask_backward(device, scratch, read_view(x), write_view(g));
    return g;
  }
  matrix rotated(matrix x, std::int64_t block) {
    device.hadamard({read_view(x), write_view(x), block});
    return x;
  }
};

/// INT8 by the rule of `stored`, with one amax.
matrix int8(matrix x, float amax) {
  cpu_backend{}.fake_quantize({read_view(x), write_view(x), per_tensor(read_view(x)), &amax, {}, nullptr});
  return x;
}

float amax_of(matrix const& x) { return x.cwiseAbs().maxCoeff(); }

template <class F>
std::string refusal(error_id id, F f) {
  return error_text(id, f);
}

}  // namespace

TEST_CASE("affine: the mean of batches' means comes off before the cast and is added after it") {
  bench b;
  quantizer q{"k", with([](auto& a) { a.bias = bias_over({-2}, bias_method::mean); }), policy::stored};
  matrix const one = random_matrix(8, 4, 1).array() + 3.0f, two = random_matrix(6, 4, 2).array() - 1.0f;
  matrix const other = random_matrix(6, 3, 2);
  CHECK_FALSE(q.ready());
  q.observe(b.device, b.scratch, read_view(one));
  q.observe(b.device, b.scratch, read_view(two));
  CHECK(q.ready());
  auto const bias = q.bias()->values();
  REQUIRE(bias.size() == 4);
  matrix offset(6, 4);
  float first_batch = 0;
  for (int c = 0; c < 4; ++c) {
    double const m1 = one.col(c).cast<double>().mean(), m2 = two.col(c).cast<double>().mean();
    CHECK(bias[static_cast<std::size_t>(c)] == doctest::Approx((m1 + m2) / 2).epsilon(1e-6));
    offset.col(c).setConstant(bias[static_cast<std::size_t>(c)]);
    first_batch = std::max(first_batch, (one.col(c).array() - static_cast<float>(m1)).abs().maxCoeff());
  }
  // a batch's amax is that of x less the bias so far
  CHECK(q.amax(b.device).front() == std::max(first_batch, amax_of(two - offset)));
  matrix const y = b.quantized(q, two);
  CHECK(same_bits(y, matrix{int8(two - offset, q.amax(b.device).front()) + offset}));
  CHECK(says(refusal(error_id::tensor_shape, [&] { b.quantized(q, other); }), "k: ", "bias of 4", "3"));
}

TEST_CASE("affine: the midpoint of the running extremes, static; of each call's, dynamic") {
  bench b;
  matrix const one = random_matrix(5, 7, 3), two = random_matrix(5, 7, 4).array() + 2.0f;
  quantizer q{"k", with([](auto& a) { a.bias = bias_over({0, 1}, bias_method::max_min); }), policy::stored};
  q.observe(b.device, b.scratch, read_view(one));
  q.observe(b.device, b.scratch, read_view(two));
  float const high = std::max(one.maxCoeff(), two.maxCoeff()), low = std::min(one.minCoeff(), two.minCoeff());
  CHECK(q.bias()->values() == std::vector<float>{(high + low) * 0.5f});

  auto const dynamic = with([](auto& a) {
    a.bias = bias_over({1}, bias_method::max_min, quantizer_type::dynamic_type);
    a.type = quantizer_type::dynamic_type;
  });
  quantizer live{"k", dynamic, policy::stored};
  CHECK(live.ready());
  matrix offset(5, 7);
  for (int r = 0; r < 5; ++r) offset.row(r).setConstant((two.row(r).maxCoeff() + two.row(r).minCoeff()) * 0.5f);
  // dynamic: the amax is that of x itself
  CHECK(same_bits(b.quantized(live, two), matrix{int8(two - offset, amax_of(two)) + offset}));
  quantizer copy{"k", q.attributes(), policy::stored};
  copy.adopt(b.device, q);
  CHECK(copy.ready());
  CHECK(same_bits(b.quantized(copy, one), b.quantized(q, one)));
}

TEST_CASE("affine: a tensor without elements has a dynamic bias of zeros, by either method") {
  bench b;
  for (bias_method const method : {bias_method::mean, bias_method::max_min})
    for (int const rows : {0, 4}) {
      quantizer q{"k", with([&](auto& a) {
                    a.bias = bias_over({-2}, method, quantizer_type::dynamic_type);
                    a.type = quantizer_type::dynamic_type;
                  }),
                  policy::stored};
      matrix const none(rows, 4 - rows);
      CHECK(b.quantized(q, none).size() == 0);
      auto const columns = static_cast<std::size_t>(none.cols());
      float const* const bias = q.bias()->of(b.device, b.scratch, read_view(none));
      CHECK(std::vector<float>(bias, bias + columns) == std::vector<float>(columns, 0.0f));
    }
}

TEST_CASE("affine: a bias leaves NaN and infinities out and counts each once, also where no amax is calibrated") {
  bench b;
  matrix x = random_matrix(8, 4, 5);
  x(1, 2) = NAN, x(3, 2) = INFINITY, x(7, 0) = -INFINITY;
  for (bias_method const method : {bias_method::mean, bias_method::max_min})
    for (int const source : {0, 1, 2}) {  // of the amax: calibrated, constant, of each call's data
      auto const attributes = with([&](auto& a) {
        a.bias = bias_over({-2}, method);
        if (source == 1) a.constant_amax = 4.0;
        if (source == 2) a.type = quantizer_type::dynamic_type;
      });
      quantizer q{"k", attributes, policy::stored}, copy{"k", attributes, policy::stored};
      q.observe(b.device, b.scratch, read_view(x));
      CHECK(q.nonfinite(b.device) == 3);
      copy.adopt(b.device, q);
      CHECK(copy.nonfinite(b.device) == 3);
      if (method == bias_method::mean)  // what is left out counts in the divisor
        CHECK(q.bias()->values()[0] == doctest::Approx(x.col(0).head(7).sum() / 8).epsilon(1e-6));
      else
        CHECK(q.bias()->values()[0] == (x.col(0).head(7).maxCoeff() + x.col(0).head(7).minCoeff()) * 0.5f);
    }
}

TEST_CASE("affine: what cannot be is refused by name, and nothing is written") {
  bench b;
  matrix const x = random_matrix(4, 4, 5);
  matrix y = matrix::Zero(4, 4);
  quantizer far{"k", with([](auto& a) { a.bias = bias_over({-3}, bias_method::mean); }), policy::stored};
  CHECK(says(refusal(error_id::format_value, [&] { far.observe(b.device, b.scratch, read_view(x)); }), "k: ", "axis -3",
             "rank 2"));
  quantizer blank{"k", with([](auto& a) {
                    a.bias = bias_over({-1}, bias_method::mean);
                    a.constant_amax = 4.0;
                  }),
                  policy::stored};
  CHECK(blank.needs_calibration());
  CHECK(says(refusal(error_id::state_not_calibrated, [&] { b.quantized(blank, x); }), "k: ", "bias"));
  blank.bias()->set(b.device, blank.bias()->grouping(read_view(x)), {1, 2, 3, 4});
  CHECK(blank.ready());
  CHECK(says(refusal(error_id::format_value,
                     [&] {
                       blank.bias()->set(b.device, blank.bias()->grouping(read_view(x)), {1, 2, 3, INFINITY});
                     }),
             "k: ", "bias[3]", "inf"));
  quantizer positive{"k", with([](auto& a) {
                       a.bias = bias_over({-1}, bias_method::mean, quantizer_type::dynamic_type);
                       a.is_unsigned = true;
                       a.constant_amax = 4.0;
                     }),
                     policy::stored};
  auto const cast = [&] { positive.quantize(b.device, b.scratch, read_view(x), write_view(y)); };
  CHECK(says(refusal(error_id::format_unsigned, cast), "k: ", "negative"));
  CHECK(y.isZero());
  std::vector<half> const huge{from_float<half>(65504.0f), from_float<half>(60000.0f)};
  quantizer midpoint{"k", with([](auto& a) { a.bias = bias_over({0}, bias_method::max_min); }), policy::stored};
  auto const overflow = [&] { midpoint.observe(b.device, b.scratch, dense_view(huge.data(), {2})); };
  CHECK(says(refusal(error_id::format_value, overflow), "k: ", "bias[0]", "inf"));
}

TEST_CASE("unsigned: a negative value is refused before anything is written, whatever comes before the cast") {
  bench b;
  matrix const x = random_matrix(3, 16, 11);
  for (bool const rotates : {false, true}) {
    auto const attributes = with([&](auto& a) {
      a.is_unsigned = true;
      a.rotate = rotates;
      a.type = quantizer_type::dynamic_type;
    });
    sequential_quantizer<cpu_backend> q{"input_quantizer", "fc.input_quantizer", quantizer_role::input, true,
                                        {attributes}, policy::stored};
    q.set_pre_quant_scale(b.device, std::vector<float>(16, 2.0f));
    matrix in_place = x;
    auto const cast = [&] { q.quantize(b.device, b.scratch, read_view(in_place), write_view(in_place)); };
    auto const least = rotates ? std::string{"(down to -"} : detail::concat("(down to ", 2 * x.minCoeff(), ")");
    CHECK(says(refusal(error_id::format_unsigned, cast), "fc.input_quantizer: ", "negative", least));
    CHECK(same_bits(in_place, x));
  }
}

TEST_CASE("amax: one that is negative, not finite or too few is refused, and the old one stays") {
  bench b;
  quantizer q{"w", {}, policy::stored};
  matrix const x = random_matrix(3, 16, 11);
  partition const all = per_tensor(read_view(x));
  q.set_amax(b.device, all, {2.0f});
  for (float const bad : {-1.0f, NAN, INFINITY})
    CHECK(says(refusal(error_id::format_amax, [&] { q.set_amax(b.device, all, {bad}); }), "w: ", "amax[0]"));
  CHECK(says(refusal(error_id::tensor_shape, [&] { q.set_amax(b.device, all, {1.0f, 2.0f}); }), "w: ", "2 amax"));
  CHECK(q.amax(b.device) == std::vector<float>{2.0f});
}

TEST_CASE("rotate: quantization sees the rotated tensor, and rotate_back undoes it") {
  bench b;
  for (int const width : {32, 24, 8})
    for (std::optional<std::int64_t> const block : {std::optional<std::int64_t>{}, std::optional<std::int64_t>{4}})
      for (rotate_mode const mode : {rotate_mode::rotate, rotate_mode::rotate_back}) {
        matrix const x = random_matrix(3, width, 6);
        quantizer q{"q", with([&](auto& a) {
                      a.rotate = true;
                      a.rotate.block_size = block;
                      a.rotate.mode = mode;
                    }),
                    policy::stored};
        q.observe(b.device, b.scratch, read_view(x));
        matrix const turned = b.rotated(x, block.value_or(width & -width));
        CHECK(q.amax(b.device).front() == amax_of(turned));
        matrix expected = int8(turned, amax_of(turned));
        if (mode == rotate_mode::rotate_back) {
          expected = b.rotated(expected, block.value_or(width & -width));
          CHECK((expected - x).cwiseAbs().maxCoeff() < 0.05f);
        }
        CHECK(same_bits(b.quantized(q, x), expected));
      }
}

TEST_CASE("rotate: blocks that do not fit are refused by name before anything is written") {
  bench b;
  auto const refused = [&](int width, std::optional<std::int64_t> block) {
    quantizer q{"q", with([&](auto& a) {
                  a.rotate = true;
                  a.rotate.block_size = block;
                  a.type = quantizer_type::dynamic_type;
                }),
                policy::stored};
    matrix const x = random_matrix(2, width, 8);
    matrix y = matrix::Zero(2, width);
    auto const text = error_text(error_id::tensor_shape,
                                 [&] { q.quantize(b.device, b.scratch, read_view(x), write_view(y)); });
    CHECK(y.isZero());
    return text;
  };
  CHECK(says(refused(24, 16), "q: ", "block_size 16", "[2,24]"));
  CHECK(says(refused(15, {}), "q: ", "width 15"));
  CHECK(says(refused(65536, {}), "q: ", "65536", "32768"));
}

TEST_CASE("backward: the gradient goes through scale and rotation, and the mask is on what the cast saw") {
  bench b;
  matrix const x = random_matrix(4, 16, 9), grad = random_matrix(4, 16, 10);
  for (rotate_mode const mode : {rotate_mode::rotate, rotate_mode::rotate_back})
    for (bool const clipped : {false, true}) {
      auto const attributes = with([&](auto& a) {
        a.rotate = true;
        a.rotate.mode = mode;
        a.pass_through_bwd = !clipped;
        a.constant_amax = 1.0;
        a.bias = bias_over({0, 1}, bias_method::max_min);
      });
      sequential_quantizer<cpu_backend> q{"input_quantizer", "fc.input_quantizer", quantizer_role::input, true,
                                          {attributes}, policy::stored};
      std::vector<float> scale(16);
      for (std::size_t c = 0; c < scale.size(); ++c) scale[c] = 0.5f + 0.25f * static_cast<float>(c % 3);
      q.set_pre_quant_scale(b.device, scale);
      auto& member = q.members().front();
      member.bias()->set(b.device, member.bias()->grouping(read_view(x)), {0.25f});
      matrix seen = x, expected = grad;
      for (int c = 0; c < 16; ++c) seen.col(c) *= scale[static_cast<std::size_t>(c)];
      seen = b.rotated(seen, 16).array() - 0.25f;
      if (mode == rotate_mode::rotate_back) expected = b.rotated(expected, 16);
      if (clipped)
        for (int i = 0; i < expected.size(); ++i)
          if (std::fabs(seen.data()[i]) > 1.0f) expected.data()[i] = 0.0f;
      expected = b.rotated(expected, 16);
      for (int c = 0; c < 16; ++c) expected.col(c) *= scale[static_cast<std::size_t>(c)];
      CHECK(same_bits(b.backward(q, x, grad), expected));
    }
}

TEST_CASE("backward: each member of a sequence masks by what it saw itself") {
  bench b;
  auto const first = with([](auto& a) { a.constant_amax = 1.0; });
  auto const second = with([](auto& a) {
    a.constant_amax = 1.5;
    a.pass_through_bwd = false;
  });
  sequential_quantizer<cpu_backend> q{"w", "fc.w", quantizer_role::weight, true, {first, second}, policy::stored};
  matrix x(1, 3), grad = matrix::Ones(1, 3);
  x << 0.5f, 1.2f, 7.0f;  // the first member clamps all to 1.008
  CHECK(same_bits(b.backward(q, x, grad), grad));
  sequential_quantizer<cpu_backend> alone{"w", "fc.w", quantizer_role::weight, true, {second}, policy::stored};
  matrix const masked = b.backward(alone, x, grad);
  CHECK(masked(0, 1) == 1.0f);
  CHECK(masked(0, 2) == 0.0f);
}

namespace {

std::vector<float> const scale32 = [] {
  std::vector<float> s;
  for (int c = 0; c < 32; ++c) s.push_back(1.0f + 0.125f * static_cast<float>(c % 5));
  return s;
}();

matrix times_scale(matrix x) {
  for (int c = 0; c < x.cols(); ++c) x.col(c) *= scale32[static_cast<std::size_t>(c)];
  return x;
}

sequential_quantizer<cpu_backend>& input_of(linear_layer& l) {
  for (auto& q : site_of(l).quantizers().quantizers)
    if (q.role() == quantizer_role::input) return q;
  throw std::runtime_error{"no input quantizer"};
}

}  // namespace

TEST_CASE("pre_quant_scale: multiplies the input first, also where the quantizer is off") {
  small_network net;
  matrix const batch = random_matrix(6, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  auto& q = input_of(net.first);
  cpu_backend device;
  float const amax = q.members().front().amax(device).front();
  q.set_pre_quant_scale(device, scale32);
  site_of(net.first).refresh();
  matrix const w = by_hand(*site_of(net.first).quantizers().find(quantizer_role::weight), net.first.weight);
  CHECK(same_bits(net.first.forward(batch), matrix{int8(times_scale(batch), amax) * w.transpose()}));
  CHECK(quantizers_json(m).at("first.input_quantizer").at("pre_quant_scale") == scale32);

  disable_quantizer(m, "*");
  CHECK(net.first.slots.live());
  CHECK_FALSE(net.second.slots.live());
  CHECK(same_bits(net.first.forward(batch), matrix{times_scale(batch) * net.first.weight.transpose()}));
  CHECK(quantizers_json(m).at("first.input_quantizer").at("amax").is_null());
  matrix const straight = random_matrix(6, 32, 9);
  matrix grad = straight;
  input_backward(net.first.slots, batch, grad);
  CHECK(same_bits(grad, times_scale(straight)));

  q.set_pre_quant_scale(device, {});
  site_of(net.first).refresh();
  CHECK_FALSE(net.first.slots.live());
}

TEST_CASE("pre_quant_scale: calibration sees the scaled input, and the op runs on it") {
  small_network net;
  matrix const batch = random_matrix(6, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  cpu_backend device;
  input_of(net.first).set_pre_quant_scale(device, scale32);
  site_of(net.first).refresh();
  matrix during;
  calibrate(m, {}, [&] { during = net.first.forward(batch), net.second.forward(during); });
  CHECK(same_bits(during, matrix{times_scale(batch) * net.first.weight.transpose()}));
  CHECK(input_of(net.first).has_pre_quant_scale());
  CHECK(input_of(net.first).members().front().amax(device).front() == amax_of(times_scale(batch)));
}

TEST_CASE("pre_quant_scale: a scale of another width, zero or NaN is refused by name") {
  small_network net;
  matrix const batch = random_matrix(6, 32, 7);
  model<cpu_backend> m{net};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
  cpu_backend device;
  auto& q = input_of(net.first);
  for (float const bad : {0.0f, NAN, INFINITY})
    CHECK(says(refusal(error_id::format_value, [&] { q.set_pre_quant_scale(device, {1.0f, bad}); }),
               "first.input_quantizer: ", "pre_quant_scale[1]"));
  CHECK_FALSE(q.has_pre_quant_scale());
  q.set_pre_quant_scale(device, {1.0f, 2.0f});
  site_of(net.first).refresh();
  CHECK(says(refusal(error_id::tensor_shape, [&] { net.first.forward(batch); }), "first.input_quantizer: ", "2 values",
             "[6,32]"));
}

TEST_CASE("rotate: a quantizer that is off still rotates, as ModelOpt's query does, but for one that rotates back") {
  for (rotate_mode const mode : {rotate_mode::rotate, rotate_mode::rotate_back}) {
    small_network net;
    matrix const batch = random_matrix(6, 32, 7);
    model<cpu_backend> m{net};
    quantize(m, preset("INT8_DEFAULT_CFG"), [&] { net.forward(batch); });
    disable_quantizer(m, "*");
    set_quantizer_attributes(m, "first.input_quantizer", with([&](auto& a) {
                               a.enable = false;
                               a.rotate = true;
                               a.rotate.mode = mode;
                             }));
    bench b;
    matrix const x = mode == rotate_mode::rotate ? b.rotated(batch, 32) : batch;
    CHECK(net.first.slots.live() == (mode == rotate_mode::rotate));
    CHECK(same_bits(net.first.forward(batch), matrix{x * net.first.weight.transpose()}));
  }
}
