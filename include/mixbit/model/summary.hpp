// print_quant_summary: one line a quantizer with its element type, how its tensor is divided, and its amax.
#pragma once

#include <algorithm>
#include <ostream>
#include <string>

#include "mixbit/model/model.hpp"
#include "mixbit/quantizer/describe.hpp"

namespace mixbit {

namespace detail {

template <backend B>
std::string describe_amax(tensor_quantizer<B> const& q, B& device) {
  if (q.numerics().amax_from == amax_source::data) return "dynamic";
  if (q.numerics().amax_from == amax_source::constant) return "amax " + concat(q.numerics().constant_amax);
  if (q.has_released_amax()) return "amax in the scales of the compressed weight";
  auto const values = q.amax(device);
  if (values.empty()) return "not calibrated";
  auto const [low, high] = std::minmax_element(values.begin(), values.end());
  if (values.size() == 1) return "amax " + concat(*low);
  return "amax [" + concat(*low) + ", " + concat(*high) + "] of " + std::to_string(values.size());
}

}  // namespace detail

/// Prints every quantizer of the active recipes and returns how many are enabled.
template <backend B>
int print_quant_summary(model<B>& m, std::ostream& out) {
  int enabled = 0, total = 0;
  for (auto const& module : m.modules()) {
    auto& s = *module.slots->shared_site();
    if (s.recipes.empty()) continue;
    for (auto const& q : s.quantizers().quantizers) {
      ++total;
      out << q.path() << ": ";
      if (!q.enabled()) {
        out << "disabled\n";
        continue;
      }
      ++enabled;
      for (std::size_t i = 0; i < q.members().size(); ++i) {
        auto const& member = q.members()[i];
        out << (i ? " then " : "") << name_of(member.numerics().how) << ' '
            << describe(member.numerics().grouping) << ", " << detail::describe_amax(member, m.device());
      }
      out << '\n';
    }
  }
  out << enabled << " of " << total << " quantizers enabled\n";
  return enabled;
}

}  // namespace mixbit
