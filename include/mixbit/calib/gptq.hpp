// GPTQ: quantizes a weight column by column and spreads each column's error over those that follow, by the inverse of
// the Hessian of the layer's squared output error (Frantar et al., 2023: "GPTQ", Algorithm 1; ModelOpt's order of
// operations, which is that of FP-Quant).
//
// H = 2/n Σ x xᵀ over the layer's inputs, damped, is replaced by its upper Cholesky factor, by which the columns are
// then gone through (calib/gptq_columns.hpp).
//
// Only the column's own values are quantized. Amaxes are those of the calibration before it and are never recomputed,
// so any order of columns leaves each with the scale of its group.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "mixbit/calib/gptq_columns.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/linalg.hpp"
#include "mixbit/core/order.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

struct gptq_options {
  double damping = 0.01;          ///< added to the diagonal of H, as a part of its mean
  std::int64_t block = 128;       ///< columns that are done one by one; errors reach all others by products
  bool activation_order = false;  ///< columns of large inputs first (by the diagonal of H), instead of left to right
};

/// What was done about a Hessian that GPTQ cannot use as it is.
struct gptq_outcome {
  double damping = 0;             ///< the part of the mean that was added; 0 where H was replaced by the identity
  std::int64_t dead_columns = 0;  ///< of the weight, all zero: they take no part
  std::vector<std::string> notes;
};

/// Σ x xᵀ of what a layer is shown, for one layer: 4 · columns² bytes.
class input_gram {
 public:
  explicit input_gram(std::int64_t columns)
      : columns_{columns}, sum_(static_cast<std::size_t>(columns * columns), 0.0f) {}

  std::int64_t tokens() const { return tokens_; }
  std::int64_t columns() const { return columns_; }
  void add(any_linalg const& l, matrix_ref<float const> x) {
    if (x.rows == 0) return;
    l.accumulate_gram(1.0f, x, dense_matrix(sum_.data(), columns_, columns_));
    tokens_ += x.rows;
  }
  /// H = 2/n Σ x xᵀ: its upper triangle. Ends the accumulation, whose memory it is.
  matrix_ref<float> hessian() {
    float const scale = tokens_ == 0 ? 0.0f : static_cast<float>(2.0 / static_cast<double>(tokens_));
    for (float& v : sum_) v *= scale;
    return dense_matrix(sum_.data(), columns_, columns_);
  }

 private:
  std::int64_t columns_, tokens_ = 0;
  std::vector<float> sum_;
};

namespace detail {

inline constexpr int gptq_raises = 3;  // of the damping, tenfold each

inline void require_gptq_input(matrix_ref<float const> w, matrix_ref<float const> h, gptq_options const& options) {
  if (h.rows != w.columns || h.columns != w.columns)
    fail(error_id::tensor_shape, "gptq: the Hessian of a weight of ", w.columns, " columns is ", h.rows, " x ",
         h.columns);
  if (options.block < 1) fail(error_id::config_value, "gptq: block is ", options.block, ", and must be at least 1");
  if (!(options.damping >= 0))
    fail(error_id::config_value, "gptq: damping is ", options.damping, ", and must not be negative");
}

/// Columns of the weight that are zero do not bear on others: their rows and columns of H are those of the identity.
inline std::int64_t detach_dead_columns(matrix_ref<float const> w, matrix_ref<float> h) {
  std::vector<char> alive(static_cast<std::size_t>(w.columns), 0);
  for (std::int64_t i = 0; i < w.rows; ++i)
    for (std::int64_t k = 0; k < w.columns; ++k) alive[static_cast<std::size_t>(k)] |= w(i, k) != 0.0f;
  std::int64_t dead = 0;
  for (std::int64_t k = 0; k < w.columns; ++k) {
    if (alive[static_cast<std::size_t>(k)]) continue;
    ++dead;
    for (std::int64_t i = 0; i < k; ++i) h(i, k) = 0.0f;
    for (std::int64_t i = k + 1; i < w.columns; ++i) h(k, i) = 0.0f;
    h(k, k) = 1.0f;
  }
  return dead;
}

/// Damps H and replaces it by R. Where it is not positive definite the damping is raised, and in the end H is the
/// identity: columns are then rounded each on its own.
inline void factorize_damped(any_linalg const& l, matrix_ref<float> h, double damping, gptq_outcome& outcome) {
  std::int64_t const n = h.rows;
  double mean = 0;
  for (std::int64_t k = 0; k < n; ++k) mean += static_cast<double>(h(k, k)) / static_cast<double>(n);
  double added = 0, part = damping;
  for (int raises = 0; mean > 0 && std::isfinite(mean) && raises <= gptq_raises; ++raises, part *= 10) {
    for (std::int64_t k = 0; k < n; ++k) h(k, k) += static_cast<float>(part * mean - added);
    added = part * mean;
    if (!l.upper_factor(h)) continue;
    outcome.damping = part;
    if (raises > 0)
      outcome.notes.push_back(concat("the Hessian is not positive definite with a damping of ", damping,
                                     "; it was raised to ", part));
    return;
  }
  outcome.notes.push_back("the Hessian is not positive definite, however damped: each column is rounded on its own");
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < n; ++k) h(i, k) = i == k ? 1.0f : 0.0f;
}

/// Columns by falling diagonal of H; equal ones keep their order.
inline std::vector<std::int64_t> activation_order(matrix_ref<float const> h) {
  auto const diagonal = [&](std::size_t i) { return h(static_cast<std::int64_t>(i), static_cast<std::int64_t>(i)); };
  auto const order = detail::stable_order(
      static_cast<std::size_t>(h.rows), [&](std::size_t a, std::size_t b) { return diagonal(a) > diagonal(b); });
  return {order.begin(), order.end()};
}

/// The upper triangle of h with rows and columns in that order, as a copy.
inline std::vector<float> reordered(matrix_ref<float const> h, std::vector<std::int64_t> const& order) {
  std::vector<float> copy(static_cast<std::size_t>(h.rows * h.rows));
  auto const to = dense_matrix(copy.data(), h.rows, h.rows);
  for (std::int64_t i = 0; i < h.rows; ++i)
    for (std::int64_t k = i; k < h.rows; ++k) {
      auto const [a, b] = std::minmax(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(k)]);
      to(i, k) = h(a, b);
    }
  return copy;
}

/// w's columns in that order, or back from it, through a copy of one row.
inline void reorder_columns(matrix_ref<float> w, std::vector<std::int64_t> const& order, bool back) {
  std::vector<float> row(static_cast<std::size_t>(w.columns));
  for (std::int64_t i = 0; i < w.rows; ++i) {
    std::copy_n(w.row(i), w.columns, row.begin());
    for (std::size_t k = 0; k < row.size(); ++k) {
      if (back) w(i, order[k]) = row[k];
      else w(i, static_cast<std::int64_t>(k)) = row[static_cast<std::size_t>(order[k])];
    }
  }
}

}  // namespace detail

/// Replaces w by quantized values that together err less on the layer's outputs. `hessian` [columns, columns], of which
/// the upper triangle is read, is overwritten. In activation order the Hessian is copied, and R is that of the new
/// order; groups and their scales stay those of the old. Throws `tensor_shape` or `config_value` before it writes.
inline gptq_outcome gptq(any_linalg const& l, matrix_ref<float> w, matrix_ref<float> hessian,
                         gptq_options const& options, column_quantizer quantize) {
  detail::require_gptq_input(w, hessian, options);
  gptq_outcome outcome;
  outcome.dead_columns = detail::detach_dead_columns(w, hessian);
  std::vector<std::int64_t> order(static_cast<std::size_t>(w.columns));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::vector<float> copy;
  if (options.activation_order) {
    order = detail::activation_order(hessian);
    copy = detail::reordered(hessian, order);
    hessian = dense_matrix(copy.data(), w.columns, w.columns);
    detail::reorder_columns(w, order, false);
  }
  detail::factorize_damped(l, hessian, options.damping, outcome);
  detail::gptq_columns(l, w, hessian, options.block, detail::span_of(order), quantize);
  if (options.activation_order) detail::reorder_columns(w, order, true);
  return outcome;
}

}  // namespace mixbit
