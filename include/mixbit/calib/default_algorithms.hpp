// The algorithms that come with the library, by the names that ModelOpt's configs give them. With
// MIXBIT_SEPARATE_COMPILATION this header is what one source file of a program includes (calib/algorithm.hpp).
#pragma once

#include "mixbit/calib/awq_clip.hpp"
#include "mixbit/calib/awq_lite.hpp"
#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/calib/smoothquant.hpp"

namespace mixbit {

template <backend B>
algorithm_registry<B> default_algorithms() {
  algorithm_registry<B> all;
  all.add("max", [](calibration<B>& c, algorithm_step const&) { calibrate_max(c); });
  all.add("smoothquant", [](calibration<B>& c, algorithm_step const& step) { calibrate_smoothquant(c, step); });
  all.add("awq_lite", [](calibration<B>& c, algorithm_step const& step) { calibrate_awq_lite(c, step); });
  all.add("awq_clip", [](calibration<B>& c, algorithm_step const& step) { calibrate_awq_clip(c, step); });
  all.add("awq_full", [](calibration<B>& c, algorithm_step const& step) { calibrate_awq_full(c, step); });
  return all;
}

}  // namespace mixbit
