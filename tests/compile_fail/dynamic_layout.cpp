// An xtensor whose layout is chosen at run time: its strides may be any, and the adapter reads the type's alone.
// expect: an xtensor host needs a static layout
#include "mixbit/adapters/xtensor.hpp"

#if defined(MIXBIT_COMPILE_PASS)
constexpr auto chosen = xt::layout_type::column_major;
#else
constexpr auto chosen = xt::layout_type::dynamic;
#endif

mixbit::const_tensor_ref view(xt::xarray<float, chosen> const& x) {
  return mixbit::tensor_traits<xt::xarray<float, chosen>>::view(x);
}
