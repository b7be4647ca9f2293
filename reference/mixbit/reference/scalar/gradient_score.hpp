// *sum += Σ clamp(grad · difference, ±1e10)²: double partial sums of fixed pieces, added in fixed order.
//
// Within a piece 16 lanes are summed apart, so that the order is the same however wide the compiler's vectors are. A
// product of two float32 is clamped in float32; its square is exact in double.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/rounding.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

struct score_lanes {
  static constexpr std::int64_t count = 16;
  double sum[count]{};

  template <class T>
  void add(int lane, T g, T d) {
    double const v = formats::clamp(fp::mul(to_float(g), to_float(d)), -1e10f, 1e10f);
    sum[lane] += v * v;
  }
  double total() const {
    double t = 0;
    for (double const s : sum) t += s;
    return t;
  }
};

template <class T>
void score_row(score_lanes& lanes, T const* g, T const* d, std::array<std::int64_t, 2> const& stride, std::int64_t n) {
  constexpr std::int64_t width = score_lanes::count;
  score_lanes local = lanes;
  std::int64_t i = 0;
  if (stride[0] == 1 && stride[1] == 1) {
    for (; i + width <= n; i += width)
      for (int k = 0; k < width; ++k) local.add(k, g[i + k], d[i + k]);
  }
  for (; i < n; ++i) local.add(static_cast<int>(i % width), g[i * stride[0]], d[i * stride[1]]);
  lanes = local;
}

inline void gradient_score(executor_ref const& threads, gradient_score_args const& a) {
  assert(a.grad.same_shape(a.difference) && a.grad.type == a.difference.type);
  loop_nest<2> const nest = score_nest(a);
  double partial[2 * score_piece_count + 2];
  assert(nest.pieces() <= 2 * score_piece_count + 2);
  visit_compute(a.grad.type, [&]<class T>(T) {
    for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
      score_lanes lanes;
      nest.rows_of(piece, [&](segment<2> const& s) {
        score_row(lanes, a.grad.as<T>() + s.offset[0], a.difference.as<T>() + s.offset[1], nest.inner().stride,
                  s.length);
      });
      partial[piece] = lanes.total();
    });
  });
  double total = 0;
  for (std::int64_t p = 0; p < nest.pieces(); ++p) total += partial[p];
  *a.sum += total;
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
