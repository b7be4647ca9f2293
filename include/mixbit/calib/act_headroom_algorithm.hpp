// The algorithm "nvfp4_act_headroom": max, but NVFP4 activations take the amax of their tensor from its calibrator
// (act_headroom.hpp), whatever calibrator their attributes name.
#pragma once

#include <algorithm>

#include "mixbit/calib/max_algorithm.hpp"

namespace mixbit {

namespace detail {

inline calibrator_config headroom_of_step(algorithm_step const& step) {
  calibrator_parameters parameters;
  for (char const* name : {"rho", "anchor", "upper"}) parameters.push_back({name, step.number(name)});
  return {"nvfp4_act_headroom", std::move(parameters)};
}

/// Is it of an activation, NVFP4 of type dynamic, with an amax of the tensor to calibrate?
template <backend B>
bool takes_headroom(sequential_quantizer<B> const& q) {
  if (!q.enabled() || q.role() == quantizer_role::weight || q.members().size() != 1) return false;
  auto const& n = q.members().front().numerics();
  return is_two_level(n.how.scaling) && n.groups_from_data && n.amax_from == amax_source::calibration;
}

}  // namespace detail

/// Throws `config_conflict` where no quantizer takes it.
template <backend B>
void calibrate_act_headroom(calibration<B>& c, algorithm_step const& step) {
  auto const how = detail::headroom_of_step(step);
  how.validate("algorithm");
  bool any = false;
  for (auto const& layer : c.layers)
    for (auto& q : layer.quantizers().quantizers) {
      if (!detail::takes_headroom(q)) continue;
      any = true;
      for (auto& member : q.members()) member.forget();
      q.change_unready([&](quantizer_attribute_config& a) { a.calibrator = how; }, c.numerics);
    }
  if (!any)
    fail(error_id::config_conflict, "algorithm: nvfp4_act_headroom calibrates activations in NVFP4 of type dynamic ",
         "(num_bits [2,1], scale_bits [4,3]), and no such quantizer is on");
  calibrate_max(c);
}

}  // namespace mixbit
