#include "mixbit/quantizer/tensor_quantizer.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "mixbit/reference/scalar.hpp"

using namespace mixbit;
using cpu = reference::scalar;

TEST_CASE("tensor_quantizer: what is adopted is the running max and the count of what was left out") {
  cpu device;
  using quantizer = tensor_quantizer<cpu>;
  quantizer seeing{"a", {}, policy::stored}, adopting{"b", {}, policy::stored}, set{"c", {}, policy::stored};
  std::vector<float> const x{1.0f, -3.0f, std::numeric_limits<float>::quiet_NaN(),
                             -std::numeric_limits<float>::infinity()};
  auto const view = dense_view(x.data(), {4});
  seeing.observe(device, view);
  set.set_amax(device, per_tensor(view), {9.0f});
  for (auto* q : {&adopting, &set}) {
    CHECK(q->nonfinite(device) == 0);
    q->adopt(device, seeing);
    CHECK(q->amax(device) == std::vector<float>{3.0f});
    CHECK(q->nonfinite(device) == 2);
  }
}
