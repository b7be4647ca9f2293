// How kernels are launched, as data for each compute capability: a callable from the capability to a policy, so that
// device code asks it of the architecture it is compiled for and the host of the device at hand. A kernel works with
// any answer; only its speed differs, so the two need not agree.
//
// No figure here has been measured yet. They follow from Little's law for the datasheet's bandwidth: about 600 ns at
// 4.8 TB/s over 132 multiprocessors are 22 KB in flight on each; 8 blocks of 256 threads with two octets each have 64.
#pragma once

namespace mixbit::cuda {

struct tuning {
  int threads = 256;               ///< of a block: a power of two from 32 to largest_block
  int octets = 2;                  ///< that a thread loads before it computes: 1, 2, 4 or 8
  int blocks_a_multiprocessor = 8; ///< a grid has no more; blocks then stride
};

inline constexpr int largest_block = 256;

/// `capability` is 10 · major + minor, as __CUDA_ARCH__ / 10.
constexpr tuning tuning_for(int capability) {
  if (capability >= 120) return {256, 1, 6};  // GDDR7: less bandwidth a multiprocessor, 1536 threads on each
  if (capability >= 90) return {256, 2, 8};   // HBM3e: most bytes in flight
  if (capability >= 86 && capability != 87) return {256, 1, 6};
  return {256, 2, 8};
}

}  // namespace mixbit::cuda
