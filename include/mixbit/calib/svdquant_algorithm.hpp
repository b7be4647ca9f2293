// SVDQuant (Li et al., 2024) as ModelOpt computes it: what a weight's largest singular values hold goes into a low-rank
// branch that stays unquantized, and only the rest of the weight is quantized. The scales that move outliers from
// inputs into the weight come before (AWQ's, set as pre_quant_scale); max comes after.
#pragma once

#include <algorithm>
#include <vector>

#include "mixbit/calib/awq_lite.hpp"
#include "mixbit/calib/host_floats.hpp"
#include "mixbit/calib/max_algorithm.hpp"

namespace mixbit {

namespace detail {

/// Rounded to the type that holds them, so that what is subtracted from the weight is what the branch adds.
template <backend B>
held_tensor<B> held_floats(B& device, dtype type, std::int64_t rows, std::int64_t columns, std::vector<float>& values) {
  geometry shape = dense_geometry(type, {rows, columns});
  shape.where = B::place;
  held_tensor<B> held{device, shape};
  store_floats(device, held.view(), values);
  values = fetch_floats(device, held.view());
  return held;
}

/// Splits the weight of one layer.
template <backend B>
void split_weight(calibration<B>& c, calibrated_layer<B> const& layer, sequential_quantizer<B>& q, std::int64_t rank) {
  workspace_lock<B> const held{c.home};
  B& device = c.home.device;
  const_tensor_ref const source = q.scaled(device, c.home.scratch, layer.source());
  std::int64_t const rows = source.shape[0], columns = source.shape[1], most = std::min(rows, columns);
  if (rank > most)
    c.notes.push_back(concat(layer.name(), ": svdquant: lowrank ", rank, " of a weight of rank ", most, " at most"));
  rank = std::min(rank, most);
  std::vector<float> weight = fetch_floats(device, source);
  std::vector<double> const wide(weight.begin(), weight.end());
  low_rank_factors const found = c.linalg.low_rank(dense_matrix(wide.data(), rows, columns), rank);
  std::vector<float> a(found.right.begin(), found.right.end()), b(found.left.begin(), found.left.end());
  auto down = held_floats(device, source.type, rank, columns, a), up = held_floats(device, source.type, rows, rank, b);
  std::vector<float> product(weight.size(), 0.0f);
  c.linalg.multiply_add(-1.0f, dense_matrix<float const>(b.data(), rows, rank),
                        dense_matrix<float const>(a.data(), rank, columns), factor::as_is,
                        dense_matrix(product.data(), rows, columns));
  auto negative = held_floats(device, source.type, rows, columns, product);
  for (std::size_t i = 0; i < weight.size(); ++i) weight[i] += product[i];
  auto& recipe = layer.quantizers();
  auto rest = held_floats(device, source.type, rows, columns, weight);
  recipe.weight.emplace(std::move(rest));
  recipe.branch.emplace(low_rank_branch<B>{std::move(down), std::move(up), std::move(negative)});
  recipe.absorb_scale(device, q);
}

/// Throws `format_value` for a rotation, which the branch would not see.
template <backend B>
bool takes_branch(calibrated_layer<B> const& layer) {
  auto const* const q = layer.weight.data ? layer.quantizers().find(quantizer_role::weight) : nullptr;
  if (layer.quantizers().branch)
    fail(error_id::config_conflict, layer.name(), ": svdquant: an earlier step has split this weight already");
  if (q == nullptr || layer.where->layout.kind != site_kind::linear || layer.weight.rank != 2) return false;
  for (auto const& each : layer.quantizers().quantizers)
    for (auto const& member : each.members())
      if (member.numerics().rotate)
        fail(error_id::format_value, member.name(), ": svdquant splits a weight that is not rotated");
  return true;
}

}  // namespace detail

/// Moves the `rank` largest singular values of each linear weight whose quantizer is on into a branch, and calibrates
/// by max what is left. The weight is what the recipe holds, under the quantizer's pre_quant_scale. Throws
/// `state_missing` without a linalg.
template <backend B>
void split_weights(calibration<B>& c, std::int64_t rank) {
  require_linalg(c.linalg, "svdquant");
  std::vector<bool> takes;
  for (auto const& layer : c.layers) takes.push_back(detail::takes_branch(layer));
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    if (!takes[i]) continue;
    auto const& layer = c.layers[i];
    detail::split_weight(c, layer, *layer.quantizers().find(quantizer_role::weight), rank);
    for (auto& q : layer.quantizers().quantizers)
      if (q.role() == quantizer_role::input)
        for (auto& member : q.members())
          if (member.needs_calibration()) member.forget();
  }
  calibrate_max(c);
}

/// awq_lite, whose scales move outliers into the weight, then `split_weights`.
template <backend B>
void calibrate_svdquant(calibration<B>& c, algorithm_step const& step) {
  require_linalg(c.linalg, "svdquant");
  calibrate_awq_lite(c, algorithm_step{"awq_lite"});
  split_weights(c, step.integer("lowrank"));
}

}  // namespace mixbit
