// SmoothQuant (Xiao et al. 2022) as ModelOpt computes it: outliers of activations move into the weight.
//
// For each input channel s = w_amax^(1-alpha) / x_amax^alpha, clamped to [1e-4, 1e4], and 1 where x_amax is at most
// 2^-31: a channel without data. The input is multiplied by s, the weight by 1/s. One pass over the data.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "mixbit/calib/pre_quant_scale.hpp"

namespace mixbit {

/// s, from the amaxes of both operands' channels.
inline std::vector<float> smoothing_scale(std::vector<float> const& input_amax, std::vector<float> const& weight_amax,
                                          double alpha) {
  std::vector<float> s(input_amax.size(), 1.0f);
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (input_amax[i] <= 0x1p-31f) continue;
    double const ratio = std::pow(double{weight_amax[i]}, 1 - alpha) / std::pow(double{input_amax[i]}, alpha);
    s[i] = static_cast<float>(std::clamp(ratio, 1e-4, 1e4));
  }
  return s;
}

namespace detail {

/// Is the quantizer on and INT8?
template <backend B>
bool is_int8(sequential_quantizer<B> const& q) {
  if (!q.enabled() || q.members().size() != 1) return false;
  element_type const& element = q.members().front().numerics().how.element;
  return element.kind == element_kind::integer && element.bits == 8;
}

template <backend B>
std::vector<float> weight_channel_amax(workspace<B>& ws, const_tensor_ref w) {
  workspace_lock<B> const held{ws};
  int const last = w.rank - 1;
  std::vector<float> amax(static_cast<std::size_t>(w.shape[last]));
  buffer<B, float> found{ws.device, amax.size()};
  ws.device.amax({w, per_axes(w, {&last, 1}), found.data(), nullptr});
  ws.device.copy_to_host(amax.data(), found.data(), amax.size() * sizeof(float));
  return amax;
}

}  // namespace detail

/// Scales every linear layer whose weight and input are INT8; all others are calibrated by max, of which notes say the
/// reason. Throws `config_conflict` where there is none, and `state_not_calibrated` without a loop or where it reaches
/// none of them.
template <backend B>
void calibrate_smoothquant(calibration<B>& c, algorithm_step const& step) {
  auto layers = scalable_layers(c, "smoothquant");
  auto const int8 = [](auto const& l) { return detail::is_int8(*l.weight) && detail::is_int8(*l.input); };
  auto const others = std::stable_partition(layers.begin(), layers.end(), int8);
  if (others == layers.begin())
    fail(error_id::config_conflict, "smoothquant: takes INT8 weights and inputs, and no layer quantizes both so; ",
         layers.front().name(), " does not");
  for (auto l = others; l != layers.end(); ++l)
    detail::leave_at_max(c, "smoothquant", l->name(), "has no INT8 weight and input");
  layers.erase(others, layers.end());

  remove_scales(c, layers);
  calibrate_weights(c);
  auto const seen = collect_statistics(c, layers, "smoothquant", false);
  if (std::none_of(seen.begin(), seen.end(), [](auto const& s) { return s.batches > 0; }))
    detail::fail_unreached("smoothquant", std::ssize(layers), " layer(s) whose inputs it scales");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (seen[i].batches == 0) {
      c.notes.push_back("smoothquant: " + layers[i].name() + " saw no data, so it is not smoothed");
      continue;
    }
    auto const weight_amax = detail::weight_channel_amax(c.home, layers[i].layer.source());
    scale_layer(c, layers[i], smoothing_scale(seen[i].amax, weight_amax, step.number("alpha")), seen[i]);
  }
}

}  // namespace mixbit
