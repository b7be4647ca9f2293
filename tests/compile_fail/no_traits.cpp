// A tensor type that the library was not told about.
// expect: operand_host
#include "mixbit/quantizer/apply.hpp"
#include "mixbit/reference/scalar.hpp"

struct my_tensor {
  float values[4];
};

#if defined(MIXBIT_COMPILE_PASS)
template <>
struct mixbit::tensor_traits<my_tensor> {
  static const_tensor_ref view(my_tensor const& t) { return dense_view(t.values, {2, 2}); }
  static tensor_ref view(my_tensor& t) { return dense_view(t.values, {2, 2}); }
  static my_tensor like(my_tensor const&) { return {}; }
};
#endif

my_tensor run(mixbit::quantizer_slots<mixbit::reference::scalar> const& slots, my_tensor const& x, my_tensor const& w) {
  return mixbit::apply(slots, x, w, [](my_tensor const& a, my_tensor const&) { return a; });
}
