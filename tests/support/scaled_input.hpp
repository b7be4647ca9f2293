// A pre_quant_scale as AWQ and SmoothQuant leave it, set by hand.
#pragma once

#include <string>
#include <vector>

#include "support/export_bench.hpp"
#include "support/fused_host.hpp"

namespace mixbit::test {

/// Scales a layer's input by s and its weight by 1/s; what was calibrated before no longer holds.
inline void scale_input(export_bench& b, std::string const& layer, std::vector<float> const& s) {
  std::vector<float> inverse;
  for (float const x : s) inverse.push_back(1.0f / x);
  for (auto const& module : b.m->modules()) {
    if (module.name != layer) continue;
    quantizer_in(*module.slots, quantizer_role::input).set_pre_quant_scale(b.m->device(), s);
    quantizer_in(*module.slots, quantizer_role::weight).set_pre_quant_scale(b.m->device(), inverse);
    module.slots->shared_site()->refresh();
  }
}

}  // namespace mixbit::test
