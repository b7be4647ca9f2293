// Matrix products on every core.
//
// The rows of a result are cut into blocks of a fixed size, each computed by Eigen on one thread. Eigen chooses its
// cache blocking, and with it the order of summation, by the shape and by the number of threads it may use; with fixed
// blocks and one thread each, the same bits come out whatever executor runs the blocks.
#pragma once

#ifndef EIGEN_DONT_PARALLELIZE
#define EIGEN_DONT_PARALLELIZE
#endif
#include <Eigen/Core>

#include <algorithm>
#include <cstdint>

#include "mixbit/core/executor.hpp"

namespace byte_lm {

using mixbit::executor_ref;  // runs blocks of rows: a framework would have its own pool here
using index = Eigen::Index;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// Any row-major matrix or map over somebody's memory, without a copy.
using matrix_view = Eigen::Ref<matrix const>;
/// Rows and columns of such a matrix, to write to.
using matrix_block = Eigen::Ref<matrix>;

/// Large enough for Eigen to come near its full speed, small enough to share 1024 rows out among many cores.
inline constexpr index rows_per_block = 128;

/// Calls f(first, count) for each block of rows.
template <class F>
void for_row_blocks(executor_ref executor, index rows, F const& f, index block = rows_per_block) {
  executor.parallel_for((rows + block - 1) / block, [&](std::int64_t i) {
    index const first = i * block;
    f(first, std::min(block, rows - first));
  });
}

// One product of each kind on the calling thread, for operands of one type: for another type Eigen's products would be
// compiled again. c overlaps neither a nor b.

/// c = a · bᵀ; a [m,k], b [n,k], c [m,n].
inline void multiply_transposed(matrix_view const& a, matrix_view const& b, matrix_block c) {
  c.noalias() = a * b.transpose();
}

/// c = a · b; a [m,k], b [k,n], c [m,n].
inline void multiply(matrix_view const& a, matrix_view const& b, matrix_block c) { c.noalias() = a * b; }

/// c += aᵀ · b; a [k,m], b [k,n], c [m,n].
inline void add_transposed_multiply(matrix_view const& a, matrix_view const& b, matrix_block c) {
  c.noalias() += a.transpose() * b;
}

/// a [m,k] · bᵀ, b [n,k]: what a linear layer computes with weights [out, in].
inline matrix times_transposed(executor_ref executor, matrix_view const& a, matrix_view const& b) {
  matrix c(a.rows(), b.rows());
  for_row_blocks(executor, c.rows(), [&](index first, index count) {
    multiply_transposed(a.middleRows(first, count), b, c.middleRows(first, count));
  });
  return c;
}

/// a [m,k] · b [k,n].
inline matrix times(executor_ref executor, matrix_view const& a, matrix_view const& b) {
  matrix c(a.rows(), b.cols());
  for_row_blocks(executor, c.rows(), [&](index first, index count) {
    multiply(a.middleRows(first, count), b, c.middleRows(first, count));
  });
  return c;
}

/// c [m,n] += aᵀ · b, a [k,m], b [k,n]. Split over the rows of c, so that no sum over k is cut.
inline void add_transposed_times(executor_ref executor, matrix_view const& a, matrix_view const& b, matrix& c) {
  auto const add = [&](index first, index count) {
    add_transposed_multiply(a.middleCols(first, count), b, c.middleRows(first, count));
  };
  for_row_blocks(executor, c.rows(), add, rows_per_block / 2);
}

}  // namespace byte_lm
