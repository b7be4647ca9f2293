// What a recipe stores of a layer beside the codes and scales of its weight, known from its config before anything
// runs: one factor an input channel (AWQ, SmoothQuant) and the two matrices of SVDQuant's branch, in the types in which
// recipes, states and checkpoints hold them. docs/search.md says what is left out.
//
// An algorithm that finds no data for a layer, or NaN, leaves it at max: what it stores is then less.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "mixbit/calib/smoothquant.hpp"
#include "mixbit/config/algorithm_config.hpp"
#include "mixbit/model/module.hpp"

namespace mixbit {

struct side_storage {
  std::int64_t pre_quant_scale = 0;  ///< bytes: the input's; the weight's is in its codes
  std::int64_t branch = 0;           ///< bytes: down and up; their product is remade from them
  /// Do the codes depend on what the layer is shown? Layers with one weight then have codes of their own each.
  bool own_codes = false;

  std::int64_t bits() const { return 8 * (pre_quant_scale + branch); }
};

namespace detail {

/// Are the codes of every layer made from its inputs? Of a user's own method that is taken to be so.
inline bool codes_see_inputs(std::string_view method) {
  constexpr std::string_view all[] = {"awq_clip", "awq_full", "local_hessian", "gptq", "svdquant"};
  return is_own_method(method) || std::find(std::begin(all), std::end(all), method) != std::end(all);
}

template <backend B>
bool is_smoothed(recipe_quantizers<B> const& recipe) {
  auto const has_int8 = [&](quantizer_role role) {
    return std::any_of(recipe.quantizers.begin(), recipe.quantizers.end(),
                       [&](auto const& q) { return q.role() == role && is_int8(q); });
  };
  return has_int8(quantizer_role::weight) && has_int8(quantizer_role::input);
}

}  // namespace detail

/// Of a layer with this weight, in PyTorch's axis order, under a recipe whose weight quantizer is on.
template <backend B>
side_storage side_storage_of(algorithm_config const& algorithm, recipe_quantizers<B>& recipe, site_kind kind,
                             const_tensor_ref weight) {
  side_storage s;
  bool const scalable = detail::unscalable(recipe, kind, weight.rank).empty();
  for (auto const& step : algorithm.steps()) {
    bool const awq = step.method == "awq_lite" || step.method == "awq_full" || step.method == "svdquant";
    if (scalable && (awq || (step.method == "smoothquant" && detail::is_smoothed(recipe)))) {
      s.pre_quant_scale = static_cast<std::int64_t>(sizeof(float)) * weight.shape[1];
      s.own_codes = true;
    }
    s.own_codes = s.own_codes || detail::codes_see_inputs(step.method);
    if (step.method != "svdquant" || kind != site_kind::linear || weight.rank != 2) continue;
    std::int64_t const rank = std::min({step.integer("lowrank"), weight.shape[0], weight.shape[1]});
    s.branch = static_cast<std::int64_t>(size_of(weight.type)) * rank * (weight.shape[0] + weight.shape[1]);
  }
  return s;
}

}  // namespace mixbit
