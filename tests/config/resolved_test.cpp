// Resolution against ModelOpt's, over four module trees.
#include <doctest/doctest.h>

#include "golden_suites/resolved.hpp"

TEST_CASE("39 presets and 15 other configs leave the quantizers of four models as ModelOpt leaves them") {
  suite_result const result = run_resolved(MIXBIT_GOLDEN_DIR);
  for (std::string const& message : result.messages) FAIL_CHECK(message);
  CHECK(result.passed == 4 * (39 + 15));
  CHECK(result.failed == 0);
}
