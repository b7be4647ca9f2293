// All that a host's own kernel has to know of a layer whose weight is compressed (model/compress.hpp): the weight's
// descriptor, and what is done to the weight and the input around it.
//
//   auto const layer = describe_packed(device, slots);
//   y = kernel(x, layer.weight, *slots.packed());
//
// computes what `apply` does where
//   x is input_scale (one factor a channel), then input_rotation, then input_casts, in order, each step rounded to x's
//     type; `apply(slots, x, 0)` does all of them in place, the first quantizer of a module being its input's;
//   W is what the descriptor makes of the codes (formats/describe_tensor.hpp), then weight_casts in order;
//   y = x Wᵀ. A branch adds (x · input_scale) (up · down)ᵀ; where x has no casts, W - negative takes W's place;
//   y is then cast by output_casts.
// Codes are of the weight times weight_scale, rotated by weight_rotation, which undoes what is done to x: a kernel that
// reads codes has nothing to do for either. Codes never hold a bias: `compress` refuses weights with one.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/formats/describe_tensor.hpp"
#include "mixbit/quantizer/slots.hpp"

namespace mixbit {

/// A fake quantization beside the codes, in an operand's own type.
struct cast_description : format_description {
  std::string name;                   ///< the quantizer's
  grouping_scheme grouping;           ///< elements that share an amax
  amax_source amax_from = amax_source::calibration;
  bool groups_from_data = false;      ///< amaxes of the groups are of each call's data, `amax` then of the tensor
  /// What the groups are cast with, one each in row-major order, of the operand's unit; empty: of each call. Of inputs
  /// and outputs, whose shape is not known, one for all groups where amax_from is constant.
  std::vector<float> amax;
  std::optional<float> tensor_amax;   ///< of two levels: the tensor's own, above the groups' or not; none: of each call
  std::optional<bias_config> bias;    ///< taken off before and added after
  std::optional<rotation> rotate;     ///< in front of all of it; `back` also behind
};

template <backend B>
struct packed_layer {
  tensor_description weight;
  std::vector<float> weight_scale;        ///< one factor a channel that codes have in them; empty: none
  std::int64_t weight_rotation = 0;       ///< channels a Hadamard block that codes have in them; 0: none
  std::vector<cast_description> weight_casts;  ///< of what codes decode to: W4A8 is INT4 in blocks, then FP8
  low_rank_branch<B> const* branch = nullptr;  ///< beside the product (SVDQuant), until the next phase; null: none

  std::vector<float> input_scale;         ///< one factor a channel, also where the input is not quantized; empty: none
  std::optional<rotation> input_rotation; ///< where it is not quantized and rotated all the same
  std::vector<cast_description> input_casts, output_casts;  ///< empty: not quantized
};

namespace detail {

/// `x`: the operand's shape where that is known, else null.
template <backend B>
std::vector<float> told_amax(B& device, tensor_quantizer<B> const& q, geometry const* x) {
  switch (q.numerics().amax_from) {
    case amax_source::data: return {};
    case amax_source::constant: return x ? q.cast_amax(device, *x) : std::vector{q.numerics().constant_amax};
    default: return x ? q.cast_amax(device, *x) : q.cast_amax(device);
  }
}

/// `amax`: what was told of the groups.
template <backend B>
std::optional<float> told_tensor_amax(B& device, tensor_quantizer<B> const& q, std::vector<float> const& amax) {
  if (!is_two_level(q.numerics().how.scaling)) return {};
  if (q.holds_tensor_amax()) return q.tensor_amax(device, {});
  if (amax.empty()) return {};
  return *std::ranges::max_element(amax);
}

template <backend B>
cast_description describe_cast(B& device, tensor_quantizer<B> const& q, geometry const* x) {
  quantizer_numerics const& n = q.numerics();
  cast_description d;
  static_cast<format_description&>(d) = describe(n.how, n.groups_from_data);
  d.name = q.name();
  d.grouping = n.grouping;
  d.amax_from = n.amax_from;
  d.groups_from_data = n.groups_from_data;
  d.amax = told_amax(device, q, x);
  d.tensor_amax = told_tensor_amax(device, q, d.amax);
  d.bias = n.bias;
  d.rotate = n.rotate;
  return d;
}

/// Of the quantizers behind the first `skipped` ones; none where it is off. `x`: the operand's shape, or null.
template <backend B>
std::vector<cast_description> describe_casts(B& device, sequential_quantizer<B> const& q, std::size_t skipped = 0,
                                             geometry const* x = nullptr) {
  std::vector<cast_description> all;
  if (!q.enabled()) return all;
  for (std::size_t i = skipped; i < q.members().size(); ++i) all.push_back(describe_cast(device, q.members()[i], x));
  return all;
}

template <backend B>
void describe_weight(B& device, recipe_quantizers<B>& recipe, packed_layer<B>& d) {
  d.weight = recipe.packed->description();
  d.weight_scale = recipe.absorbed_scale;
  if (recipe.branch) d.branch = &*recipe.branch;
  auto* const q = recipe.find(quantizer_role::weight);
  if (q == nullptr) return;
  auto const& first = q->members().front();
  if (first.numerics().rotate)
    d.weight_rotation = first.numerics().rotate->block_of(recipe.packed->shape(), first.name());
  d.weight_casts = describe_casts(device, *q, 1, &recipe.packed->shape());
}

}  // namespace detail

/// Waits for the device. Throws `state_missing` for slots without a compressed weight, `state_not_calibrated` for casts
/// behind its codes that have no amax.
template <backend B>
packed_layer<B> describe_packed(B& device, quantizer_slots<B> const& slots) {
  if (slots.packed() == nullptr)
    fail(error_id::state_missing, slots.shared_site() ? slots.shared_site()->name : "these slots",
         ": no compressed weight to describe; call compress first");
  auto& recipe = slots.shared_site()->quantizers();
  packed_layer<B> d;
  detail::describe_weight(device, recipe, d);
  if (auto* const q = recipe.acting(quantizer_role::input)) {
    d.input_scale = q->pre_quant_scale(device);
    if (!q->enabled()) d.input_rotation = q->off_rotation();
    d.input_casts = detail::describe_casts(device, *q);
  }
  if (auto* const q = recipe.acting(quantizer_role::output)) d.output_casts = detail::describe_casts(device, *q);
  return d;
}

}  // namespace mixbit
