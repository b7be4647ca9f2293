// The layout probe: does the op contract the axes that the layout says?
//
// op(x·s, w/s) must equal op(x, w) for a vector s along the input channels of both operands. With powers of two every
// product is the same number, so on a CPU the results are equal bit for bit. A weight declared [out, in] that is
// [in, out], a wrong convolution layout, or an op that keeps state between calls gives another result. One probe a
// site, on its first live call, on the operands that call used.
#pragma once

#include <vector>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

namespace detail {

inline void check_channels(std::string const& name, std::int64_t input, std::int64_t weight, site_kind kind) {
  bool const fits = kind == site_kind::conv ? weight > 0 && input % weight == 0 : input == weight;
  if (!fits)
    fail(error_id::tensor_layout, name, ": the input has ", input, " channels where the layout says, the weight ",
         weight, "; say how the axes lie with a site_layout");
}

/// A site's operands as its layout names their axes, and where their input channels lie: negative where nowhere.
struct laid_out {
  const_tensor_ref x, w;
  int x_axis, w_axis;

  template <backend B>
  laid_out(site<B> const& s, operands o)
      : x{s.canonical(operand_role::input, o.x)},
        w{named(s.name, [&] { return s.layout.weight.apply(o.w); })},
        x_axis{input_channel_axis(s.layout, x.rank)},
        w_axis{weight_channel_axis(s.layout, w.rank)} {}
  bool has_channels() const { return x_axis >= 0 && w_axis >= 0; }
};

/// The values of y in scratch memory, so that the next trial may overwrite y.
template <backend B>
const_tensor_ref kept_copy(workspace<B>& ws, const_tensor_ref y) {
  tensor_ref const copy = allocate_like(y, ws.scratch);
  copy_elements(ws.device, ws.scratch, y, copy);
  return copy;
}

/// What reduce(a - b, its one group, result, flags) makes of the elements that are finite, from 0, and whether all are.
template <class T, backend B, class Reduce>
std::pair<T, bool> reduced_difference(workspace<B>& ws, const_tensor_ref a, const_tensor_ref b, Reduce&& reduce) {
  arena_scope const borrowed{ws.scratch};
  tensor_ref const difference = allocate_like(a, ws.scratch);
  auto* const result = static_cast<T*>(ws.scratch.allocate(sizeof(T)));
  auto* const flags = static_cast<data_flags*>(ws.scratch.allocate(sizeof(data_flags)));
  ws.device.zero(result, sizeof(T));
  ws.device.zero(flags, sizeof(data_flags));
  ws.device.subtract({a, b, difference});
  reduce(difference, per_tensor(difference), result, flags);
  T found{};
  data_flags seen;
  ws.device.copy_to_host(&found, result, sizeof found);
  ws.device.copy_to_host(&seen, flags, sizeof seen);
  return {found, seen.nonfinite == 0};
}

/// max |a - b| and whether every element of the difference is finite.
template <backend B>
std::pair<float, bool> largest_difference(workspace<B>& ws, const_tensor_ref a, const_tensor_ref b) {
  return reduced_difference<float>(ws, a, b, [&](const_tensor_ref d, partition const& all, float* to, data_flags* f) {
    ws.device.amax({d, all, to, f});
  });
}

}  // namespace detail

/// Do the channel counts fit? Asked before the host's op first sees a site's operands, since it may read past the end
/// of such a weight. Throws `tensor_layout` naming the site.
template <backend B>
void check_layout(site<B>& s, operands o) {
  if (s.probed || s.packed() || o.x.data == nullptr) return;
  detail::laid_out const l{s, o};
  if (l.has_channels()) detail::check_channels(s.name, l.x.shape[l.x_axis], l.w.shape[l.w_axis], s.layout.kind);
}

/// Of operands that check_layout has seen. Throws `tensor_layout` naming the site. `raw` is op(x, w) where the caller
/// has just computed it, else empty. Non-finite results prove nothing: the probe is repeated by the next call.
template <backend B>
void probe_layout(site<B>& s, workspace<B>& ws, operands o, erased_op& op, const_tensor_ref raw) {
  if (s.probed || o.x.data == nullptr) return;
  detail::laid_out const l{s, o};
  if (!l.has_channels()) return;
  auto const& [x, w, x_axis, w_axis] = l;
  if (x.size() == 0 || w.size() == 0) return;
  for (dtype const type : {x.type, w.type}) require_compute(type, s.name);

  std::int64_t const period = w.shape[w_axis];
  std::vector<float> up(static_cast<std::size_t>(period)), down(up.size());
  for (std::size_t c = 0; c < up.size(); ++c) {
    up[c] = c % 3 == 0 ? 0.5f : c % 3 == 1 ? 2.0f : 1.0f;
    down[c] = 1.0f / up[c];
  }
  std::size_t const bytes = up.size() * sizeof(float);
  auto* const scale_x = static_cast<float*>(ws.scratch.allocate(bytes));
  auto* const scale_w = static_cast<float*>(ws.scratch.allocate(bytes));
  ws.device.copy_from_host(scale_x, up.data(), bytes);
  ws.device.copy_from_host(scale_w, down.data(), bytes);

  const_tensor_ref const first = raw.data ? raw : s.call(ws, op, o.x, o.w, pass::trial);
  require_compute(first.type, s.name);
  const_tensor_ref const y = raw.data ? raw : detail::kept_copy(ws, first);
  tensor_ref const xs = op.scratch(operand_role::input, ws.scratch), wsc = op.scratch(operand_role::weight, ws.scratch);
  ws.device.scale_channels({x, s.canonical(operand_role::input, xs), x_axis, period, scale_x});
  ws.device.scale_channels({w, s.layout.weight.apply(wsc), w_axis, period, scale_w});
  tensor_ref const trial = s.call(ws, op, xs, wsc, pass::trial);
  if (!trial.same_shape(y))
    fail(error_id::tensor_layout, s.name, ": op returned shape ", to_string(trial), " after ", to_string(y));
  auto const [difference, finite] = detail::largest_difference(ws, trial, y);
  if (!finite) return;
  float tolerance = 0;
  bool const narrow = x.type == dtype::f16 || w.type == dtype::f16;  // halves of its subnormal numbers are rounded
  if (!B::exact_probe || narrow) {
    auto* const amax = static_cast<float*>(ws.scratch.allocate(sizeof(float)));
    ws.device.zero(amax, sizeof(float));
    ws.device.amax({y, per_tensor(y), amax, nullptr});
    ws.device.copy_to_host(&tolerance, amax, sizeof tolerance);
    tolerance *= 1e-3f;
  }
  if (difference > tolerance)
    fail(error_id::tensor_layout, s.name,
         ": the layout probe failed: scaling the input channels of x and w against each ",
         "other changed the result by ", difference,
         "; the weight's axes are not what the site_layout says (for example ",
         "[in, out] instead of [out, in]), or op keeps state between calls");
  s.probed = true;
}

}  // namespace mixbit
