// The normalized Walsh-Hadamard rotation: which blocks, and by what they are scaled. The butterflies are the kernels'
// (core/kernel_args.hpp). ModelOpt's normalized_hadamard_transform is the model; it calls Dao-AILab's
// fast_hadamard_transform, which computes in float32, in this order, and rounds once.
#pragma once

#include <cstdint>

#include "mixbit/core/fp.hpp"

namespace mixbit::formats {

/// The widest block: fast_hadamard_transform's own limit, and 128 KB of float32 in a kernel's fast memory, which some
/// devices do not have (docs/cuda.md, Limits).
inline constexpr std::int64_t largest_hadamard = 32768;

/// The largest power of two that divides a positive width.
MIXBIT_HD constexpr std::int64_t power_of_two_divisor(std::int64_t width) { return width & -width; }

/// float32(block^-½) for a power of two.
MIXBIT_HD constexpr float hadamard_scale(std::int64_t block) {
  float scale = 1.0f;
  for (; block >= 4; block /= 4) scale *= 0.5f;
  return block == 2 ? scale * 0x1.6a09e6p-1f : scale;  // the nearest float32 to the root of a half
}

}  // namespace mixbit::formats
