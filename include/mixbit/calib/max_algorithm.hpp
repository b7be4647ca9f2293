// The algorithm "max" over a model's layers: weights from the walk, everything else from one run of the loop.
#pragma once

#include "mixbit/calib/algorithm.hpp"
#include "mixbit/calib/max.hpp"

namespace mixbit {

namespace detail {

/// Every quantizer that is on, of the recipes that are calibrated.
template <backend B, class F>
void for_each_calibrated(calibration<B> const& c, F&& f) {
  for (auto const& layer : c.layers)
    for (std::size_t r = 0; r < layer.where->recipes.size(); ++r) {
      if (!c.every_recipe && static_cast<std::size_t>(layer.where->active) != r) continue;
      for (auto& q : layer.where->recipes[r].quantizers)
        if (q.enabled()) f(q);
    }
}

template <backend B>
bool needs_data(calibration<B> const& c) {
  bool needed = false;
  for_each_calibrated(c, [&](auto& q) {
    needed = needed || (q.role() != quantizer_role::weight && q.needs_calibration());
  });
  return needed;
}

}  // namespace detail

/// Shows every weight to its quantizers.
template <backend B>
void calibrate_weights(calibration<B>& c) {
  for (auto const& layer : c.layers) {
    if (layer.weight.data == nullptr) continue;
    workspace_lock<B> const held{c.home};
    observe_weight(*layer.where, c.home, c.every_recipe ? layer.weight : layer.source(), c.every_recipe);
  }
}

/// amax is the largest |x| of all that each quantizer sees. The loop runs only where something other than a weight
/// needs data.
template <backend B>
void calibrate_max(calibration<B>& c) {
  calibrate_weights(c);
  if (!c.loop || !detail::needs_data(c)) return;
  max_calibration<B> pass{c.sites(), c.every_recipe};
  c.run("max calibration");
  pass.share(c.home);
}

}  // namespace mixbit
