// byte_lm's validation loss window by window, so that two models compare on the same windows.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "golden_suites/lm_model.hpp"

namespace bench {

using loss_by_window = std::vector<double>;

inline loss_by_window window_losses(golden::lm_model& lm) {
  loss_by_window all;
  for (std::int64_t i = 0; i < lm.validation.count; ++i)
    all.push_back(byte_lm::evaluate(lm.host, lm.validation.slice(i, 1)));
  return all;
}

inline double mean(loss_by_window const& all) {
  double sum = 0;
  for (double const l : all) sum += l;
  return sum / static_cast<double>(all.size());
}

/// Of the mean difference of windows.
inline double standard_error(loss_by_window const& a, loss_by_window const& b) {
  double const off = mean(a) - mean(b), n = static_cast<double>(a.size());
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i] - off) * (a[i] - b[i] - off);
  return std::sqrt(squares / (n - 1) / n);
}

}  // namespace bench
