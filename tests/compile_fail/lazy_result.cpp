// An op that returns a lazy Eigen expression: it would outlive the operands it refers to.
// expect: op must return a tensor that owns its elements
#include "mixbit/adapters/eigen.hpp"
#include "mixbit/quantizer/apply.hpp"
#include "mixbit/reference/scalar.hpp"

using matrix = Eigen::MatrixXf;

matrix run(mixbit::quantizer_slots<mixbit::reference::scalar> const& slots, matrix const& x, matrix const& w) {
#if defined(MIXBIT_COMPILE_PASS)
  return mixbit::apply(slots, x, w, [](auto const& a, auto const& b) -> matrix { return a * b; });
#else
  return mixbit::apply(slots, x, w, [](auto const& a, auto const& b) { return a * b; });
#endif
}
