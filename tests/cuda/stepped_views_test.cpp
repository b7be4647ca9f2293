#include "cuda/stepping.hpp"
#include "kernels/view_tests.hpp"

TEST_CASE("stepped CUDA kernels: views that run backwards, that repeat a row, and of six axes") {
  kernel_tests::odd_views_agree<cuda_tests::stepped>();
}
