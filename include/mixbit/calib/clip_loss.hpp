// What AWQ's clipping minimises, without tensors: the squared error of the partial dot products of a weight's blocks.
//
// A block's partial product changes by x·d, where d is what quantization changes of the block; summed over rows x that
// is dᵀ G d with G = Σ x xᵀ. So G, of the size block × block for each block of a row, is all that is kept of the data,
// and a candidate costs the same whatever the number of rows. In double: what is compared differs by 1e-4 of it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace mixbit {

/// Σ x xᵀ for each block of `block` values of a row; the last one may be shorter.
class clip_grams {
 public:
  clip_grams(std::int64_t width, std::int64_t block)
      : width_{width}, block_{block}, blocks_{(width + block - 1) / block},
        sums_(static_cast<std::size_t>(blocks_ * block * block)) {}

  std::int64_t blocks() const { return blocks_; }
  std::int64_t width() const { return width_; }

  /// Adds the mean of a batch's rows, [rows, width]: each batch counts alike.
  void add(std::span<float const> x) {
    std::int64_t const rows = static_cast<std::int64_t>(x.size()) / width_;
    double const share = 1.0 / static_cast<double>(rows);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t b = 0; b < blocks_; ++b) add_block(b, x.data() + r * width_ + b * block_, share);
  }

  /// loss[row · blocks() + b] = dᵀ G d of each block of d, [rows, width].
  void losses(std::span<float const> d, std::span<double> loss) const {
    std::int64_t const rows = static_cast<std::int64_t>(d.size()) / width_;
    std::vector<double> tile(static_cast<std::size_t>(block_ * lanes));
    for (std::int64_t first = 0; first < rows; first += lanes) {
      auto const count = std::min<std::int64_t>(lanes, rows - first);
      for (std::int64_t b = 0; b < blocks_; ++b) {
        fill(tile, d.data() + first * width_ + b * block_, count, length(b));
        auto const sums = tile_losses(b, tile);
        for (std::int64_t l = 0; l < count; ++l)
          loss[static_cast<std::size_t>((first + l) * blocks_ + b)] = sums[static_cast<std::size_t>(l)];
      }
    }
  }

 private:
  static constexpr std::int64_t lanes = 16;  ///< rows of d at once, so that a vector holds several

  std::int64_t length(std::int64_t b) const { return std::min(block_, width_ - b * block_); }
  double const* row(std::int64_t b, std::int64_t i) const { return sums_.data() + (b * block_ + i) * block_; }

  /// The lower triangle: G is symmetric.
  void add_block(std::int64_t b, float const* x, double share) {
    for (std::int64_t i = 0; i < length(b); ++i) {
      double* const to = sums_.data() + (b * block_ + i) * block_;
      double const xi = x[i] * share;
      for (std::int64_t j = 0; j <= i; ++j) to[j] += xi * x[j];
    }
  }

  void fill(std::vector<double>& tile, float const* d, std::int64_t count, std::int64_t length) const {
    std::fill(tile.begin(), tile.end(), 0.0);
    for (std::int64_t l = 0; l < count; ++l)
      for (std::int64_t i = 0; i < length; ++i) tile[static_cast<std::size_t>(i * lanes + l)] = d[l * width_ + i];
  }

  /// Σ d_i (G_ii d_i + 2 Σ_{j<i} G_ij d_j) for each lane.
  std::array<double, lanes> tile_losses(std::int64_t b, std::vector<double> const& tile) const {
    std::array<double, lanes> sums{};
    for (std::int64_t i = 0; i < length(b); ++i) {
      double const* const g = row(b, i);
      double product[lanes] = {};
      for (std::int64_t j = 0; j < i; ++j) {
        double const* const dj = tile.data() + j * lanes;
        for (int l = 0; l < lanes; ++l) product[l] += g[j] * dj[l];
      }
      double const* const di = tile.data() + i * lanes;
      for (int l = 0; l < lanes; ++l)
        sums[static_cast<std::size_t>(l)] += di[l] * (g[i] * di[l] + 2 * product[l]);
    }
    return sums;
  }

  std::int64_t width_, block_, blocks_;
  std::vector<double> sums_;
};

/// low, low + step, … below 1, and 1.
inline std::vector<double> clip_ratios(double low, double step) {
  std::vector<double> ratios;
  for (int i = 0; low + i * step < 1 - step * 1e-6; ++i) ratios.push_back(low + i * step);
  ratios.push_back(1.0);
  return ratios;
}

}  // namespace mixbit
