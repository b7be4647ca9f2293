// What ModelOpt computed (tests/golden), held against the CUDA kernels, stepped through on the CPU: the suites of
// kernels that mixbit_goldens runs on the CPU's backends, and as many comparisons. These kernels take every case there
// is; the one that has to be refused, a negative value under an unsigned format, is refused by the flag that they set.
#include <filesystem>
#include <string>

#include "cuda/stepping.hpp"
#include "golden_suites/blocks.hpp"
#include "golden_suites/fake_quant.hpp"
#include "golden_suites/pack.hpp"
#include "mixbit/reference/scalar.hpp"

using namespace cuda_tests;

namespace {

/// Runs a suite on the stepped kernels and on reference::scalar: nothing fails, and nothing is left out of the one that
/// the other compares.
template <class Suite>
void compare_goldens(Suite suite) {
  std::filesystem::path const dir = MIXBIT_GOLDEN_DIR;
  suite_result const found = suite(dir, stepped{});
  suite_result const expected = suite(dir, reference::scalar{});
  if (found.failed != 0)
    for (std::string const& line : found.messages) FAIL_CHECK(line);
  CHECK(found.passed > 0);
  CHECK(found.passed == expected.passed);
  CHECK(found.skipped == expected.skipped);
}

}  // namespace

TEST_CASE("stepped CUDA kernels: ModelOpt's fake quantization of tests/golden") {
  compare_goldens([](auto const& dir, auto const& on) { return run_fake_quant(dir, on); });
}
TEST_CASE("stepped CUDA kernels: ModelOpt's MX and NVFP4 blocks of tests/golden") {
  compare_goldens([](auto const& dir, auto const& on) { return run_blocks(dir, on); });
}
TEST_CASE("stepped CUDA kernels: ModelOpt's packed tensors of tests/golden") {
  compare_goldens([](auto const& dir, auto const& on) { return run_pack(dir, on); });
}
