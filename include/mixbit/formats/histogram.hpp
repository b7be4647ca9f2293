// The bins of a histogram of magnitudes, as calibrators use them (torch.histc; ModelOpt's HistogramCalibrator).
#pragma once

#include <cstdint>

#include "mixbit/core/fp.hpp"

namespace mixbit::formats {

/// Bins up to which their number is exact in float32.
inline constexpr std::int64_t most_bins = std::int64_t{1} << 24;

/// The bin of a finite magnitude among `bins` from 0 to `top`: trunc(float32(magnitude · bins) / top). `top` itself,
/// and what lies above it, is in the last bin; a top of 0 has everything in bin 0.
MIXBIT_HD constexpr std::int32_t histogram_bin(float magnitude, float bins, float top) {
  float const place = fp::div(fp::mul(magnitude, bins), top);
  float const inside = place < bins ? place : bins - 1.0f;
  return static_cast<std::int32_t>(top > 0.0f ? inside : 0.0f);
}

}  // namespace mixbit::formats
