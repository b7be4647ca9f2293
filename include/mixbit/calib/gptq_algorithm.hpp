// The algorithm "gptq" over a model's layers: max, one run of the loop for the Hessians of all layers (4 bytes for each
// pair of input channels), then each weight in turn. What it makes of a weight is kept in the recipe.
//
// Inputs are seen as their quantizers leave them, behind layers whose weights are not quantized. Convolutions keep
// their max calibration, as in ModelOpt; so does a layer that saw no tokens (an expert that was never chosen), and a
// note says so. An embedding has no inputs to speak of and is refused.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/calib/gptq.hpp"
#include "mixbit/calib/input_pass.hpp"
#include "mixbit/calib/max_algorithm.hpp"
#include "mixbit/calib/weight_columns.hpp"

namespace mixbit {

namespace detail {

/// Can the layer's weight be rewritten? Throws `format_value` where its quantizer asks for what GPTQ cannot do.
template <backend B>
bool takes_gptq(calibrated_layer<B> const& layer) {
  auto const* const q = layer.weight.data ? layer.quantizers().find(quantizer_role::weight) : nullptr;
  if (q == nullptr) return false;
  if (layer.where->layout.kind == site_kind::lookup)
    fail(error_id::format_value, q->path(), ": gptq minimises a layer's output error over its inputs, and an ",
         "embedding has none; turn this quantizer off, or calibrate it by max or mse");
  if (layer.where->layout.kind != site_kind::linear || layer.weight.rank != 2) return false;
  for (auto const& member : q->members()) weight_columns<B>::require_possible(member);
  return true;
}

/// Puts the layer's quantized weight in the recipe.
template <backend B>
void rewrite_weight(calibration<B>& c, calibrated_layer<B> const& layer, input_gram& gram,
                    gptq_options const& options) {
  workspace_lock<B> const held{c.home};
  B& device = c.home.device;
  auto& q = *layer.quantizers().find(quantizer_role::weight);
  const_tensor_ref const source = q.scaled(device, c.home.scratch, layer.source());
  std::vector<float> values = fetch_floats(device, source);
  weight_columns<B> columns{device, q, source};
  auto const w = dense_matrix(values.data(), source.shape[0], source.shape[1]);
  auto const outcome = gptq(c.linalg, w, gram.hessian(), options, columns);
  for (auto const& note : outcome.notes) c.notes.push_back(layer.name() + ": gptq: " + note);
  auto& kept = layer.quantizers().weight.emplace(device, source);
  store_floats(device, kept.view(), values);
  layer.quantizers().absorb_scale(device, q);
}

}  // namespace detail

/// Throws `state_missing` without a linalg, `format_value` for a weight that GPTQ cannot take, `config_conflict` where
/// there is no weight to rewrite, and `state_not_calibrated` where no layer saw a token.
template <backend B>
void calibrate_gptq(calibration<B>& c, algorithm_step const& step) {
  require_linalg(c.linalg, "gptq");
  std::vector<std::optional<input_gram>> grams(c.layers.size());
  std::vector<bool> taken(c.layers.size());
  for (std::size_t i = 0; i < c.layers.size(); ++i)
    if ((taken[i] = detail::takes_gptq(c.layers[i]))) grams[i].emplace(c.layers[i].weight.shape[1]);
  auto const count = std::count(taken.begin(), taken.end(), true);
  if (count == 0) fail(error_id::config_conflict, "gptq: no linear layer has a weight quantizer that is on");
  calibrate_max(c);
  {
    input_pass<B> pass{c, taken, [&](std::size_t i, workspace<B>& ws, seen_input const& x) {
                         token_rows<B> const rows{ws.device, x.quantized};
                         grams[i]->add(c.linalg, rows.rows());
                       }};
    c.run("gptq");
  }
  if (std::none_of(grams.begin(), grams.end(), [](auto const& gram) { return gram && gram->tokens() > 0; }))
    detail::fail_unreached("gptq", count, " layer(s) with a weight to rewrite");
  gptq_options const options{step.number("perc_damp"), step.integer("block_size"), step.flag("activation_order")};
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    if (!grams[i]) continue;
    if (grams[i]->tokens() == 0)
      c.notes.push_back(c.layers[i].name() + ": gptq saw no tokens; its weight is rounded to nearest");
    else
      detail::rewrite_weight(c, c.layers[i], *grams[i], options);
    grams[i].reset();
  }
}

}  // namespace mixbit
