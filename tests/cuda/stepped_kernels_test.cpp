// The CUDA kernels, stepped through on the CPU, in the tests of all kernels.
#include "cuda/stepping.hpp"
#include "kernels/kernel_tests.hpp"

using namespace kernel_tests;

#define MIXBIT_KERNEL(name) \
  TEST_CASE("stepped CUDA kernel " #name) { run_kernel_test<cuda_tests::stepped, kernel_##name>(); }
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

TEST_CASE("stepped CUDA sum: a warp takes all chunks of a group, where there are too many for the scratch memory") {
  std::int64_t const columns = 1048577, block = 524289;
  std::vector<bfloat16> const ones(columns, from_float<bfloat16>(1.0f));
  geometry g = dense_geometry(dtype::bf16, std::vector<std::int64_t>{17, columns});
  g.stride[0] = 0;  // the same row 17 times
  std::vector<axis_block> const halves{{-1, block}};
  partition const groups = blocks_of(g, halves);
  REQUIRE(groups.group_count() * formats::most_sum_chunks > cuda_tests::plan::scratch_sums);
  std::vector<double> found(static_cast<std::size_t>(groups.group_count())), expected;
  cuda_tests::stepped{}.sum({{g, ones.data()}, groups, sum_of::values, found.data(), nullptr});
  for (int row = 0; row < 17; ++row)
    for (std::int64_t const size : {block, columns - block}) expected.push_back(static_cast<double>(size));
  CHECK(found == expected);
}

TEST_CASE("stepped CUDA kernels: blocks have the threads of a device's at most, whatever the pool") {
  std::vector<float> const x(5000, 1.0f);
  geometry const g = dense_geometry(dtype::f32, std::vector<std::int64_t>{5000});
  thread_pool five{5};
  double found = 0;
  cuda_tests::stepped{five}.sum({{g, x.data()}, per_tensor(g), sum_of::values, &found, nullptr});
  CHECK(found == 5000.0);
}
