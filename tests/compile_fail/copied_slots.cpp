// Copying slots, as a copied layer would: two layers would share one calibration.
// expect: use of deleted function|call to (implicitly-)?deleted (copy )?constructor
#include <utility>

#include "mixbit/quantizer/slots.hpp"
#include "mixbit/reference/scalar.hpp"

struct layer {
  mixbit::quantizer_slots<mixbit::reference::scalar> slots;
};

layer duplicate(layer& from) {
#if defined(MIXBIT_COMPILE_PASS)
  return std::move(from);
#else
  return from;
#endif
}
