// y = T(H x · block^-½) for each block of the last axis.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/hadamard.hpp"
#include "mixbit/reference/scalar/blocks.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Butterflies of distance 1, 2, 4, … in place, then the scale.
struct butterflies : plain_rows {
  static void transform(float* v, std::int64_t block) {
    for (std::int64_t distance = 1; distance < block; distance *= 2)
      for (std::int64_t first = 0; first < block; first += 2 * distance)
        for (std::int64_t i = first; i < first + distance; ++i) {
          float const a = v[i], b = v[i + distance];
          v[i] = a + b;
          v[i + distance] = a - b;
        }
    float const scale = formats::hadamard_scale(block);
    for (std::int64_t i = 0; i < block; ++i) v[i] = fp::mul(v[i], scale);
  }
};

/// Blocks of the last axis as groups. Built by hand, because a kernel does not allocate.
inline partition rotated_blocks(hadamard_args const& a) {
  partition groups;
  groups.rank = a.x.rank;
  groups.groups = a.x.shape;
  groups.block[a.x.rank - 1] = a.block;
  groups.groups[a.x.rank - 1] = a.x.shape[a.x.rank - 1] / a.block;
  return groups;
}

/// The kernel over any way to load, transform and store a block.
template <class Rows>
void hadamard_by(executor_ref const& threads, hadamard_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type && a.x.rank > 0 && a.block > 0);
  assert(a.block <= formats::largest_hadamard && a.x.shape[a.x.rank - 1] % a.block == 0);
  line_walk<2>{{&a.x, &a.y}, rotated_blocks(a)}.visit(
      threads, [&](auto const& at, auto const& stride, std::int64_t length, std::int64_t) {
        float buffer[formats::largest_hadamard];
        float* const block = row_target(a.y, at[1], stride[1], buffer);
        float const* const row = Rows::row_of(a.x, at[0], stride[0], length, block);
        if (row != block) std::copy_n(row, length, block);
        Rows::transform(block, length);
        Rows::put_row(a.y, at[1], stride[1], length, block);
      });
}

inline void hadamard(executor_ref const& threads, hadamard_args const& a) { hadamard_by<butterflies>(threads, a); }

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
