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

/// Throws, before any data is looked at, what is wrong with the calibrators that the configs ask for.
template <backend B>
void require_calibrators(calibration<B> const& c) {
  for_each_calibrated(c, [&](auto& q) {
    for (auto const& member : q.members())
      if (member.needs_calibrator())
        (void)c.calibrators.make({member.numerics().calibrator, member.numerics(), member.name()});
  });
}

}  // namespace detail

/// Shows every weight to its quantizers.
template <backend B>
void calibrate_weights(calibration<B>& c) {
  for (auto const& layer : c.layers) {
    if (layer.weight.data == nullptr) continue;
    workspace_lock<B> const held{c.home};
    const_tensor_ref const w = c.every_recipe ? layer.weight : layer.source();
    observe_weight(*layer.where, c.home, w, c.every_recipe, c.calibrators, c.notes);
  }
}

/// Each quantizer's own calibrator sees all of its data once; most keep the largest |x|. The loop runs only where
/// something other than a weight needs data. Throws what is wrong with calibrators before anything is shown to any.
template <backend B>
void calibrate_max(calibration<B>& c) {
  detail::require_calibrators(c);
  calibrate_weights(c);
  if (!c.loop || !detail::needs_data(c)) return;
  max_calibration<B> pass{c.sites(), c.every_recipe, c.calibrators};
  c.run("max calibration");
  auto const notes = pass.share(c.home);
  c.notes.insert(c.notes.end(), notes.begin(), notes.end());
}

}  // namespace mixbit
