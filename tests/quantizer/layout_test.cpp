#include "mixbit/quantizer/layout.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("axis_order: more axes than a tensor has are refused, and do not overflow") {
  constexpr axis_order most{5, 4, 3, 2, 1, 0};
  CHECK(most.rank == max_rank);
  CHECK(says(error_text(error_id::tensor_layout, [] { axis_order{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; }), "10 axes", "6"));
}
