// *sum += Σ clamp(grad · difference, ±1e10)² in the order that all backends share: core/loop_nest.hpp cuts the tensors
// into pieces, a piece is summed in 16 lanes by the index in the row, then lane after lane, then piece after piece.
#pragma once

#include "mixbit/cuda/kernels/sweep.hpp"
#include "mixbit/formats/rounding.hpp"

namespace mixbit::cuda {

struct score_pieces {
  static constexpr int lanes = 16;
  nest<2> rows;  ///< a unit is what one piece has of one row
  const_tensor_data grad, difference;
  std::int64_t pieces = 0, rows_a_piece = 1, row_count = 0;
  divider cuts;     ///< pieces side by side in a row
  double* partial;  ///< [pieces]

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    int const together = at.threads() / lanes;
    for_stretches(at, pieces, together, [&](std::int64_t first) {
      typename Context::template per_thread<double> sum, total;
      at.each([&](int thread) {
        sum[thread] = first + thread / lanes < pieces ? lane_sum(first + thread / lanes, thread % lanes) : 0;
      });
      fold_lanes(at, sum, total, lanes);
      at.each([&](int thread) {
        if (thread % lanes == 0 && first + thread / lanes < pieces) partial[first + thread / lanes] = total[thread];
      });
    });
  }

 private:
  MIXBIT_HD double lane_sum(std::int64_t piece, int lane) const {
    std::int64_t const row = cuts.quotient(piece), cut = piece - row * cuts.divisor();
    std::int64_t const first = row * rows_a_piece;
    std::int64_t const end = first + rows_a_piece < row_count ? first + rows_a_piece : row_count;
    double sum = 0;
    for (std::int64_t r = first; r < end; ++r) add_row(rows.locate(r * cuts.divisor() + cut), lane, sum);
    return sum;
  }

  MIXBIT_HD void add_row(place<2> const& p, int lane, double& sum) const {
    std::int64_t i = lane;
    for (; i + (octet - 1) * lanes < p.count; i += octet * lanes) {  // loads first: several are in flight
      float g[octet], d[octet];
      MIXBIT_CUDA_UNROLL
      for (int k = 0; k < octet; ++k) {
        g[k] = load_one(grad.type, grad.data, p.offset[0] + (i + k * lanes) * rows.stride(0));
        d[k] = load_one(difference.type, difference.data, p.offset[1] + (i + k * lanes) * rows.stride(1));
      }
      MIXBIT_CUDA_UNROLL
      for (int k = 0; k < octet; ++k) add(g[k], d[k], sum);
    }
    for (; i < p.count; i += lanes)
      add(load_one(grad.type, grad.data, p.offset[0] + i * rows.stride(0)),
          load_one(difference.type, difference.data, p.offset[1] + i * rows.stride(1)), sum);
  }

  /// A product of float32 squared is exact in double, so contraction of this sum changes nothing.
  MIXBIT_HD static void add(float g, float d, double& sum) {
    double const v = formats::clamp(fp::mul(g, d), -1e10f, 1e10f);
    sum += v * v;
  }
};

/// One thread's work: a few hundred sums, whose order is their number's.
struct score_total {
  double const* partial;
  std::int64_t pieces;
  double* sum;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    at.each([&](int thread) {
      if (at.block() != 0 || thread != 0) return;
      double total = 0;
      for (std::int64_t p = 0; p < pieces; ++p) total += partial[p];
      *sum += total;
    });
  }
};

}  // namespace mixbit::cuda
