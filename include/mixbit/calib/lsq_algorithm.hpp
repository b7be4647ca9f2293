// The algorithms "lsq" and "dual_lsq": where learned scales start from. Learning them is the host's training
// (model/scale_training.hpp); a calibration can but give the first ones, and those are mse's, as ModelOpt's default.
#pragma once

#include "mixbit/calib/amax_search_algorithm.hpp"

namespace mixbit {

template <backend B>
void calibrate_lsq(calibration<B>& c, algorithm_step const& step) {
  calibrate_mse(c, algorithm_step{"mse"});
  c.notes.push_back(step.method + ": weight scales start from those of mse; a scale_training learns them");
}

}  // namespace mixbit
