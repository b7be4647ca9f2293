// What the tests of planted mistakes share: formats, ways to divide a tensor, and kernels without a mistake.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "mixbit/reference/scalar.hpp"
#include "mixbit/validate/check.hpp"
#include "mixbit/validate/text.hpp"

namespace planted {

using namespace mixbit;
namespace v = mixbit::validate;

inline reference::scalar cpu;
inline format const int8{integer_element(8)};
inline format const int4{integer_element(4), policy::stored, dtype::f32, packing::dense_rows};
inline format const fp8{e4m3_element};
inline format const mxfp4{e2m1_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv};
inline format const nvfp4{e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};

inline auto blocks(std::int64_t size) {
  return [size](geometry const& g) { return blocks_of(g, std::vector<axis_block>{{-1, size}}); };
}
inline partition rows(geometry const& g) {
  int const kept[] = {0};
  return per_axes(g, kept);
}
inline partition whole(geometry const& g) { return per_tensor(g); }

/// Does the report say DIFFERS, and name `what` first among what matches everywhere?
inline bool names(v::report const& r, std::string const& what) {
  bool const found = !r.conformant() && r.explained() && r.hypotheses.front().text == what;
  if (!found) MESSAGE(v::to_text(r));
  return found;
}

/// y[i] = f(x[i], amax of its group, number of its group), for dense float32.
template <class F>
auto elementwise(F f) {
  return [f](fake_quantize_args const& a) {
    auto const groups = v::group_numbers(a.x, a.groups);
    for (std::size_t i = 0; i < groups.size(); ++i)
      a.y.as<float>()[i] = f(a.x.as<float>()[i], a.amax[groups[i]], groups[i]);
  };
}

/// An int8 kernel without a mistake, but for what its arguments change.
template <class Round>
auto int8_kernel(Round round, float low = -128.0f) {
  return elementwise([=](float x, float amax, int) {
    float const s = amax / 127.0f;
    if (s == 0.0f || std::isnan(x)) return 0.0f;
    return std::clamp(round(x / s), low, 127.0f) * s + 0.0f;
  });
}

}  // namespace planted
