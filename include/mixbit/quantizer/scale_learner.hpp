// What learns a quantizer's scale while a host trains: the seam between a quantizer and model/scale_training.hpp.
//
// It is there for the length of a training. The forward asks it for the cast, since a scale may be learned apart from
// the one that finds the codes; the backward shows it the gradient of what the cast gave, before any of it is masked.
#pragma once

#include "mixbit/core/arena.hpp"
#include "mixbit/core/backend.hpp"

namespace mixbit {

template <backend B>
class scale_learner {
 public:
  virtual ~scale_learner() = default;

  /// y = Q(x) as the learned scales have it; false where that is what the kernel makes of `a`, and nothing was done.
  virtual bool quantize(B& device, arena& scratch, fake_quantize_args const& a) = 0;

  /// The gradient of one call's cast: x is what was cast, y what came of it. All in the backend's memory, lent for the
  /// call.
  virtual void backward(B& device, const_tensor_ref x, const_tensor_ref y, const_tensor_ref grad_y) = 0;
};

}  // namespace mixbit
