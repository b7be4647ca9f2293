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
  std::uint64_t nonfinite = 0;          ///< NaN and infinities that a statistic leaves out; NaN that `encode` meets
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
  float const* amax = nullptr;  ///< [group_count]; see amax_use
  format how;
  data_flags* flags = nullptr;         ///< may be null
  float const* tensor_amax = nullptr;  ///< [1], for two-level scales
  amax_use use = amax_use::given;
};

/// codes and scales of x as a file holds them. `scales` has group_count elements of how.scale_type. Double quantization
/// comes before: `amax` are then formats' scale_values, and a file holds the double_scales in place of `scales`.
struct encode_args {
  const_tensor_ref x;
  partition groups;
  float const* amax = nullptr;  ///< [group_count], null with amax_use::data; `given` and null casts without a scale
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

/// counts[g · bins + b] += the elements of group g whose magnitude lies in bin b of `bins` from 0 to top[g], by
/// formats::histogram_bin: what lies above `top` counts in the last bin, so that no mass is lost. NaN and infinities
/// are left out and counted in `flags`.
struct histogram_args {
  const_tensor_ref x;
  partition groups;
  float const* top = nullptr;       ///< [group_count], finite and not negative
  std::int64_t bins = 0;            ///< 1 to formats::most_bins
  std::uint64_t* counts = nullptr;  ///< [group_count · bins], read and written
  data_flags* flags = nullptr;      ///< may be null
};

/// What `sum` adds up.
enum class sum_of : std::uint8_t { values, magnitudes, squares };

/// sum[g] += Σ of x, |x| or x² over group g, in double, in the order of formats/summation.hpp. NaN and infinities are
/// left out and counted in `flags`.
struct sum_args {
  const_tensor_ref x;
  partition groups;
  sum_of what = sum_of::values;
  double* sum = nullptr;        ///< [group_count], read and written
  data_flags* flags = nullptr;  ///< may be null
};

/// low[g] = min(low[g], x), high[g] = max(high[g], x) over group g, with -0 below +0. NaN and infinities are left out
/// and counted in `flags`. The caller starts with +infinity and -infinity, which a group without finite values keeps.
struct extremes_args {
  const_tensor_ref x;
  partition groups;
  float* low = nullptr;         ///< [group_count], read and written
  float* high = nullptr;        ///< [group_count], read and written
  data_flags* flags = nullptr;  ///< may be null
};

/// y = T(x + value[g]), or T(x - value[g]); values are numbers of T. `y` may be `x` itself.
struct shift_args {
  const_tensor_ref x;
  tensor_ref y;
  partition groups;
  float const* value = nullptr;  ///< [group_count]
  bool subtract = false;
};

/// y = T(H x · block^-½) for each block along the last axis, H the Walsh-Hadamard matrix in natural order: float32
/// butterflies (a + b, a - b) of distance 1, 2, 4, … block/2, then one product. Its own inverse. `y` may be `x` itself.
struct hadamard_args {
  const_tensor_ref x;
  tensor_ref y;
  std::int64_t block = 1;  ///< a power of two up to formats::largest_hadamard that divides the last axis
};

}  // namespace mixbit
