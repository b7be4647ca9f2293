// Further planted mistakes: another format's policy, element, scale rule or scale type, the rounding of ties where the
// claimed format's is not the usual one, and what becomes of NaN in codes.
#include "validate/planted.hpp"

using namespace planted;

namespace {

/// Calls the reference as if another format had been asked for.
template <class Change>
auto instead(Change change) {
  return [change](auto a) {
    change(a.how);
    if constexpr (requires { a.y; }) cpu.fake_quantize(a);
    else cpu.encode(a);
  };
}

v::report fake(auto const& theirs, format const& how, std::int64_t block) {
  return v::check_fake_quantize(cpu, [&](fake_quantize_args const& a) { theirs(a); }, how, blocks(block));
}
v::report encoded(auto const& theirs, format const& how, std::int64_t block) {
  return v::check_encode(cpu, [&](encode_args const& a) { theirs(a); }, how, blocks(block));
}

}  // namespace

TEST_CASE("validate: policy stored, under the claim of another, is named") {
  auto const stored = instead([](format& f) { f.numerics = policy::stored; });
  auto const theirs = [&](fake_quantize_args const& a) { stored(a); };
  for (format claimed : {int8, fp8}) {
    claimed.numerics = policy::modelopt;
    CHECK(names(v::check_fake_quantize(cpu, theirs, claimed, rows), "policy stored"));
    claimed.numerics = policy::modelopt_pack;  // which rounds nothing more than `stored` does where inputs are float32
    CHECK(names(v::check_fake_quantize(cpu, theirs, claimed, rows, dtype::bf16), "policy stored"));
  }
}

TEST_CASE("validate: what ModelOpt's Triton kernel makes of a call's own blocks is named") {
  std::vector<float> x(8 * 64), y(x.size()), amax(32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i) * 1.7f) * (i < 64 ? 2e-5f : 3.0f);
  auto const view = dense_view(static_cast<float const*>(x.data()), {8, 64});
  auto const groups = blocks(16)(view);
  for (policy claimed : {policy::modelopt, policy::stored}) {
    format how = nvfp4;
    how.numerics = policy::modelopt_triton;
    float const top = *std::max_element(x.begin(), x.end());
    cpu.fake_quantize({view, dense_view(y.data(), {8, 64}), groups, nullptr, how, nullptr, &top, amax_use::data});
    how.numerics = claimed;
    v::results const found{view, dense_view(static_cast<float const*>(y.data()), {8, 64})};
    CHECK(names(v::compare(cpu, found, v::expectation{how, groups, {}, top, true}), "policy modelopt_triton"));
  }
}

TEST_CASE("validate: each element of four bits is told from the others") {
  for (element_type const& claimed : {e2m1_element, e1m2_element, e0m3_element, e3m0_element})
    for (element_type const& used : {e2m1_element, e1m2_element, e0m3_element, e3m0_element}) {
      if (claimed == used) continue;
      format how = mxfp4;
      how.element = claimed;
      auto const theirs = instead([used](format& f) { f.element = used; });
      CHECK(names(fake(theirs, how, 32), "element " + mixbit::name_of(used)));
    }
}

TEST_CASE("validate: four-over-six, and blocks without it, are named") {
  for (auto const& [claimed, used] : {std::pair{scale_rule::two_level, scale_rule::four_over_six},
                                      std::pair{scale_rule::four_over_six, scale_rule::two_level}}) {
    format how = nvfp4;
    how.scaling = claimed;
    auto const theirs = instead([rule = used](format& f) { f.scaling = rule; });
    std::string const name = "scale rule " + std::string{name_of(used)};
    CHECK(names(fake(theirs, how, 16), name));
    CHECK(names(encoded(theirs, how, 16), name));
  }
}

TEST_CASE("validate: float32 scales, under the claim of 16 bits, are named") {
  auto const exact = instead([](format& f) { f.scale_type = dtype::f32; });
  for (dtype t : {dtype::f16, dtype::bf16}) {
    format claimed = int8;
    claimed.scale_type = t;
    auto const theirs = [&](fake_quantize_args const& a) { exact(a); };  // in float32 modelopt_pack, too, has these
    CHECK(names(v::check_fake_quantize(cpu, theirs, claimed, rows, t), "scales rounded to float32"));
  }
}

TEST_CASE("validate: ties to even, where the format's go elsewhere, are named") {
  format how = mxfp4;
  how.element = e3m0_element;  // ties away from zero
  auto const even = [](fake_quantize_args const& a) {
    constexpr float grid[] = {0.0f, 0.25f, 0.5f, 1.0f, 2.0f, 4.0f, 8.0f, 16.0f};
    cpu.fake_quantize(a);
    auto const groups = v::group_numbers(a.x, a.groups);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      float const x = a.x.as<float>()[i], amax = a.amax[groups[i]];
      if (!std::isfinite(x) || amax == 0.0f) continue;
      float const scale = std::exp2(std::max(-127.0f, std::ceil(std::log2(amax / 16.0f)))), m = std::fabs(x) / scale;
      for (int k = 0; k < 7; ++k)
        if (m == (grid[k] + grid[k + 1]) / 2) a.y.as<float>()[i] = std::copysign(grid[k + k % 2] * scale, x);
    }
  };
  CHECK(names(v::check_fake_quantize(cpu, even, how, blocks(32)), "half to even"));
}

TEST_CASE("validate: NVFP4 with a reciprocal of its scale is named") {
  auto const theirs = [](fake_quantize_args const& a) {
    formats::nvfp4_rule<policy::stored> const rule{a.how, {dtype::f32, *a.tensor_amax}};
    formats::minifloat_codec const codec{e2m1_element};
    auto const groups = v::group_numbers(a.x, a.groups);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      formats::scaling const s = rule.prepare(a.amax[groups[i]]);
      float const x = a.x.as<float>()[i], inverse = 1.0f / s.forward;
      bool const none = std::isnan(x) || x == 0.0f || s.keep == 0;
      a.y.as<float>()[i] = none ? 0.0f : fp::mul(codec.round(fp::mul(x, inverse)), s.backward);
    }
  };
  CHECK(names(fake(theirs, nvfp4, 16), "x * (1/s), a reciprocal instead of a division"));
}

TEST_CASE("validate: NaN flushed to zero, or cast to a number, is named in codes") {
  auto const with = [](std::uint8_t for_nan) {
    return [for_nan](encode_args const& a) {
      cpu.encode(a);
      for (std::int64_t i = 0; i < a.x.size(); ++i)
        if (std::isnan(a.x.as<float>()[i])) a.codes[i] = for_nan;
    };
  };
  CHECK(names(encoded(with(0x00), fp8, 32), "NaN becomes zero"));
  CHECK(names(encoded(with(0x7e), fp8, 32), "NaN becomes the largest value"));
  CHECK(names(encoded(with(0xfe), fp8, 32), "NaN becomes the smallest value"));
  CHECK(names(encoded(with(0x7f), int8, 32), "NaN becomes the largest value"));
}
