#include "mixbit/core/arithmetic.hpp"

#include <cfenv>
#include <string>

#include <doctest/doctest.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

using namespace mixbit;

TEST_CASE("arithmetic: this build computes as the rules need it") {
  CHECK(std::string{arithmetic_fault()} == "");
  CHECK_NOTHROW(check_arithmetic());
}

TEST_CASE("arithmetic: a rounding mode other than to nearest is found") {
  for (int const mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    std::string const fault{arithmetic_fault()};
    std::fesetround(FE_TONEAREST);
    CHECK(fault == "the rounding mode is not to nearest");
  }
}

#if defined(__SSE2__)
TEST_CASE("arithmetic: flush-to-zero and denormals-are-zero are found, and refused by name") {
  unsigned const saved = _mm_getcsr();
  for (unsigned const bit : {0x8000u, 0x0040u}) {
    _mm_setcsr(saved | bit);
    std::string const fault{arithmetic_fault()};
    _mm_setcsr(saved);
    CHECK(fault == "subnormal numbers are flushed to zero");
  }
  _mm_setcsr(saved | 0x8000u);
  bool refused = false;
  try {
    check_arithmetic();
  } catch (error const& e) {
    refused = e.id() == error_id::arithmetic_mode;
  }
  _mm_setcsr(saved);
  CHECK(refused);
}
#endif
