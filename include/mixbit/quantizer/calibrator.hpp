// What finds a quantizer's amax from the data that it is shown: the seam for calibrators, built-in or the user's own.
//
// "max" needs none of this: the quantizer keeps its running max itself. Another calibrator is made for a group of
// quantizers that see the same data (calib/calibrators.hpp), lives for the length of one calibration, and hands each of
// them its amax at the end.
#pragma once

#include <string>
#include <vector>

#include "mixbit/core/backend.hpp"
#include "mixbit/quantizer/numerics.hpp"

namespace mixbit {

template <backend B>
class calibrator {
 public:
  virtual ~calibrator() = default;

  /// One batch more: x as the cast will see it, and what of it shares an amax. Never a tensor without elements; always
  /// as many groups. `x` and what is taken from `scratch` are lent for the call. NaN and infinities are left out, and
  /// counted in `flags` (the backend's memory). What it keeps may not grow with the data.
  virtual void observe(B& device, arena& scratch, const_tensor_ref x, partition const& groups, data_flags* flags) = 0;

  /// The amax of each group in row-major order, finite and not negative, for a quantizer of those numerics; after the
  /// last batch. Called once for each quantizer that shares what was observed: they differ in their format.
  virtual std::vector<float> result(B& device, quantizer_numerics const& of) = 0;

  /// Does the result depend on the order of batches? Then one thread has to show them all.
  virtual bool order_matters() const { return true; }

  /// What a user should know of the last result, as a sentence without the quantizer's name; or nothing.
  virtual std::string note() const { return {}; }
};

}  // namespace mixbit
