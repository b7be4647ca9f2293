// The algorithms "mse" and "local_hessian" over a model's layers: max first, then a search of each weight's amaxes.
//
// As in ModelOpt: sequences of quantizers keep max; with fp8_scale_sweep only static NVFP4 is searched, over the E4M3
// scales, and everything else keeps max. Where local_hessian has no Hessian for a weight (it is no linear layer, its
// width is no multiple of the block, it saw no tokens) the squared error decides, and a note says so.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/calib/input_pass.hpp"
#include "mixbit/calib/local_hessian.hpp"
#include "mixbit/calib/max_algorithm.hpp"

namespace mixbit {

namespace detail {

/// The weight quantizer whose amaxes a search may move, or null.
template <backend B>
tensor_quantizer<B>* searchable_weight(calibrated_layer<B> const& layer, bool sweep) {
  auto* const q = layer.weight.data ? layer.quantizers().find(quantizer_role::weight) : nullptr;
  if (q == nullptr || q->members().size() != 1) return nullptr;
  auto& member = q->members().front();
  auto const& n = member.numerics();
  bool const calibrated = n.amax_from == amax_source::calibration && !n.groups_from_data && member.has_amax();
  bool const plain = !n.bias && !n.rotate;
  return calibrated && plain && (!sweep || n.how.scaling == scale_rule::two_level) ? &member : nullptr;
}

/// What the quantizer casts: the layer's weight, scaled where it has a pre_quant_scale. In scratch memory at most.
template <backend B>
const_tensor_ref scaled_source(calibration<B>& c, calibrated_layer<B> const& layer) {
  return layer.quantizers().find(quantizer_role::weight)->scaled(c.home.device, c.home.scratch, layer.source());
}

inline amax_candidates candidates_of(algorithm_step const& step) {
  double const start = step.number("start_multiplier"), stop = step.number("stop_multiplier");
  if (stop < start)
    fail(error_id::config_value, "algorithm ", step.method, ": stop_multiplier ", stop, " is below start_multiplier ",
         start);
  return amax_multipliers(start, stop, step.number("step_size"));
}

/// Searches one weight; without a Hessian by squared error.
template <backend B>
void search_weight(calibration<B>& c, calibrated_layer<B> const& layer, tensor_quantizer<B>& q,
                   algorithm_step const& step, block_grams const* hessian, executor_ref threads) {
  workspace_lock<B> const held{c.home};
  B& device = c.home.device;
  const_tensor_ref const weight = scaled_source(c, layer);
  format const& how = q.numerics().how;
  bool const two_level = is_two_level(how.scaling);
  float const whole = two_level ? q.tensor_amax(device, weight) : 0.0f;
  partition const groups = q.grouping(weight);
  auto const tried = step.flag("fp8_scale_sweep") ? nvfp4_scale_amaxes(whole) : candidates_of(step);
  amax_search<B> search{c.home, weight, groups, how, q.amax(device), whole};
  squared_error<B> squares{c.home};
  std::vector<float> best;
  if (hessian) {
    local_hessian_error<B> error{device, *hessian, threads};
    best = search.best(tried, error);
  } else {
    best = search.best(tried, squares);
  }
  q.set_amax(device, groups, best);
  if (two_level) q.hold_tensor_amax(device, whole);
}

/// Why a layer's weight has no Hessian; empty where it can have one.
template <backend B>
std::string without_hessian(calibrated_layer<B> const& layer, std::int64_t block) {
  if (layer.where->layout.kind != site_kind::linear || layer.weight.rank != 2) return "it is no linear layer";
  if (layer.weight.shape[1] % block != 0)
    return concat("its width of ", layer.weight.shape[1], " is no multiple of block_size ", block);
  return {};
}

}  // namespace detail

template <backend B>
void calibrate_mse(calibration<B>& c, algorithm_step const& step) {
  calibrate_max(c);
  for (auto const& layer : c.layers)
    if (auto* const q = detail::searchable_weight(layer, step.flag("fp8_scale_sweep")))
      detail::search_weight<B>(c, layer, *q, step, nullptr, {});
}

/// Throws `state_not_calibrated` without a loop, and where none of the layers that could have a Hessian saw a token.
template <backend B>
void calibrate_local_hessian(calibration<B>& c, algorithm_step const& step) {
  calibrate_max(c);
  std::int64_t const block = step.integer("block_size");
  std::vector<tensor_quantizer<B>*> searched;
  std::vector<std::optional<block_grams>> grams(c.layers.size());
  std::vector<bool> watched(c.layers.size());
  bool wanted = false;
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    auto const& layer = c.layers[i];
    searched.push_back(detail::searchable_weight(layer, step.flag("fp8_scale_sweep")));
    if (searched.back() == nullptr) continue;
    wanted = true;
    auto const why_not = detail::without_hessian(layer, block);
    watched[i] = why_not.empty();
    if (watched[i]) grams[i].emplace(layer.weight.shape[1], block);
    else c.notes.push_back(layer.name() + ": local_hessian searches by squared error: " + why_not);
  }
  if (!wanted) return;
  executor_ref const threads = c.linalg ? c.linalg.threads() : executor_ref{};
  {
    input_pass<B> pass{c, watched, [&](std::size_t i, workspace<B>& ws, seen_input const& x) {
                         token_rows<B> const rows{ws.device, x.given};
                         grams[i]->add(threads, rows.rows());
                       }};
    c.run("local_hessian");
  }
  auto const with_hessian = std::count(watched.begin(), watched.end(), true);
  if (with_hessian > 0 &&
      std::none_of(grams.begin(), grams.end(), [](auto const& gram) { return gram && gram->tokens() > 0; }))
    detail::fail_unreached("local_hessian", with_hessian, " layer(s) whose weight it searches");
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    if (searched[i] == nullptr) continue;
    bool const blind = grams[i] && grams[i]->tokens() == 0;
    if (blind) c.notes.push_back(c.layers[i].name() + ": local_hessian saw no tokens; searched by squared error");
    if (grams[i]) grams[i]->finish();
    detail::search_weight(c, c.layers[i], *searched[i], step, grams[i] && !blind ? &*grams[i] : nullptr, threads);
    grams[i].reset();
  }
}

}  // namespace mixbit
