#include "mixbit/quantizer/tensor_quantizer.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "mixbit/reference/scalar.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using cpu = reference::scalar;

TEST_CASE("tensor_quantizer: calibrated NVFP4 blocks take the tensor's amax from theirs") {
  cpu device;
  arena scratch;
  quantizer_attribute_config a;
  a.num_bits = {2, 1};
  a.block_sizes = block_config{{{-1, 4}}, quantizer_type::static_type, bit_spec{4, 3}};
  tensor_quantizer<cpu> q{"w", a, policy::stored};
  std::vector<float> const x{0.1f, -0.2f, 0.3f, 0.4f, 5.0f, -6.0f, 1.0f, 2.0f};
  std::vector<float> y(8), expected(8);
  auto const view = dense_view(x.data(), {2, 4});
  q.observe(device, scratch, view);
  CHECK(q.amax(device) == std::vector<float>{0.4f, 6.0f});
  q.quantize(device, scratch, view, dense_view(y.data(), {2, 4}));
  float const amax[] = {0.4f, 6.0f}, tensor_amax = 6.0f;
  device.fake_quantize({view, dense_view(expected.data(), {2, 4}), q.grouping(view), amax, q.numerics().how, nullptr,
                        &tensor_amax});
  CHECK(y == expected);
}

TEST_CASE("tensor_quantizer: as many groups in another shape are refused") {
  cpu device;
  arena scratch;
  quantizer_attribute_config a;
  a.num_bits = 4;
  a.block_sizes = block_config{{{-1, 2}, {-2, 2}}};
  tensor_quantizer<cpu> q{"w", a, policy::stored};
  std::vector<float> const x(64, 1.0f);
  q.observe(device, scratch, dense_view(x.data(), {16, 4}));
  auto const other = [&] { q.observe(device, scratch, dense_view(x.data(), {4, 16})); };
  CHECK_MESSAGE(test::says(test::error_text(error_id::tensor_shape, other), "w: ", "8x2", "2x8"), "");
}

TEST_CASE("tensor_quantizer: what is adopted is the running max and the count of what was left out") {
  cpu device;
  arena scratch;
  using quantizer = tensor_quantizer<cpu>;
  quantizer seeing{"a", {}, policy::stored}, adopting{"b", {}, policy::stored}, set{"c", {}, policy::stored};
  std::vector<float> const x{1.0f, -3.0f, std::numeric_limits<float>::quiet_NaN(),
                             -std::numeric_limits<float>::infinity()};
  auto const view = dense_view(x.data(), {4});
  seeing.observe(device, scratch, view);
  set.set_amax(device, per_tensor(view), {9.0f});
  for (auto* q : {&adopting, &set}) {
    CHECK(q->nonfinite(device) == 0);
    q->adopt(device, seeing);
    CHECK(q->amax(device) == std::vector<float>{3.0f});
    CHECK(q->nonfinite(device) == 2);
  }
}
