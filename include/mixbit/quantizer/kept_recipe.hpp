// What a calibration has made of a recipe, in host memory and apart from any model: to be put into a file, and to be
// taken up by a recipe of the same config that has not been calibrated.
//
// Amaxes with their groups and the tensor's own where a search left it, static biases, pre_quant_scales, attributes
// that a calibration has changed, and the weight and the branch that an algorithm has put beside the host's. Not kept:
// how many values were left out of a calibration, which notes have said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// A dense tensor on the host.
struct kept_tensor {
  geometry shape;
  std::vector<std::byte> bytes;
};

/// One tensor quantizer; empty where it has nothing of its own, as dynamic ones.
struct kept_member {
  partition groups, bias_groups;
  std::vector<float> amax, bias;
  std::optional<float> tensor_amax;
};

struct kept_quantizer {
  std::string leaf;
  std::vector<quantizer_attribute_config> attributes;  ///< empty: as the config said them
  std::vector<float> pre_quant_scale;
  std::vector<kept_member> members;
};

struct kept_branch {
  kept_tensor down, up, negative;
};

struct kept_recipe {
  std::string module, recipe;  ///< whose it is, and under which label; an empty label outside a search
  std::vector<kept_quantizer> quantizers;
  std::optional<kept_tensor> weight;
  std::vector<float> absorbed_scale;
  std::optional<kept_branch> branch;
};

namespace detail {

template <backend B>
kept_tensor kept(held_tensor<B> const& held, B& device) {
  auto const view = held.view();
  kept_tensor k{view, std::vector<std::byte>(static_cast<std::size_t>(view.bytes()))};
  k.shape.where = mixbit::device::cpu;
  if (!k.bytes.empty()) device.copy_to_host(k.bytes.data(), view.data, k.bytes.size());
  return k;
}
template <backend B>
held_tensor<B> held(kept_tensor const& k, B& device) {
  geometry shape = k.shape;
  shape.where = B::place;
  held_tensor<B> to{device, shape};
  if (!k.bytes.empty()) device.copy_from_host(to.view().data, k.bytes.data(), k.bytes.size());
  return to;
}

template <backend B>
kept_member kept(tensor_quantizer<B> const& q, B& device) {
  kept_member k;
  if (auto const* const bias = q.bias(); bias != nullptr && bias->is_static() && bias->has_value()) {
    k.bias_groups = bias->groups();
    k.bias = bias->values();
  }
  if (!q.has_amax()) return k;
  k.groups = q.groups();
  k.amax = q.amax(device);
  if (q.holds_tensor_amax()) k.tensor_amax = q.tensor_amax(device, {});
  return k;
}
template <backend B>
void take_up(tensor_quantizer<B>& q, kept_member const& k, B& device) {
  if (!k.bias.empty() && q.bias() != nullptr) q.bias()->set(device, k.bias_groups, k.bias);
  if (k.amax.empty()) return;
  q.set_amax(device, k.groups, k.amax);
  if (k.tensor_amax) q.hold_tensor_amax(device, *k.tensor_amax);
}

template <backend B>
void take_up(sequential_quantizer<B>& q, kept_quantizer const& k, B& device, numerics_options const& numerics) {
  for (auto& m : q.members()) m.forget();
  if (!k.attributes.empty()) {
    if (k.attributes.size() != q.attributes().size())
      fail(error_id::file_content, q.path(), ": what was kept has ", k.attributes.size(), " attribute set(s), not ",
           q.attributes().size());
    std::vector<std::size_t> unready;
    for (std::size_t i = 0, place = 0; i < k.attributes.size(); ++i)
      if (q.attributes()[i].enable && !q.members()[place++].ready()) unready.push_back(i);
    auto next = unready.begin();
    q.change_unready([&](quantizer_attribute_config& a) { a = k.attributes[*next++]; }, numerics);
  }
  if (k.members.size() != q.members().size())
    fail(error_id::file_content, q.path(), ": what was kept has ", k.members.size(), " quantizer(s), not ",
         q.members().size());
  q.set_pre_quant_scale(device, k.pre_quant_scale);
  for (std::size_t i = 0; i < k.members.size(); ++i) take_up(q.members()[i], k.members[i], device);
}

/// Is it a branch of a layer with this weight? Its product runs through the host's op.
inline bool fits(kept_branch const& b, geometry const& weight) {
  auto const &down = b.down.shape, &up = b.up.shape;
  return weight.rank == 2 && down.rank == 2 && up.rank == 2 && down.shape[1] == weight.shape[1] &&
         up.shape[0] == weight.shape[0] && up.shape[1] == down.shape[0] && down.type == up.type &&
         b.negative.shape.same_shape(weight) && b.negative.shape.type == weight.type;
}

}  // namespace detail

/// Waits for the device.
template <backend B>
kept_recipe keep_recipe(recipe_quantizers<B> const& recipe, std::string module, B& device) {
  kept_recipe k{std::move(module), recipe.recipe, {}, {}, recipe.absorbed_scale, {}};
  for (auto const& q : recipe.quantizers) {
    auto& kept = k.quantizers.emplace_back(kept_quantizer{q.leaf(), {}, q.pre_quant_scale(device), {}});
    if (q.attributes() != q.configured()) kept.attributes = q.attributes();
    for (auto const& m : q.members()) kept.members.push_back(detail::kept(m, device));
  }
  if (recipe.weight) k.weight = detail::kept(*recipe.weight, device);
  if (auto const& b = recipe.branch)
    k.branch = {detail::kept(b->down, device), detail::kept(b->up, device), detail::kept(b->negative, device)};
  return k;
}

/// Makes of a recipe of the same config what it was when it was kept. `weight` is the host's, in PyTorch's axis order.
/// Throws `file_content` where it has other quantizers, or a weight or branch of another shape, and what setting values
/// throws.
template <backend B>
void take_up_recipe(recipe_quantizers<B>& recipe, kept_recipe const& k, const_tensor_ref weight, B& device,
                    numerics_options const& numerics) {
  auto const same = [](auto const& q, auto const& kept) { return q.leaf() == kept.leaf; };
  if (!std::equal(recipe.quantizers.begin(), recipe.quantizers.end(), k.quantizers.begin(), k.quantizers.end(), same))
    fail(error_id::file_content, k.module, ": what was kept is of other quantizers than the module has");
  if (k.weight && (!k.weight->shape.same_shape(weight) || k.weight->shape.type != weight.type))
    fail(error_id::file_content, k.module, ": the 'weight' that was kept is ", to_string(k.weight->shape),
         ", and the layer's ", to_string(weight));
  if (k.branch && !detail::fits(*k.branch, weight))
    fail(error_id::file_content, k.module, ": the 'branch' that was kept is ", to_string(k.branch->up.shape), " · ",
         to_string(k.branch->down.shape), " and ", to_string(k.branch->negative.shape), ", and the layer's weight ",
         to_string(weight));
  for (std::size_t i = 0; i < k.quantizers.size(); ++i)
    detail::take_up(recipe.quantizers[i], k.quantizers[i], device, numerics);
  if (k.weight) recipe.weight.emplace(detail::held<B>(*k.weight, device));
  if (k.weight) recipe.absorbed_scale = k.absorbed_scale;
  if (auto const& b = k.branch)
    recipe.branch.emplace(low_rank_branch<B>{detail::held<B>(b->down, device), detail::held<B>(b->up, device),
                                             detail::held<B>(b->negative, device)});
}

}  // namespace mixbit
