// KL(p || q) of softmaxes from logits, summed over rows, in double and in one order: the same bits on any number of
// threads. A step's reference logits are kept as they came, 4 bytes each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace mixbit {

/// log Σ exp(x), without overflow.
inline double log_sum_exp(std::span<float const> x) {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (float const v : x) largest = std::max(largest, static_cast<double>(v));
  if (!std::isfinite(largest)) return largest;
  for (float const v : x) sum += std::exp(static_cast<double>(v) - largest);
  return largest + std::log(sum);
}

/// Rows of logits, one distribution over `width` outcomes each.
class logit_rows {
 public:
  logit_rows() = default;
  logit_rows(std::vector<float> values, std::int64_t width) : values_{std::move(values)}, width_{width} {
    for (std::int64_t r = 0; r < rows(); ++r) log_sums_.push_back(log_sum_exp(row(r)));
  }

  std::int64_t width() const { return width_; }
  std::int64_t rows() const { return width_ == 0 ? 0 : static_cast<std::int64_t>(values_.size()) / width_; }
  std::span<float const> row(std::int64_t r) const {
    return {values_.data() + r * width_, static_cast<std::size_t>(width_)};
  }
  double log_sum(std::int64_t r) const { return log_sums_[static_cast<std::size_t>(r)]; }

 private:
  std::vector<float> values_;
  std::int64_t width_ = 0;
  std::vector<double> log_sums_;
};

/// Σ over rows of Σ p (log p - log q), p and q being of the same shape. An outcome that p rules out (a logit of -inf)
/// adds nothing; one that only q rules out makes it infinite; NaN in either makes it NaN.
inline double kl_divergence(logit_rows const& p, logit_rows const& q) {
  double sum = 0;
  for (std::int64_t r = 0; r < p.rows(); ++r) {
    auto const from = p.row(r), to = q.row(r);
    double const p_sum = p.log_sum(r), q_sum = q.log_sum(r);
    double of_row = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      double const log_p = static_cast<double>(from[i]) - p_sum, log_q = static_cast<double>(to[i]) - q_sum;
      double const probability = std::exp(log_p);
      if (probability != 0) of_row += probability * (log_p - log_q);
      else if (std::isnan(log_q)) of_row = log_q;
    }
    sum += of_row;
  }
  return sum;
}

}  // namespace mixbit
