// Scaling the input channels of a linear layer: y = (x · s) (W / s)ᵀ, which changes nothing until both are quantized.
//
// SmoothQuant and AWQ choose s. It is held as the pre_quant_scale of the input quantizer, and 1/s as that of the weight
// quantizer: the host's weight stays as it is, another algorithm may choose anew, and what is quantized is, bit for
// bit, the weight that ModelOpt rewrites.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/calib/input_statistics.hpp"

namespace mixbit {

/// A linear layer whose input channels can be scaled.
template <backend B>
struct scalable_layer {
  calibrated_layer<B> layer;
  sequential_quantizer<B>* input;  ///< may be off
  sequential_quantizer<B>* weight;

  std::string const& name() const { return layer.name(); }
  std::int64_t width() const {
    const_tensor_ref const w = layer.source();
    return w.shape[w.rank - 1];
  }
};

namespace detail {

/// The value as that type holds it.
inline float rounded_to(dtype type, float value) {
  return visit_compute(type, [&]<class T>(T) { return to_float(from_float<T>(value)); });
}

/// Why a layer cannot be scaled; empty where it can. A search compares outputs of operands that are scaled alone, and
/// amaxes of scaled inputs are calculated from their channels': both know no rotation. A weight's bias, or rotation
/// there and back, is its quantizer's own affair.
template <backend B>
std::string scaling_obstacle(sequential_quantizer<B> const& input, sequential_quantizer<B> const& weight) {
  if (weight.leaves_rotated()) return concat("leaves its weight rotated (", weight.leaf(), ".rotate)");
  if (input.leaves_rotated()) return concat("rotates its input (", input.leaf(), ".rotate)");
  if (!input.enabled()) return {};
  for (auto const& member : input.members()) {
    if (member.numerics().rotate) return concat("rotates its input (", input.leaf(), ".rotate)");
    if (member.bias()) return concat("takes a bias off its input (", input.leaf(), ".bias)");
    if (member.needs_calibration() && member.numerics().calibrated().what != grouping_scheme::kind::tensor)
      return "has input amaxes by axis or by block";
  }
  return {};
}

/// The quantizer of a layer's input, on or off, which holds its pre_quant_scale; null where the layer has none.
template <backend B>
sequential_quantizer<B>* input_quantizer(recipe_quantizers<B>& recipe) {
  for (auto& q : recipe.quantizers)
    if (q.role() == quantizer_role::input) return &q;
  return nullptr;
}

/// Why a layer with these quantizers and a weight of this rank cannot be scaled; empty where it can. Its weight
/// quantizer is on.
template <backend B>
std::string unscalable(recipe_quantizers<B>& recipe, site_kind kind, int rank) {
  if (kind != site_kind::linear || rank != 2) return "is no linear layer";
  auto const* const input = input_quantizer(recipe);
  if (input == nullptr) return "has no input quantizer to hold a pre_quant_scale";
  return scaling_obstacle(*input, *recipe.find(quantizer_role::weight));
}

template <backend B>
void leave_at_max(calibration<B>& c, std::string_view method, std::string const& layer, std::string_view why) {
  c.notes.push_back(concat(method, ": ", layer, " ", why, ", so it is calibrated by max"));
}

}  // namespace detail

/// The layers that `method` can scale: linear ones whose weight is quantized, and whose input quantizer calibrates one
/// amax or none. Of others with a quantized weight a note says why they stay at max. Throws `config_conflict` where no
/// layer is left.
template <backend B>
std::vector<scalable_layer<B>> scalable_layers(calibration<B>& c, std::string_view method) {
  std::vector<scalable_layer<B>> all;
  std::string first;
  auto const leave = [&](std::string const& layer, std::string_view why) {
    detail::leave_at_max(c, method, layer, why);
    if (first.empty()) first = detail::concat("; ", layer, " ", why);
  };
  for (auto const& layer : c.layers) {
    auto& s = *layer.where;
    if (s.recipes.empty() || layer.weight.data == nullptr || s.folded) continue;
    auto* const weight = layer.quantizers().find(quantizer_role::weight);
    if (weight == nullptr) continue;
    if (layer.quantizers().branch || !layer.quantizers().absorbed_scale.empty())
      leave(layer.name(), "has a weight that an earlier step rewrote under its scale");
    else if (auto const why = detail::unscalable(layer.quantizers(), s.layout.kind, layer.weight.rank); !why.empty())
      leave(layer.name(), why);
    else
      all.push_back({layer, detail::input_quantizer(layer.quantizers()), weight});
  }
  if (all.empty())
    fail(error_id::config_conflict, method, ": there is no linear layer with a quantized weight whose inputs it could ",
         "scale", first);
  return all;
}

/// Takes off the scales of a calibration before, and what inputs were seen to be under them.
template <backend B>
void remove_scales(calibration<B>& c, std::vector<scalable_layer<B>> const& layers) {
  for (auto const& l : layers)
    for (auto* q : {l.input, l.weight}) {
      if (!q->has_pre_quant_scale()) continue;
      q->set_pre_quant_scale(c.home.device, {});
      if (!q->enabled()) continue;
      for (auto& member : q->members())
        if (member.needs_calibration()) member.forget();
    }
}

template <backend B>
std::vector<std::shared_ptr<site<B>>> sites_of(std::vector<scalable_layer<B>> const& layers) {
  std::vector<std::shared_ptr<site<B>>> sites;
  for (auto const& l : layers) sites.push_back(l.layer.where);
  return sites;
}

template <backend B>
std::vector<std::int64_t> widths_of(std::vector<scalable_layer<B>> const& layers) {
  std::vector<std::int64_t> widths;
  for (auto const& l : layers) widths.push_back(l.width());
  return widths;
}

/// One run of the loop. All that max calibrates is calibrated in it. `means` and `products` as in input_statistics.
template <backend B>
std::vector<channel_statistics> collect_statistics(calibration<B>& c, std::vector<scalable_layer<B>> const& layers,
                                                   std::string_view method, bool means, any_linalg products = {}) {
  input_statistics<B> pass{c, sites_of(layers), widths_of(layers), means, std::move(products)};
  c.run(method);
  return pass.read(c.home);
}

/// Calibrates a weight anew by max, as its quantizer scales it now.
template <backend B>
void recalibrate_weight(calibration<B>& c, calibrated_layer<B> const& layer, sequential_quantizer<B>& q) {
  auto const scale = q.pre_quant_scale(c.home.device);
  q = {q.leaf(), q.path(), q.role(), q.enabled(), q.attributes(), c.numerics};
  q.set_pre_quant_scale(c.home.device, scale);
  workspace_lock<B> const held{c.home};
  observe_weight(*layer.where, c.home, layer.source(), false, c.calibrators, c.notes);
}

/// The factors as both operands are scaled by them: x · input, w · weight.
struct channel_scales {
  std::vector<float> input, weight;
};

/// From s > 0: the input's in the type of the weight (ModelOpt keeps them in it), the weight's 1/s.
inline channel_scales scales_of(std::vector<float> const& s, dtype type) {
  channel_scales scales;
  for (float const value : s) {
    scales.input.push_back(detail::rounded_to(type, value));
    scales.weight.push_back(1.0f / value);
  }
  return scales;
}

/// Scales a layer's input by s and its weight by 1/s, and calibrates both for it: the weight by max, the input from
/// what its channels showed.
template <backend B>
void scale_layer(calibration<B>& c, scalable_layer<B> const& l, std::vector<float> const& s,
                 channel_statistics const& seen) {
  dtype const type = l.layer.source().type;
  auto const scales = scales_of(s, type);
  l.input->set_pre_quant_scale(c.home.device, scales.input);
  l.weight->set_pre_quant_scale(c.home.device, scales.weight);
  l.layer.where->refresh();
  recalibrate_weight(c, l.layer, *l.weight);
  if (!l.input->enabled()) return;
  float top = 0;
  for (std::size_t i = 0; i < s.size(); ++i) top = std::max(top, seen.amax[i] * s[i]);
  for (auto& member : l.input->members())
    if (member.needs_calibration()) member.set_amax(c.home.device, partition{}, {detail::rounded_to(type, top)});
}

}  // namespace mixbit
