// The algorithms that come with the library, by the names that ModelOpt's configs give them. With
// MIXBIT_SEPARATE_COMPILATION this header is what one source file of a program includes (calib/algorithm.hpp).
#pragma once

#include "mixbit/calib/act_headroom_algorithm.hpp"
#include "mixbit/calib/amax_search_algorithm.hpp"
#include "mixbit/calib/awq_clip.hpp"
#include "mixbit/calib/awq_lite.hpp"
#include "mixbit/calib/gptq_algorithm.hpp"
#include "mixbit/calib/lsq_algorithm.hpp"
#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/calib/shared_state.hpp"
#include "mixbit/calib/smoothquant.hpp"
#include "mixbit/calib/svdquant_algorithm.hpp"

namespace mixbit {

template <backend B>
algorithm_registry<B> default_algorithms() {
  algorithm_registry<B> all;
  all.add("max", [](calibration<B>& c, algorithm_step const&) { calibrate_max(c); });
  all.add("mse", calibrate_mse<B>);
  all.add("local_hessian", calibrate_local_hessian<B>);
  all.add("gptq", calibrate_gptq<B>);
  all.add("smoothquant", calibrate_smoothquant<B>);
  all.add("awq_lite", calibrate_awq_lite<B>);
  all.add("awq_clip", calibrate_awq_clip<B>);
  all.add("awq_full", calibrate_awq_full<B>);
  all.add("svdquant", calibrate_svdquant<B>);
  all.add("lsq", calibrate_lsq<B>);
  all.add("dual_lsq", calibrate_lsq<B>);
  all.add("nvfp4_act_headroom", calibrate_act_headroom<B>);
  all.add("share_state", calibrate_shared_state<B>);
  return all;
}

}  // namespace mixbit
