// The calibrators that come with the library. With MIXBIT_SEPARATE_COMPILATION this header is what one source file of a
// program includes (calib/calibrators.hpp).
#pragma once

#include "mixbit/calib/act_headroom.hpp"
#include "mixbit/calib/calibrators.hpp"
#include "mixbit/calib/histogram_calibrator.hpp"

namespace mixbit {

template <backend B>
std::unique_ptr<calibrator<B>> make_built_in_calibrator(calibrator_request const& r) {
  if (r.config.name() == "histogram") {
    check_histogram(r.config, r.numerics, r.where);
    return std::make_unique<histogram_calibrator<B>>(r.config);
  }
  if (r.config.name() == "nvfp4_act_headroom") {
    check_headroom(r.numerics, r.where);
    return std::make_unique<headroom_calibrator<B>>(r.config);
  }
  return nullptr;
}

}  // namespace mixbit
