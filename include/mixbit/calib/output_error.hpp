// What a change d of a linear layer's weight does to its outputs: the sum over batches of the mean of (x dᵀ)², which
// AWQ's searches compare for one candidate after another.
//
// With X the rows of all batches, each over the root of its batch's number of rows, that is |X dᵀ|² / outputs, or
// Σ d H dᵀ with H = Xᵀ X. Few rows are kept as they are. A product with them costs rows · columns · outputs, one with H
// half of columns² · outputs, so from half as many rows as columns on H takes their place: of a layer no more than
// 4 · columns² bytes are kept, and a candidate costs the same whatever more there is to come.
//
// In float32 by the products of a linalg, summed in double. Of channels with means that are large against what they
// vary by, d H dᵀ would be a small difference of large numbers wherever d has no part along the means. So H is of what
// differs from the means m of all batches that it starts with, and the means' own part is summed in double:
// Σ (x d)² = d Y d + 2 (s d)(m d) + n (m d)², with Y = Σ y yᵀ and s = Σ y of y = x - m. That holds of any m; it is of
// all those batches because the mean of a single unusual token would move every other away from zero.
//
// What inputs are rounded to on their way to a layer's op, and its outputs behind it, takes no part: the op is x Wᵀ,
// with or without a bias.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "mixbit/core/linalg.hpp"

namespace mixbit {

namespace detail {

/// Σ a · b, in double and in an order that the length decides.
inline double wide_dot(float const* a, float const* b, std::int64_t n) {
  constexpr std::int64_t lanes = 8;
  std::int64_t const whole = n - n % lanes;
  double sums[lanes] = {};
  for (std::int64_t i = 0; i < whole; i += lanes)
    for (std::int64_t k = 0; k < lanes; ++k) sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  double total = 0;
  for (std::int64_t i = whole; i < n; ++i) total += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (double const sum : sums) total += sum;
  return total;
}

}  // namespace detail

/// Of one layer. One thread at a time.
class output_error {
 public:
  explicit output_error(std::int64_t columns) : columns_{columns} {}

  std::int64_t columns() const { return columns_; }

  /// Adds a batch, [rows, columns]. Batches count alike, whatever their rows.
  void add(any_linalg const& l, matrix_ref<float const> x) {
    if (x.rows == 0) return;
    if (gram_.empty() && 2 * (rows() + x.rows) < columns_) return keep(x);
    if (gram_.empty()) start_gram(l, x);
    add_centred(l, x, 1.0 / static_cast<double>(x.rows));
    ++batches_;
  }

  /// The sum over batches of the mean over rows and outputs; d is [outputs, columns]. Infinite where d or a batch has
  /// NaN or infinities.
  double of(any_linalg const& l, matrix_ref<float const> d) const {
    if (d.rows == 0) return 0;
    std::vector<float> product;
    double total = 0;
    for (std::int64_t first = 0; first < d.rows; first += slab) {
      auto const part = d.block(first, 0, std::min(slab, d.rows - first), columns_);
      total += gram_.empty() ? by_rows(l, part, product) : by_gram(l, part, product);
    }
    if (!std::isfinite(total)) return std::numeric_limits<double>::infinity();
    return std::max(total, 0.0) / static_cast<double>(d.rows);  // a change of next to nothing may round below none
  }

 private:
  static constexpr std::int64_t slab = 1024, width = 128;  ///< of rows, and of a product with H: 512 KiB

  std::int64_t rows() const { return static_cast<std::int64_t>(rows_.size()) / columns_; }
  matrix_ref<float> gram() { return dense_matrix(gram_.data(), columns_, columns_); }

  void keep(matrix_ref<float const> x) {
    double const share = 1.0 / std::sqrt(static_cast<double>(x.rows));
    for (std::int64_t r = 0; r < x.rows; ++r)
      for (std::int64_t k = 0; k < columns_; ++k) rows_.push_back(static_cast<float>(x(r, k) * share));
    kept_.push_back(x.rows);
  }

  /// What was kept as rows, around the means of it and of `first`.
  void start_gram(any_linalg const& l, matrix_ref<float const> first) {
    gram_.assign(static_cast<std::size_t>(columns_ * columns_), 0.0f);
    sums_.assign(static_cast<std::size_t>(columns_), 0.0);
    means_ = means_with(first);
    std::vector<float> const rows = std::exchange(rows_, {});
    float const* at = rows.data();
    for (std::int64_t const count : std::exchange(kept_, {})) {
      std::vector<float> batch(at, at + count * columns_);  // as it came, but for a rounding
      for (float& v : batch) v = static_cast<float>(v * std::sqrt(static_cast<double>(count)));
      add_centred(l, dense_matrix<float const>(batch.data(), count, columns_), 1.0 / static_cast<double>(count));
      at += count * columns_;
      ++batches_;
    }
  }

  /// Of the batches that are kept as rows and one more, which count alike.
  std::vector<float> means_with(matrix_ref<float const> last) const {
    std::vector<double> sums(static_cast<std::size_t>(columns_), 0.0);
    auto const add = [&](float const* row, double share) {
      for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += share * static_cast<double>(row[k]);
    };
    float const* at = rows_.data();
    for (std::int64_t const count : kept_)
      for (std::int64_t r = 0; r < count; ++r, at += columns_) add(at, 1.0 / std::sqrt(static_cast<double>(count)));
    for (std::int64_t r = 0; r < last.rows; ++r) add(last.row(r), 1.0 / static_cast<double>(last.rows));
    std::vector<float> means;
    for (double const sum : sums) means.push_back(static_cast<float>(sum / static_cast<double>(kept_.size() + 1)));
    return means;
  }

  /// share · Σ y yᵀ and share · Σ y.
  void add_centred(any_linalg const& l, matrix_ref<float const> x, double share) {
    std::vector<float> y(static_cast<std::size_t>(std::min(slab, x.rows) * columns_));
    std::vector<double> sums(sums_.size(), 0.0);
    for (std::int64_t first = 0; first < x.rows; first += slab) {
      auto const part = dense_matrix(y.data(), std::min(slab, x.rows - first), columns_);
      for (std::int64_t r = 0; r < part.rows; ++r) {
        float const* const from = x.row(first + r);
        float* const to = part.row(r);
        for (std::size_t k = 0; k < sums.size(); ++k) {
          to[k] = from[k] - means_[k];
          sums[k] += static_cast<double>(to[k]);
        }
      }
      l.accumulate_gram(static_cast<float>(share), part, gram());
    }
    for (std::size_t k = 0; k < sums.size(); ++k) sums_[k] += share * sums[k];
  }

  static matrix_ref<float> zeros(std::vector<float>& memory, std::int64_t rows, std::int64_t columns) {
    memory.assign(static_cast<std::size_t>(rows * columns), 0.0f);
    return dense_matrix(memory.data(), rows, columns);
  }

  double by_rows(any_linalg const& l, matrix_ref<float const> d, std::vector<float>& product) const {
    auto const y = zeros(product, d.rows, rows());
    l.multiply_add(1.0f, d, dense_matrix(rows_.data(), rows(), columns_), factor::transposed, y);
    return detail::wide_dot(y.data, y.data, y.rows * y.columns);
  }

  /// Twice the products with the upper triangle of H, which has the diagonal twice: half the work of all of H.
  double by_gram(any_linalg const& l, matrix_ref<float const> d, std::vector<float>& product) const {
    auto const h = dense_matrix(gram_.data(), columns_, columns_);
    double total = 0;
    for (std::int64_t first = 0; first < columns_; first += width) {
      std::int64_t const n = std::min(width, columns_ - first);
      auto const y = zeros(product, d.rows, n);
      l.multiply_add(1.0f, d.block(0, 0, d.rows, first + n), h.block(0, first, first + n, n), factor::as_is, y);
      for (std::int64_t r = 0; r < d.rows; ++r) total += 2 * detail::wide_dot(y.row(r), d.row(r) + first, n);
    }
    std::vector<float> weighted(static_cast<std::size_t>(columns_));
    for (std::int64_t r = 0; r < d.rows; ++r) {
      for (std::int64_t k = 0; k < columns_; ++k) weighted[static_cast<std::size_t>(k)] = d(r, k) * h(k, k);
      total -= detail::wide_dot(weighted.data(), d.row(r), columns_);
      total += of_means(d.row(r));
    }
    return total;
  }

  /// 2 (s d)(m d) + n (m d)²: batches count alike, and the shares of one come to 1.
  double of_means(float const* d) const {
    double along_means = 0, along_sums = 0;
    for (std::size_t k = 0; k < means_.size(); ++k) {
      along_means += static_cast<double>(d[k]) * static_cast<double>(means_[k]);
      along_sums += static_cast<double>(d[k]) * sums_[k];
    }
    return along_means * (2 * along_sums + static_cast<double>(batches_) * along_means);
  }

  std::int64_t columns_, batches_ = 0;  ///< batches in gram_
  std::vector<std::int64_t> kept_;      ///< how many of rows_ each batch has
  std::vector<float> rows_;   ///< each over the root of its batch's number of rows
  std::vector<float> gram_;   ///< then: the upper triangle of Y, zeros below it
  std::vector<float> means_;  ///< m
  std::vector<double> sums_;  ///< s
};

}  // namespace mixbit
