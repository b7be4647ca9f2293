#include "kernels/simd_targets.hpp"
#include "kernels/view_tests.hpp"

using namespace kernel_tests;

TEST_CASE("reference::scalar: views that run backwards, that repeat a row, and of six axes") {
  odd_views_agree<reference::scalar>();
}

TEST_CASE("reference::simd: views that run backwards, that repeat a row, and of six axes") {
  on_every_instruction_set([] { odd_views_agree<reference::simd>(); });
}
