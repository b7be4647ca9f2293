// The gradient by amaxes, over groups of any shape, against each group's sum by hand.
#include "mixbit/calib/scale_gradient.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

using namespace mixbit;

TEST_CASE("scale gradient: groups of several axes, ragged at their ends; a group of amax 0 has none") {
  geometry const shape = dense_geometry(dtype::f32, {5, 3, 7});
  std::array const blocks{axis_block{0, 2}, axis_block{2, 3}};
  partition const groups = blocks_of(shape, blocks);
  REQUIRE(groups.group_count() == 3 * 3 * 3);
  std::vector<float> x(105), y(105), grad(105), before(27), after(27);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = std::sin(0.7f * static_cast<float>(i));
    y[i] = std::cos(0.4f * static_cast<float>(i));
    grad[i] = std::sin(1.9f * static_cast<float>(i));
  }
  for (std::size_t g = 0; g < before.size(); ++g) {
    before[g] = 0.4f + 0.05f * static_cast<float>(g);
    after[g] = 1.5f - 0.04f * static_cast<float>(g);
  }
  before[7] = 0;
  after[11] = 0;
  std::vector<double> by_before(27, 1.0), by_after(27, 1.0);  // what is there is added to
  add_scale_gradient(shape, groups, {448, -448, 448}, {before, after}, {x, y, grad}, by_before, by_after);
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b)
      for (int c = 0; c < 3; ++c) {
        auto const g = static_cast<std::size_t>((a * 3 + b) * 3 + c);
        double want_before = 1, want_after = 1;
        for (int i = 2 * a; i < std::min(2 * a + 2, 5); ++i)
          for (int k = 3 * c; k < std::min(3 * c + 3, 7); ++k) {
            auto const at = static_cast<std::size_t>((i * 3 + b) * 7 + k);
            if (before[g] == 0 || after[g] == 0) continue;
            want_after += double{grad[at]} * y[at] / after[g];
            if (std::abs(x[at]) < before[g]) want_before -= double{grad[at]} * x[at] * after[g] / before[g] / before[g];
          }
        CAPTURE(g);
        CHECK(by_before[g] == doctest::Approx(want_before).epsilon(1e-6));
        CHECK(by_after[g] == doctest::Approx(want_after).epsilon(1e-6));
      }
}

TEST_CASE("scale gradient: the range of each format, and LSQ's factor") {
  auto const range = [](int bits, bool narrow) {
    format f;
    f.element = integer_element(bits, false, narrow);
    return code_range_of(f);
  };
  CHECK(range(2, false).lowest == -2);
  CHECK(range(2, true).lowest == -1);
  CHECK(range(2, true).bound == 1);
  CHECK(range(8, false).highest == 127);
  CHECK(lsq_step_factor(100, 4) == doctest::Approx(16.0 / 20));  // bound² / √(elements · bound)
}
