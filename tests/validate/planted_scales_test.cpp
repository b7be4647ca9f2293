// Further planted mistakes: the roundings, arithmetics, groups and elements that planted_test.cpp does not plant.
#include "validate/planted.hpp"

using namespace planted;

namespace {

float to_grid(float scaled) { return std::clamp(std::nearbyint(scaled), -128.0f, 127.0f); }

/// Calls the reference with amaxes of other groups.
template <class Groups>
auto grouped(Groups of) {
  return [of](fake_quantize_args a) {
    a.groups = of(a.x);
    std::vector<float> const x(a.x.as<float>(), a.x.as<float>() + a.x.size());
    auto const amax = v::amax_of(x, v::group_numbers(a.x, a.groups), a.groups.group_count(), false);
    a.amax = amax.data();
    cpu.fake_quantize(a);
  };
}

}  // namespace

TEST_CASE("validate: ties toward zero, and rounding away from it, are named") {
  auto const check = [](auto round) { return v::check_fake_quantize(cpu, int8_kernel(round), int8, rows); };
  CHECK(names(check([](float q) { return std::copysign(std::ceil(std::fabs(q) - 0.5f), q); }),
              "half toward zero"));
  CHECK(names(check([](float q) { return std::copysign(std::ceil(std::fabs(q)), q); }), "away from zero"));
}

TEST_CASE("validate: a scale that multiplies, and divides or multiplies by its reciprocal on the way back, is named") {
  auto const check = [](auto back) {
    return v::check_fake_quantize(cpu, elementwise([back](float x, float amax, int) {
                                    float const k = 127.0f / amax;
                                    if (amax == 0.0f || x == 0.0f || std::isnan(x)) return 0.0f;
                                    return back(to_grid(fp::mul(x, k)) + 0.0f, k);  // codes are integers: 0 has no sign
                                  }),
                                  int8, rows);
  };
  CHECK(names(check([](float q, float k) { return q / k; }), "x * k and q / k with k = bound/amax"));
  CHECK(names(check([](float q, float k) { return fp::mul(q, 1.0f / k); }),
              "x * k and q * (1/k) with k = bound/amax"));
}

TEST_CASE("validate: a division, where the claimed policy multiplies by the scale, is named") {
  format claimed = int8;
  claimed.numerics = policy::modelopt;
  auto const divides = elementwise([](float x, float amax, int) {
    float const s = amax / 127.0f;
    if (amax <= 0x1p-24f) return x * 0.0f;
    float const q = to_grid(x / s);
    return std::isnan(x) ? x : q * s;
  });
  CHECK(names(v::check_fake_quantize(cpu, divides, claimed, rows), "x / s with s = amax/bound"));
}

TEST_CASE("validate: one scale for all, or for other axes, is named") {
  CHECK(names(v::check_fake_quantize(cpu, grouped(whole), int8, rows), "one group for the whole tensor"));
  CHECK(names(v::check_fake_quantize(cpu, grouped(rows), int8, whole), "one group an index of axis 0"));
  auto const columns = [](geometry const& g) {
    int const kept[] = {1};
    return per_axes(g, kept);
  };
  CHECK(names(v::check_fake_quantize(cpu, grouped(columns), int8, rows), "one group an index of axis 1"));
}

TEST_CASE("validate: the next group's scale is named") {
  auto const theirs = [](fake_quantize_args a) {
    std::vector<float> amax(static_cast<std::size_t>(a.groups.group_count()));
    for (std::size_t g = 0; g < amax.size(); ++g) amax[g] = a.amax[std::min(g + 1, amax.size() - 1)];
    a.amax = amax.data();
    cpu.fake_quantize(a);
  };
  CHECK(names(v::check_fake_quantize(cpu, theirs, int4, blocks(16)), "the scale of the next group"));
}

TEST_CASE("validate: a tail that is set to zero is named") {
  auto const theirs = [](fake_quantize_args const& a) {
    cpu.fake_quantize(a);
    std::int64_t const width = a.x.shape[1], done = width / 32 * 32;
    for (std::int64_t i = 0; i < a.x.size(); ++i)
      if (i % width >= done && width > 32) a.y.as<float>()[i] = 0.0f;
  };
  CHECK(names(v::check_fake_quantize(cpu, theirs, mxfp4, blocks(32)), "ragged last blocks set to zero"));
}

TEST_CASE("validate: another element of as many bits is named") {
  for (auto const& [claimed, theirs] : {std::pair{e4m3_element, e5m2_element}, std::pair{e3m2_element, e2m3_element}}) {
    auto const kernel = [e = theirs](fake_quantize_args a) {
      a.how.element = e;
      cpu.fake_quantize(a);
    };
    format how = mxfp4;
    how.element = claimed;
    CHECK(names(v::check_fake_quantize(cpu, kernel, how, blocks(32)), "element " + mixbit::name_of(theirs)));
  }
}
