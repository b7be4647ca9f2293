// y = T(H x · block^-½) for each block of the last axis, in shared memory: a tile is one block, or several that are
// short. Each butterfly is the same sum and difference whoever computes it, so bits do not depend on the tile.
#pragma once

#include "mixbit/cuda/kernels/lines.hpp"
#include "mixbit/formats/hadamard.hpp"

namespace mixbit::cuda {

struct rotate_lines {
  static constexpr std::int64_t least_tile = 2048;

  lines<2> walk;
  const_tensor_data x;
  tensor_data y;
  int log2_block = 0;
  std::int64_t tile = least_tile;  ///< elements: a multiple of the block

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    auto* const v = static_cast<float*>(at.shared());
    std::int64_t const block = std::int64_t{1} << log2_block, together = tile >> log2_block;
    for_stretches(at, walk.starts.units(), together, [&](std::int64_t first) {
      std::int64_t const left = walk.starts.units() - first, lines_here = left < together ? left : together;
      at.each([&](int thread) { load(at, v, first, lines_here, thread); });
      at.wait();
      for (int d = 0; d < log2_block; ++d) {
        at.each([&](int thread) {
          for (std::int64_t p = thread; p < lines_here * block / 2; p += at.threads()) butterfly(v, p, d);
        });
        at.wait();
      }
      at.each([&](int thread) { store(at, v, first, lines_here, thread); });
      at.wait();
    });
  }

 private:
  MIXBIT_HD static void butterfly(float* v, std::int64_t pair, int log2_distance) {
    std::int64_t const distance = std::int64_t{1} << log2_distance, in = pair & (distance - 1);
    std::int64_t const i = ((pair - in) << 1) + in;
    float const a = v[i], b = v[i + distance];
    v[i] = a + b;
    v[i + distance] = a - b;
  }

  /// Octets of a line; a shorter line is one.
  MIXBIT_HD int octets_shift() const { return log2_block > 3 ? log2_block - 3 : 0; }

  template <class Context>
  MIXBIT_HD void load(Context& at, float* v, std::int64_t first, std::int64_t count, int thread) const {
    for (std::int64_t o = thread; o < count << octets_shift(); o += at.threads()) {
      std::int64_t const line_number = o >> octets_shift(), in = o - (line_number << octets_shift());
      auto const l = walk.locate(first + line_number);
      float own[octet];
      int const n = walk.count(l, in);
      load_octet(x.type, x.data, l.offset[0] + in * octet * walk.stride[0], walk.stride[0], n, own);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i)
        if (i < n) v[(line_number << log2_block) + in * octet + i] = own[i];
    }
  }

  template <class Context>
  MIXBIT_HD void store(Context& at, float const* v, std::int64_t first, std::int64_t count, int thread) const {
    float const scale = formats::hadamard_scale(std::int64_t{1} << log2_block);
    for (std::int64_t o = thread; o < count << octets_shift(); o += at.threads()) {
      std::int64_t const line_number = o >> octets_shift(), in = o - (line_number << octets_shift());
      auto const l = walk.locate(first + line_number);
      float own[octet];
      int const n = walk.count(l, in);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i)
        own[i] = i < n ? fp::mul(v[(line_number << log2_block) + in * octet + i], scale) : 0.0f;
      store_octet(y.type, y.data, l.offset[1] + in * octet * walk.stride[1], walk.stride[1], n, own);
    }
  }
};

}  // namespace mixbit::cuda
