// apply_into by a host that records a tape: the tape would not learn of the quantized copies.
// expect: apply_into is not for hosts that record a tape
#include "mixbit/quantizer/apply.hpp"
#include "mixbit/reference/scalar.hpp"

struct tensor {
  float values[4];
};
struct view {
  float const* values;
};

template <>
struct mixbit::tensor_traits<tensor> {
  static const_tensor_ref view(tensor const& t) { return dense_view(t.values, {2, 2}); }
  static tensor_ref view(tensor& t) { return dense_view(t.values, {2, 2}); }
  static ::view wrap(const_tensor_ref t) { return {t.as<float>()}; }
#if !defined(MIXBIT_COMPILE_PASS)
  struct no_grad {};
#endif
};

void run(mixbit::quantizer_slots<mixbit::reference::scalar> const& slots, tensor const& x, tensor const& w, tensor& y) {
  mixbit::apply_into(slots, x, w, y, [](view, view, view) {});
}
