// Every float32 near a rounding boundary of a minifloat.
#pragma once

#include <cfloat>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "mixbit/formats/minifloat.hpp"

namespace kernel_tests {

using namespace mixbit;

/// The values of a minifloat and the points half way between them, times `step`, each with the 64 float32 on both
/// sides, of both signs; again from the first up to `count`.
inline std::vector<float> near_boundaries(element_type const& e, float step, std::int64_t count) {
  formats::minifloat_codec const codec{e};
  std::vector<float> all;
  for (int code = 0; code <= formats::codes_of(e).largest; ++code) {
    float const here = codec.value(code);
    float const next = code == formats::codes_of(e).largest ? 1.25f * here : codec.value(code + 1);
    for (float x : {here * step, (here + next) * 0.5f * step}) {
      for (int k = 0; k < 64; ++k) x = std::nextafter(x, -FLT_MAX);
      for (int k = -64; k <= 64; ++k, x = std::nextafter(x, FLT_MAX)) all.insert(all.end(), {x, -x});
    }
  }
  REQUIRE(all.size() <= static_cast<std::size_t>(count));
  for (std::size_t i = 0; all.size() < static_cast<std::size_t>(count); ++i) all.push_back(all[i]);
  return all;
}

}  // namespace kernel_tests
