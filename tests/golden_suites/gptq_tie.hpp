// GPTQ of one row in float64, to say how near a rounding was to a tie.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>

namespace golden {

/// The value, in steps, that is rounded in column `at` of a row: integers with `steps` for each column.
inline double value_before_rounding(Eigen::RowVectorXd w, Eigen::MatrixXd h, Eigen::RowVectorXd const& steps,
                                    double bound, double damping, Eigen::Index at) {
  h.diagonal().array() += damping * h.diagonal().mean();
  Eigen::MatrixXd const inverse = h.llt().solve(Eigen::MatrixXd::Identity(h.rows(), h.cols()));
  Eigen::MatrixXd const u = inverse.llt().matrixU();
  for (Eigen::Index k = 0; k < at; ++k) {
    double const q = std::clamp(std::nearbyint(w[k] / steps[k]), -bound - 1, bound) * steps[k];
    double const error = (w[k] - q) / u(k, k);
    w.tail(w.size() - k) -= error * u.row(k).tail(w.size() - k);
  }
  return w[at] / steps[at];
}

}  // namespace golden
