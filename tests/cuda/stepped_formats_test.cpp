// The CUDA kernels, stepped through on the CPU, = reference::scalar, bit for bit.
#include "cuda/format_cases.hpp"
#include "cuda/stepping.hpp"

using namespace cuda_tests;

TEST_CASE("stepped CUDA kernels: formats with a ratio scale") { ratio_formats_agree<stepped>(); }
TEST_CASE("stepped CUDA kernels: block formats") { block_formats_agree<stepped>(); }
TEST_CASE("stepped CUDA kernels: every way to divide a tensor") { partitions_agree<stepped>(); }
TEST_CASE("stepped CUDA kernels: rows that a whole block of threads shares") { long_rows_agree<stepped>(); }
