// A lazy expression as an operand: it has no memory to quantize.
// expect: operand_host
#include "mixbit/adapters/eigen.hpp"
#include "mixbit/quantizer/apply.hpp"
#include "mixbit/reference/scalar.hpp"

using matrix = Eigen::MatrixXf;

matrix run(mixbit::quantizer_slots<mixbit::reference::scalar> const& slots, matrix const& x, matrix const& w) {
  auto const op = [](auto const& a, auto const& b) -> matrix { return a * b; };
#if defined(MIXBIT_COMPILE_PASS)
  return mixbit::apply(slots, matrix(x + x), w, op);
#else
  return mixbit::apply(slots, x + x, w, op);
#endif
}
