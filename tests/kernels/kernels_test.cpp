// reference::scalar in the tests of all kernels, and what is tested of it alone.
#include "mixbit/reference/scalar.hpp"
#include "kernels/kernel_tests.hpp"

using namespace kernel_tests;

#define MIXBIT_KERNEL(name) \
  TEST_CASE("reference::scalar " #name) { run_kernel_test<reference::scalar, kernel_##name>(); }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

TEST_CASE("negative values under an unsigned format and NaN in encode are counted, -0 is not negative") {
  tensor<float> x{make_geometry<float>({4, 50}, layout::row_major)}, y{x.g};
  for (std::int64_t i = 0; i < x.g.size(); ++i) x[i] = i % 10 == 3 ? -1.0f : i % 10 == 4 ? -0.0f : 2.0f;
  float const amax = 2;
  format const how{integer_element(4, true)};
  data_flags flags;
  reference::scalar cpu;
  cpu.fake_quantize({x.view(), y.ref(), per_tensor(x.g), &amax, how, &flags});
  CHECK(flags.negative_unsigned == 20);
  x[0] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::uint8_t> codes(200);
  float scale = 0;
  cpu.encode({x.view(), per_tensor(x.g), &amax, how, codes.data(), &scale, &flags});
  CHECK(flags.nonfinite == 1);
  CHECK(codes[0] == 0);
  CHECK(scale == 2.0f / 15.0f);
}

TEST_CASE("gradient_score: a row is summed in 16 lanes, what is left behind whole rounds too") {
  tensor<float> grad{make_geometry<float>({1003}, layout::row_major)}, difference{grad.g};
  fill(grad, 5);
  fill(difference, 6);
  double lanes[16] = {}, expected = 0, sum = 0;
  for (std::int64_t i = 0; i < grad.g.size(); ++i) {
    double const product = fp::mul(grad[i], difference[i]);
    lanes[i % 16] += product * product;
  }
  for (double const lane : lanes) expected += lane;
  reference::scalar{}.gradient_score({grad.view(), difference.view(), &sum});
  CHECK(sum == expected);
}

TEST_CASE("blocks longer than a piece of work are cut, and the pieces know their group") {
  for (layout const l : {layout::row_major, layout::column_major}) {
    tensor<float> x{make_geometry<float>({2, 90001}, l)}, y{x.g};
    fill(x, 7);
    std::vector<axis_block> const long_blocks{{-1, 40000}};
    partition const groups = blocks_of(x.g, long_blocks);
    auto const expected = amax_of(x, groups);
    std::vector<float> amax(expected.size(), 0.0f);
    reference::scalar cpu;
    cpu.amax({x.view(), groups, amax.data(), nullptr});
    CHECK(amax == expected);
    cpu.fake_quantize({x.view(), y.ref(), groups, amax.data(), {}, nullptr});
    CHECK((all_bits(y) == expected_fake(x, groups, amax, {})));
  }
}
