#include "mixbit/quantizer/describe.hpp"

#include <doctest/doctest.h>

using namespace mixbit;

TEST_CASE("groupings as text") {
  using kind = grouping_scheme::kind;
  CHECK(describe(grouping_scheme{}) == "per tensor");
  CHECK(describe(grouping_scheme{kind::axes, {0, -1}, {}}) == "axis 0,-1");
  CHECK(describe(grouping_scheme{kind::blocks, {}, {{-2, 128}, {-1, std::nullopt}}}) == "blocks -2:128,-1:all");
}
