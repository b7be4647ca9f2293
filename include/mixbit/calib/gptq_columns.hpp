// GPTQ's way through a weight's columns: each is quantized with what the errors of those before it call for.
//
// With U the upper Cholesky factor of H⁻¹, column j is q_j = Q(w_j), e_j = (w_j - q_j) / U_jj, and w_k -= e_j U_jk for
// every k > j. With v the weight as it came that is v - q = e U, so e = (v - q) R, where R = U⁻¹ is upper triangular
// and R Rᵀ = H; and the w_k that is quantized is v_k + Σ_{j<k} (v_j - q_j) R_jk / R_kk. So neither the inverse of H nor
// that of a triangle is formed: one Cholesky factor of H itself, from the last column up.
//
// Within a block of columns that is done column by column, on pieces of rows that stay in cache. What a range of
// columns does to those behind it is one product, and ranges are halved down to blocks, so that most of it is large
// products. Rows do not depend on each other, so pieces of them run on the threads of `linalg`, cut by shape: the bits
// do not depend on how many there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "mixbit/core/function_ref.hpp"
#include "mixbit/core/linalg.hpp"

namespace mixbit {

/// q[i] = Q(x[i]) for n rows of one column, the first of which is `row`. Several threads may call it, for other rows.
using column_quantizer =
    function_ref<void(std::int64_t column, std::int64_t row, std::int64_t n, float const* x, float* q)>;

namespace detail {

inline constexpr std::int64_t gptq_rows = 64;    // a piece: with a block of 128 columns twice 32 KiB
inline constexpr std::int64_t gptq_slab = 4096;  // rows whose differences are kept, of all columns

/// One piece of rows through one block of columns. `moved` holds what the columns before the block come to in each of
/// its columns, Σ (v_j - q_j) R_jk, and then v_k - q_k.
class gptq_piece {
 public:
  gptq_piece(matrix_ref<float> w, matrix_ref<float const> r, matrix_ref<float> moved, std::int64_t row)
      : w_{w.block(row, 0, std::min(gptq_rows, w.rows - row), w.columns)},
        r_{r},
        moved_{moved.block(row, 0, w_.rows, w.columns)},
        values_(static_cast<std::size_t>(w.columns * gptq_rows)),
        sums_(values_.size()) {}

  /// `names` says which column of the weight each is, `row` which of its rows the first.
  void run(std::int64_t row, std::span<std::int64_t const> names, column_quantizer const& quantize) {
    float x[gptq_rows] = {};
    turn(w_, values_);
    turn(moved_, sums_);
    for (std::int64_t k = 0; k < w_.columns; ++k) {
      float* const value = values_.data() + k * gptq_rows;
      float* const sum = sums_.data() + k * gptq_rows;
      float const diagonal = r_(k, k);
      for (std::int64_t i = 0; i < gptq_rows; ++i) x[i] = value[i] + sum[i] / diagonal, sum[i] = value[i];
      quantize(names[static_cast<std::size_t>(k)], row, w_.rows, x, value);
      for (std::int64_t i = 0; i < gptq_rows; ++i) sum[i] -= value[i];
      for (std::int64_t later = k + 1; later < w_.columns; ++later)
        spread(sum, r_(k, later), sums_.data() + later * gptq_rows);
    }
    turn_back(values_, w_);
    turn_back(sums_, moved_);
  }

 private:
  using columns = std::vector<float>;  ///< the block, columns one behind the other; rows that a short piece lacks are 0

  static void turn(matrix_ref<float const> from, columns& to) {
    for (std::int64_t i = 0; i < from.rows; ++i)
      for (std::int64_t k = 0; k < from.columns; ++k) to[static_cast<std::size_t>(k * gptq_rows + i)] = from(i, k);
  }
  static void turn_back(columns const& from, matrix_ref<float> to) {
    for (std::int64_t i = 0; i < to.rows; ++i)
      for (std::int64_t k = 0; k < to.columns; ++k) to(i, k) = from[static_cast<std::size_t>(k * gptq_rows + i)];
  }
  static void spread(float const* __restrict difference, float by, float* __restrict later) {
    for (std::int64_t i = 0; i < gptq_rows; ++i) later[i] += difference[i] * by;  // all of a piece: a fixed length
  }

  matrix_ref<float> w_;
  matrix_ref<float const> r_;
  matrix_ref<float> moved_;
  columns values_, sums_;
};

/// A slab of rows through all columns.
struct gptq_rows_sweep {
  any_linalg const& l;
  matrix_ref<float> w;
  matrix_ref<float const> r;
  matrix_ref<float> moved;  ///< zeros at first
  std::int64_t first_row;   ///< of the weight
  std::int64_t block;
  std::span<std::int64_t const> names;
  column_quantizer const& quantize;

  /// Columns [first, end), behind all that come before them.
  void run(std::int64_t first, std::int64_t end) const {
    if (end - first <= block) return one_by_one(first, end);
    std::int64_t const blocks = (end - first + block - 1) / block, middle = first + blocks / 2 * block;
    run(first, middle);
    l.multiply_add(1.0f, moved.block(0, first, w.rows, middle - first),
                   r.block(first, middle, middle - first, end - middle), factor::as_is,
                   moved.block(0, middle, w.rows, end - middle));
    run(middle, end);
  }

 private:
  void one_by_one(std::int64_t first, std::int64_t end) const {
    std::int64_t const width = end - first;
    auto const own = names.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(width));
    l.threads().parallel_for((w.rows + gptq_rows - 1) / gptq_rows, [&](std::int64_t piece) {
      std::int64_t const row = piece * gptq_rows;
      gptq_piece{w.block(0, first, w.rows, width), r.block(first, first, width, width),
                 moved.block(0, first, w.rows, width), row}
          .run(first_row + row, own, quantize);
    });
  }
};

/// Quantizes all columns, from left to right, where R Rᵀ = H. `names` says which column of the weight each is. Borrows
/// as much memory as gptq_slab rows of the weight in float32.
inline void gptq_columns(any_linalg const& l, matrix_ref<float> w, matrix_ref<float const> r, std::int64_t block,
                         std::span<std::int64_t const> names, column_quantizer const& quantize) {
  std::vector<float> moved;
  for (std::int64_t row = 0; row < w.rows; row += gptq_slab) {
    std::int64_t const rows = std::min(gptq_slab, w.rows - row);
    moved.assign(static_cast<std::size_t>(rows * w.columns), 0.0f);
    auto const sums = dense_matrix(moved.data(), rows, w.columns);
    gptq_rows_sweep{l, w.block(row, 0, rows, w.columns), r, sums, row, block, names, quantize}.run(0, w.columns);
  }
}

}  // namespace detail

}  // namespace mixbit
