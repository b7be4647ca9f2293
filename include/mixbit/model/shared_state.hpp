// Layers that share state because one fused kernel runs them (q/k/v, gate/up): finding those that do not, and making
// them.
//
//   for (auto const& group : unshared_groups(m))
//     for (auto const& d : group.differences) std::cerr << d.text() << '\n';
//   share_state(m);                                          // what runtimes fuse
//   share_state(m, {{"enc.a", "enc.b"}}, {.weight_amax = false});
//
// A config says the same as a step of its algorithm: {"awq_lite", "share_state"}. What is shared, and how, is told in
// calib/shared_state.hpp. It is about the active recipes.
#pragma once

#include <utility>
#include <vector>

#include "mixbit/calib/shared_state.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

namespace detail {

/// Calls f with a calibration over the model's layers that has no data. Throws `state_nested` inside a pass.
template <backend B, class F>
auto with_layers(model<B>& m, F&& f) {
  auto const modules = m.modules();
  for (auto const& module : modules) refuse_inside_pass(*module.slots->shared_site(), "share_state");
  forward_loop const none;
  auto c = calibration_of(m, modules, none);
  return f(c);
}

}  // namespace detail

/// The layers that rules put together, with at least one that is quantized.
template <backend B>
std::vector<layer_group> fused_layers(model<B>& m, std::vector<grouping_rule> const& rules = fused_layer_rules()) {
  return detail::with_layers(m, [&](auto& c) { return layer_groups(c.layers, rules); });
}

/// Makes the layers of each group share input amax, tensor-level weight amax and pre_quant_scale, or what `what` says
/// of them. Throws what calib/shared_state.hpp says, before anything is changed. Returns what is to be known of it.
template <backend B>
calibration_report share_state(model<B>& m, std::vector<layer_group> const& groups, shared_fields const& what = {}) {
  return detail::with_layers(m, [&](auto& c) {
    share_state(c, groups, what);
    return calibration_report{std::move(c.notes)};
  });
}
template <backend B>
calibration_report share_state(model<B>& m) {
  return share_state(m, fused_layers(m));
}

/// The groups whose layers differ in what they should share, with both values. Throws what is wrong with the groups.
template <backend B>
std::vector<unshared_group> unshared_groups(model<B>& m, std::vector<layer_group> const& groups,
                                            shared_fields const& what = {}) {
  return detail::with_layers(m, [&](auto& c) { return unshared_groups(c, groups, what); });
}
template <backend B>
std::vector<unshared_group> unshared_groups(model<B>& m) {
  return unshared_groups(m, fused_layers(m));
}

}  // namespace mixbit
