// Where to clip, by a histogram of magnitudes: entropy, mean squared error, percentile.
//
// Pure functions over counts: `counts[b]` elements lie in bin b of equal bins from 0 on. They return a bin, so they
// know no widths: the amax of entropy and percentile is that bin's lower edge (for one past the last, the histogram's
// upper end), of mse its centre. Source of the rules: ModelOpt's HistogramCalibrator; docs/numerics.md says where they
// are sharpened. Throws `config_value` for fewer than `first_candidate` bins (but for percentiles) and for a parameter
// out of range, `state_not_calibrated` for a histogram without mass.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/core/function_ref.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

/// Entropy and mse clip at no less than this many bins.
inline constexpr std::size_t first_candidate = 128;

namespace detail {

inline void require_bins(std::size_t bins, char const* what) {
  if (bins < first_candidate)
    fail(error_id::config_value, what, ": a histogram of ", bins, " bins; it takes ", first_candidate, " at least");
}
[[noreturn]] inline void refuse_empty(char const* what) {
  fail(error_id::state_not_calibrated, what, ": the histogram holds no counts");
}

/// log(v) of positive normal numbers, within some units of the last place: log(c) of the nearest c below, of 512 an
/// octave, and a short series for the rest. Several times as fast as std::log, which the search calls 250 000 times.
class fast_log {
 public:
  fast_log() {
    for (std::size_t i = 0; i < cells; ++i) {
      double const c = 1.0 + (static_cast<double>(i) + 0.5) / cells;
      inverse_[i] = 1.0 / c;
      log_[i] = -std::log(inverse_[i]);  // of what is multiplied with, not of c: the two roundings then agree
    }
  }
  double operator()(double v) const {
    auto const all = std::bit_cast<std::uint64_t>(v);
    auto const exponent = static_cast<std::int32_t>(all >> 52) - 1023;
    std::size_t const cell = (all >> (52 - cell_bits)) & (cells - 1);
    double const mantissa = std::bit_cast<double>((all & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    double const r = mantissa * inverse_[cell] - 1.0;  // within 2^-10
    double const series = r * (1.0 + r * (-1.0 / 2 + r * (1.0 / 3 + r * (-1.0 / 4 + r * (1.0 / 5)))));
    return exponent * 0.6931471805599453 + (log_[cell] + series);
  }

 private:
  static constexpr int cell_bits = 9;
  static constexpr std::size_t cells = std::size_t{1} << cell_bits;
  std::array<double, cells> inverse_, log_;
};

/// The divergence of every candidate of a histogram in O(levels) each, by prefix sums.
///
/// With r the reference (the bins kept, the tail's mass on the last of them), M the mass of all, S that of the bins
/// kept, and mean(k) what quantization leaves in bin k,
///   KL = Σ r/M · log((r/M) / (mean/S)) = (Σ r log r − Σ r log mean) / M + log(S / M).
/// The first sum is a prefix sum; `mean` is constant on a level's nonzero bins, which makes the second one of levels.
class entropy_search {
 public:
  static constexpr double infinite = std::numeric_limits<double>::infinity();

  entropy_search(std::span<std::uint64_t const> counts, int log2_levels) : shift_{log2_levels} {
    std::size_t const n = counts.size();
    mass_.resize(n + 1), self_.resize(n + 1), log_of_.resize(n + 1), nonzero_.resize(n + 1);
    long double self = 0;  // rounded once: what is compared are small differences
    for (std::size_t k = 0; k < n; ++k) {
      auto const b = static_cast<double>(counts[k == 0 ? 1 : k]);  // zeros tell nothing of where to clip
      mass_[k + 1] = mass_[k] + b;
      nonzero_[k + 1] = nonzero_[k] + (b > 0 ? 1u : 0u);
      if (b > 0) self += static_cast<long double>(b) * log_(b);
      self_[k + 1] = static_cast<double>(self);
      log_of_[k + 1] = log_(static_cast<double>(k + 1));
    }
  }
  double mass() const { return mass_.back(); }

  /// Of keeping the first i bins. Infinite where it has to be, where they hold nothing, and where it is above `least`
  /// by what no rounding makes up for: each level adds something, so the last one tells of most that clip too much.
  double divergence(std::size_t i, double least) const {
    double const total = mass(), kept = mass_[i], last = kept - mass_[i - 1], tail = total - kept;
    if (kept == 0 || (last == 0 && tail > 0)) return infinite;
    double const end = last + tail, end_self = end > 0 ? end * log_(end) : 0.0, scale = std::log(kept / total);
    std::size_t const levels = std::size_t{1} << shift_;
    if (levels >= i)  // every bin has a level of its own
      return (end_self - (last > 0 ? end * log_(last) : 0.0)) / total + scale;
    std::size_t const first = level_end(levels - 1, i);
    double const inside = kept - mass_[first];
    double const of_last = self_[i - 1] - self_[first] + end_self -
                           (inside + tail) * log_mean(inside, nonzero_[i] - nonzero_[first]);
    if (of_last / total + scale > least + 1e-9) return infinite;
    return (self_[first] - cross(i, levels - 1) + of_last) / total + scale;
  }

 private:
  /// One past the last bin of the first `level` of the levels of i bins: bin k is in level floor(k · levels / i).
  std::size_t level_end(std::size_t level, std::size_t i) const {
    return (level * i + (std::size_t{1} << shift_) - 1) >> shift_;
  }
  /// Σ b log mean over the first `count` levels; a level's mean is over those of its bins that hold something.
  double cross(std::size_t i, std::size_t count) const {
    double sum = 0;
    std::size_t first = 0;
    for (std::size_t level = 1; level <= count; ++level) {
      std::size_t const end = level_end(level, i);
      double const inside = mass_[end] - mass_[first];
      sum += inside * log_mean(inside, nonzero_[end] - nonzero_[first]);
      first = end;
    }
    return sum;
  }
  double log_mean(double inside, std::uint32_t bins) const { return log_(inside > 0 ? inside : 1.0) - log_of_[bins]; }

  int shift_;
  fast_log log_;
  std::vector<double> mass_, self_, log_of_;  ///< sums of the bins before; log_of_[0] is 0
  std::vector<std::uint32_t> nonzero_;
};

}  // namespace detail

/// The bin whose lower edge, as amax of integers of that many bits, loses the least of the distribution: the least
/// Kullback-Leibler divergence between it, clipped, and what quantization leaves of it. Of candidates within 1e-12 of
/// the least the last wins, so that the order of summation decides nothing. Bin 0 counts as many as bin 1.
inline std::size_t entropy_bin(std::span<std::uint64_t const> counts, int bits, bool is_unsigned = false) {
  detail::require_bins(counts.size(), "entropy");
  int const log2_levels = bits - 1 + (is_unsigned ? 1 : 0);
  if (bits < 1 || log2_levels > 23)
    fail(error_id::config_value, "entropy: integers of ", bits, is_unsigned ? " bits, unsigned" : " bits",
         "; it takes 1 to 24, unsigned 23");
  detail::entropy_search const search{counts, log2_levels};
  if (search.mass() == 0) detail::refuse_empty("entropy");
  std::vector<double> divergence(counts.size() + 1, detail::entropy_search::infinite);
  double least = detail::entropy_search::infinite;
  for (std::size_t i = counts.size(); i >= first_candidate; --i)
    least = std::min(least, divergence[i] = search.divergence(i, least));
  std::size_t best = counts.size();
  while (best > first_candidate && !(divergence[best] <= least + 1e-12)) --best;
  return best;
}

/// Rounds `centers` as a quantizer does, once for each of some amaxes: rounded[a · centers.size() + c].
using quantize_centers =
    function_ref<void(std::span<float const> amaxes, std::span<float const> centers, std::span<float> rounded)>;

/// The first bin from `first_candidate` on whose centre, as amax, has the least Σ counts · (Q(c) - c)² over the centres
/// of all bins. `centers` has one a bin.
inline std::size_t mse_bin(std::span<std::uint64_t const> counts, std::span<float const> centers,
                           quantize_centers quantize) {
  detail::require_bins(counts.size(), "mse");
  if (counts.size() == first_candidate)
    fail(error_id::config_value, "mse: a histogram of ", first_candidate, " bins has no candidate behind the first ",
         first_candidate);
  std::vector<float> held;  // bins without mass add nothing
  std::vector<double> weight;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (counts[k] == 0) continue;
    held.push_back(centers[k]);
    weight.push_back(static_cast<double>(counts[k]));
  }
  if (held.empty()) detail::refuse_empty("mse");
  constexpr std::size_t at_once = 32;  // candidates; bounds the memory
  std::vector<float> rounded(std::min(at_once, counts.size() - first_candidate) * held.size());
  std::size_t best = first_candidate;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t first = first_candidate; first < counts.size(); first += at_once) {
    auto const amaxes = centers.subspan(first, std::min(at_once, counts.size() - first));
    std::span<float> const rows{rounded.data(), amaxes.size() * held.size()};
    quantize(amaxes, detail::span_of(held), rows);
    for (std::size_t i = 0; i < amaxes.size(); ++i) {
      auto const row = rows.subspan(i * held.size(), held.size());
      double sum = 0;
      for (std::size_t k = 0; k < held.size(); ++k) {
        double const off = static_cast<double>(row[k]) - static_cast<double>(held[k]);
        sum += weight[k] * (off * off);
      }
      if (sum < least) least = sum, best = first + i;
    }
  }
  return best;
}

/// The first bin at which the cumulated share reaches `percentile` of (0, 100]. The share is summed in float64 bin by
/// bin, as NumPy does: where it ends below 1, 100 % is one past the last bin.
inline std::size_t percentile_bin(std::span<std::uint64_t const> counts, double percentile) {
  if (!(percentile > 0 && percentile <= 100))
    fail(error_id::config_value, "percentile: ", percentile, " is not in (0, 100]");
  auto const total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}));
  if (total == 0) detail::refuse_empty("percentile");
  double reached = 0;
  for (std::size_t k = 0; k < counts.size(); ++k)
    if ((reached += static_cast<double>(counts[k]) / total) >= percentile / 100) return k;
  return counts.size();
}

}  // namespace mixbit
