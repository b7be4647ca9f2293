// The argument of every kernel in kernels.inc, one struct each. All pointers are in the backend's memory; tensors of
// one call have the same shape; `groups` fits that shape. Entry points have checked all of it: kernels only assert.
#pragma once

#include <cstdint>

#include "mixbit/core/format.hpp"
#include "mixbit/core/partition.hpp"
#include "mixbit/core/tensor_view.hpp"

namespace mixbit {

/// What a kernel saw in the data and could not answer with an exception.
struct data_flags {
  std::uint64_t nonfinite = 0;          ///< NaN and infinities met while calibrating
  std::uint64_t negative_unsigned = 0;  ///< negative values met by an unsigned format
};

/// amax[g] = max(amax[g], max |x| over group g). NaN and infinities are left out and counted in `flags`.
struct amax_args {
  const_tensor_ref x;
  partition groups;
  float* amax = nullptr;        ///< [group_count], read and written
  data_flags* flags = nullptr;  ///< may be null
};

/// Where a kernel takes the amax of its groups from.
enum class amax_use : std::uint8_t {
  given,  ///< the array; null casts without a scale (minifloats with scale_rule::ratio only)
  data    ///< x itself, in the same pass; groups then lie along one axis (`lines_of`)
};

/// y = Q(x): quantized and back, in x's type. `y` may be `x` itself.
struct fake_quantize_args {
  const_tensor_ref x;
  tensor_ref y;
  partition groups;
  float const* amax = nullptr;  ///< [group_count]
  format how;
  data_flags* flags = nullptr;         ///< may be null
  float const* tensor_amax = nullptr;  ///< [1], for two-level scales
  amax_use use = amax_use::given;
};

/// codes and scales of x as a file holds them. `scales` has group_count elements of how.scale_type.
struct encode_args {
  const_tensor_ref x;
  partition groups;
  float const* amax = nullptr;
  format how;
  std::uint8_t* codes = nullptr;  ///< [storage_size(...).payload] bytes
  void* scales = nullptr;
  data_flags* flags = nullptr;
  float const* tensor_amax = nullptr;  ///< [1], for two-level scales
  float* tensor_scale = nullptr;       ///< [1], written for two-level scales
  amax_use use = amax_use::given;      ///< data: only for scales that are no ratio (MX, NVFP4)
};

/// y from codes and scales. Under policy `stored` equal to fake_quantize bit for bit.
struct decode_args {
  std::uint8_t const* codes = nullptr;
  void const* scales = nullptr;
  partition groups;
  format how;
  tensor_ref y;
  float const* tensor_scale = nullptr;  ///< [1], for two-level scales
};

/// grad = 0 where |x| > amax of its group: the clipped straight-through estimator. In place.
struct backward_mask_args {
  const_tensor_ref x;
  tensor_ref grad;
  partition groups;
  float const* amax = nullptr;
};

/// y = T(a - b).
struct subtract_args {
  const_tensor_ref a, b;
  tensor_ref y;
};

/// *sum += Σ clamp(grad · difference, ±1e10)², added in an order that depends on shape and strides alone.
struct gradient_score_args {
  const_tensor_ref grad, difference;
  double* sum = nullptr;
};

/// y = T(x · scale[i mod period]) where i is the index along `axis`. `y` may be `x` itself.
struct scale_channels_args {
  const_tensor_ref x;
  tensor_ref y;
  int axis = 0;
  std::int64_t period = 0;
  float const* scale = nullptr;  ///< [period]
};

}  // namespace mixbit
