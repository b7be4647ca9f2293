#include "mixbit/quantizer/probe.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "mixbit/model/quantize.hpp"
#include "support/checkpoint_host.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// One element by its index along each axis, in the tensor's own order.
float& at(plain_tensor& t, std::initializer_list<std::int64_t> index) {
  std::int64_t offset = 0;
  int axis = 0;
  for (auto const i : index) offset += i * t.shape.stride[axis++];
  return t.values[static_cast<std::size_t>(offset)];
}
float at(plain_tensor const& t, std::initializer_list<std::int64_t> index) {
  return at(const_cast<plain_tensor&>(t), index);
}

plain_tensor multiply_in_out(plain_tensor const& x, plain_tensor const& w) {  // w [in, out]
  plain_tensor y{x.shape.shape[0], w.shape.shape[1]};
  for (std::int64_t r = 0; r < x.shape.shape[0]; ++r)
    for (std::int64_t o = 0; o < w.shape.shape[1]; ++o)
      for (std::int64_t i = 0; i < w.shape.shape[0]; ++i) at(y, {r, o}) += at(x, {r, i}) * at(w, {i, o});
  return y;
}

plain_tensor multiply_features_tokens(plain_tensor const& x,
                                      plain_tensor const& w) {  // x [in, tokens], y [out, tokens]
  plain_tensor y{w.shape.shape[0], x.shape.shape[1]};
  for (std::int64_t o = 0; o < w.shape.shape[0]; ++o)
    for (std::int64_t i = 0; i < w.shape.shape[1]; ++i)
      for (std::int64_t t = 0; t < x.shape.shape[1]; ++t) at(y, {o, t}) += at(w, {o, i}) * at(x, {i, t});
  return y;
}

/// Direct 2-D convolution without padding: x [n,c,h,w], w [out, c/groups, kh, kw].
plain_tensor convolve(plain_tensor const& x, plain_tensor const& w) {
  auto const &xs = x.shape.shape, &ws = w.shape.shape;
  std::int64_t const groups = xs[1] / ws[1], outs = ws[0] / groups;
  plain_tensor y{xs[0], ws[0], xs[2] - ws[2] + 1, xs[3] - ws[3] + 1};
  for (std::int64_t n = 0; n < xs[0]; ++n)
    for (std::int64_t o = 0; o < ws[0]; ++o)
      for (std::int64_t r = 0; r < y.shape.shape[2]; ++r)
        for (std::int64_t s = 0; s < y.shape.shape[3]; ++s)
          for (std::int64_t c = 0; c < ws[1]; ++c)
            for (std::int64_t k = 0; k < ws[2]; ++k)
              for (std::int64_t l = 0; l < ws[3]; ++l)
                at(y, {n, o, r, s}) += at(x, {n, o / outs * ws[1] + c, r + k, s + l}) * at(w, {o, c, k, l});
  return y;
}

/// The same over x [n,h,w,c], w [kh,kw,c,out], y [n,h,w,out].
plain_tensor convolve_nhwc(plain_tensor const& x, plain_tensor const& w) {
  auto const &xs = x.shape.shape, &ws = w.shape.shape;
  plain_tensor y{xs[0], xs[1] - ws[0] + 1, xs[2] - ws[1] + 1, ws[3]};
  for (std::int64_t n = 0; n < xs[0]; ++n)
    for (std::int64_t r = 0; r < y.shape.shape[1]; ++r)
      for (std::int64_t s = 0; s < y.shape.shape[2]; ++s)
        for (std::int64_t o = 0; o < ws[3]; ++o)
          for (std::int64_t c = 0; c < ws[2]; ++c)
            for (std::int64_t k = 0; k < ws[0]; ++k)
              for (std::int64_t l = 0; l < ws[1]; ++l)
                at(y, {n, r, s, o}) += at(x, {n, r + k, s + l, c}) * at(w, {k, l, c, o});
  return y;
}

/// Transposed: x [n,c,h,w], w [c,out,kh,kw], every input pixel painted with the kernel.
plain_tensor paint(plain_tensor const& x, plain_tensor const& w) {
  auto const &xs = x.shape.shape, &ws = w.shape.shape;
  plain_tensor y{xs[0], ws[1], xs[2] + ws[2] - 1, xs[3] + ws[3] - 1};
  for (std::int64_t n = 0; n < xs[0]; ++n)
    for (std::int64_t c = 0; c < xs[1]; ++c)
      for (std::int64_t r = 0; r < xs[2]; ++r)
        for (std::int64_t s = 0; s < xs[3]; ++s)
          for (std::int64_t o = 0; o < ws[1]; ++o)
            for (std::int64_t k = 0; k < ws[2]; ++k)
              for (std::int64_t l = 0; l < ws[3]; ++l)
                at(y, {n, o, r + k, s + l}) += at(x, {n, c, r, s}) * at(w, {c, o, k, l});
  return y;
}

using operation = std::function<plain_tensor(plain_tensor const&, plain_tensor const&)>;

struct one_layer {
  plain_tensor weight;
  std::string class_name;
  site_layout layout;
  quantizer_slots<cpu_backend> slots = {};
  model<cpu_backend> m{*this};

  one_layer(plain_tensor w, site_layout l, std::string c = "nn.Linear")
      : weight{std::move(w)}, class_name{std::move(c)}, layout{l} {
    quantize_config config = nothing_on();
    turn_on(config, "layer.weight_quantizer", {});
    quantize(m, config);
  }
  void walk(module_visitor<cpu_backend> const& visit) { visit(module("layer", class_name, slots, weight, layout)); }
  bool probed() const { return slots.shared_site()->probed; }

  bool passes(plain_tensor const& x, operation const& op) {
    apply(slots, x, weight, op);
    return probed();
  }
  /// What the refusal says; the site must not count as probed then.
  std::string refusal(plain_tensor const& x, operation const& op) {
    auto const text = error_text(error_id::tensor_layout, [&] { apply(slots, x, weight, op); });
    CHECK_FALSE(probed());
    return text;
  }
};

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("probe: passes for what the layouts say (rule 4)") {
  CHECK(one_layer{waves({4, 6}, 0.7f), layouts::linear}.passes(waves({3, 6}, 0.3f), multiply));
  CHECK(one_layer{waves({6, 4}, 0.7f), layouts::linear_in_out}.passes(waves({3, 6}, 0.3f), multiply_in_out));
  CHECK(
      one_layer{waves({4, 6}, 0.7f), layouts::features_tokens}.passes(waves({6, 3}, 0.3f), multiply_features_tokens));
  CHECK(one_layer{waves({1, 1}, 0.7f), layouts::linear}.passes(waves({1, 1}, 0.3f), multiply));
}

TEST_CASE("probe: passes for convolutions, with groups, channels last, and transposed (rule 4)") {
  auto const conv = "nn.Conv2d";
  plain_tensor const image = waves({2, 4, 5, 5}, 0.3f);
  CHECK(one_layer{waves({6, 4, 3, 3}, 0.7f), layouts::conv, conv}.passes(image, convolve));
  CHECK(one_layer{waves({6, 2, 3, 3}, 0.7f), layouts::conv, conv}.passes(image, convolve));  // two groups
  CHECK(one_layer{waves({4, 1, 3, 3}, 0.7f), layouts::conv, conv}.passes(image, convolve));  // depthwise
  CHECK(one_layer{waves({3, 3, 4, 6}, 0.7f), layouts::conv_nhwc_hwio, conv}.passes(waves({2, 5, 5, 4}, 0.3f),
                                                                                  convolve_nhwc));
  CHECK(one_layer{waves({4, 6, 3, 3}, 0.7f), layouts::conv_transpose, "nn.ConvTranspose2d"}.passes(image, paint));
}

TEST_CASE("probe: catches a square weight [in, out] that is declared [out, in]") {
  auto const text = one_layer{waves({5, 5}, 0.7f), layouts::linear}.refusal(waves({3, 5}, 0.3f), multiply_in_out);
  CHECK(says(text, "layer: ", "probe", "[in, out]"));
  CHECK(says(one_layer{waves({5, 5}, 0.7f), layouts::linear_in_out}.refusal(waves({3, 5}, 0.3f), multiply), "probe"));
  plain_tensor const square = waves({5, 5}, 0.3f);  // as many tokens as features
  CHECK(says(one_layer{waves({5, 5}, 0.7f), layouts::linear}.refusal(square, multiply_features_tokens), "probe"));
}

TEST_CASE("probe: catches wrong convolution layouts") {
  auto const conv = "nn.Conv2d";
  plain_tensor const cube = waves({2, 3, 3, 3}, 0.3f), kernel = waves({3, 3, 3, 3}, 0.7f);
  CHECK(says(one_layer{kernel, layouts::conv_nhwc_hwio, conv}.refusal(cube, convolve), "layer", "probe"));
  CHECK(says(one_layer{kernel, layouts::conv, conv}.refusal(cube, convolve_nhwc), "layer", "probe"));
  CHECK(says(one_layer{kernel, layouts::conv, conv}.refusal(cube, paint), "layer", "probe"));
  CHECK(says(one_layer{kernel, layouts::conv_nhwc_ohwi, conv}.refusal(cube, convolve_nhwc), "layer", "probe"));
}

TEST_CASE("probe: catches an op that keeps state between calls") {
  int calls = 0;
  auto const counting = [&](plain_tensor const& x, plain_tensor const& w) {
    plain_tensor y = multiply(x, w);
    y.values[0] += static_cast<float>(++calls);
    return y;
  };
  CHECK(says(one_layer{waves({4, 6}, 0.7f), layouts::linear}.refusal(waves({3, 6}, 0.3f), counting), "state"));
  auto const growing = [&](plain_tensor const& x, plain_tensor const& w) {  // a cache that gets longer
    plain_tensor const y = multiply(x, w);
    plain_tensor longer{y.shape.shape[0] + ++calls, y.shape.shape[1]};
    std::copy(y.values.begin(), y.values.end(), longer.values.begin());
    return longer;
  };
  CHECK(says(one_layer{waves({4, 6}, 0.7f), layouts::linear}.refusal(waves({3, 6}, 0.3f), growing), "shape"));
}

TEST_CASE("probe: channel counts that do not fit are refused by name and number") {
  plain_tensor const image = waves({2, 4, 5, 5}, 0.3f);
  auto const never = [](plain_tensor const&, plain_tensor const&) {  // it would read past the end of one of them
    FAIL_CHECK("the op saw operands that do not fit");
    return plain_tensor{1, 1};
  };
  CHECK(says(one_layer{waves({4, 6}, 0.7f), layouts::linear}.refusal(waves({3, 4}, 0.3f), never), "layer", "4 channels",
             "weight 6"));
  CHECK(says(one_layer{waves({6, 3, 3, 3}, 0.7f), layouts::conv, "nn.Conv2d"}.refusal(image, never), "4 channels"));
  CHECK(says(one_layer{waves({2, 6, 3, 3}, 0.7f), layouts::conv_transpose, "nn.ConvTranspose2d"}.refusal(image, never),
             "4 channels", "weight 2"));
}

TEST_CASE("probe: data that is not finite proves nothing, so the next call is probed again") {
  one_layer l{waves({5, 5}, 0.7f), layouts::linear};
  plain_tensor broken = waves({3, 5}, 0.3f);
  for (float const bad : {not_a_number, std::numeric_limits<float>::infinity()}) {
    broken.values[7] = bad;
    CHECK_FALSE(l.passes(broken, multiply_in_out));
  }
  CHECK(says(l.refusal(waves({3, 5}, 0.3f), multiply_in_out), "probe"));
  CHECK(l.passes(waves({3, 5}, 0.3f), multiply));
  int calls = 0;
  apply(l.slots, broken, l.weight, [&](plain_tensor const& x, plain_tensor const& w) {
    ++calls;
    return multiply(x, w);
  });
  CHECK(calls == 1);  // once a site has passed, it is not probed any more
}

TEST_CASE("probe: no tokens prove nothing either") {
  one_layer l{waves({5, 5}, 0.7f), layouts::linear};
  CHECK_FALSE(l.passes(plain_tensor{0, 5}, multiply));
  CHECK(l.passes(waves({3, 5}, 0.3f), multiply));
}

TEST_CASE("probe: a layer whose axes are said anew, or whose weight has another shape, is probed anew") {
  one_layer l{waves({5, 5}, 0.7f), layouts::linear};
  plain_tensor const x = waves({3, 5}, 0.3f);
  REQUIRE(l.passes(x, multiply));
  model<cpu_backend> m{l};
  m.modules();
  CHECK(l.probed());  // nothing has changed
  l.layout = layouts::linear_in_out;
  m.modules();
  CHECK(says(l.refusal(x, multiply), "layer", "probe"));
  l.layout = layouts::linear;
  m.modules();
  REQUIRE(l.passes(x, multiply));
  l.weight = waves({4, 5}, 0.7f);
  m.modules();
  CHECK_FALSE(l.probed());
}
