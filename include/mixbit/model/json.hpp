// quantizers.json: what every enabled quantizer is and what it was calibrated to. The one header of this layer that
// touches JSON.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "mixbit/config/json.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/model/model.hpp"

namespace mixbit {

namespace detail {

/// {"shape": [...], "values": [...]} with the shape that ModelOpt gives an amax; null where there is none: dynamic
/// quantizers take theirs from each call's data, and static ones have none before they are calibrated.
template <backend B>
nlohmann::ordered_json amax_json(tensor_quantizer<B> const& q, B& device) {
  quantizer_numerics const& n = q.numerics();
  if (n.amax_from == amax_source::constant)
    return {{"shape", nlohmann::ordered_json::array()}, {"values", {n.constant_amax}}};
  if (n.amax_from == amax_source::data || !q.has_amax()) return nullptr;
  geometry rank_only;
  rank_only.rank = q.groups().rank;
  auto const shape = amax_shape_of(rank_only, q.groups(), n.calibrated().blocks);
  auto sizes = nlohmann::ordered_json::array();
  for (auto const size : shape.sizes()) sizes.push_back(size);
  return {{"shape", std::move(sizes)}, {"values", q.amax(device)}};
}

/// What a quantizer is calibrated to; a bias only where it has one.
template <backend B>
nlohmann::ordered_json state_json(tensor_quantizer<B> const& q, B& device) {
  nlohmann::ordered_json j = {{"attributes", attributes_to_json(q.attributes())}, {"amax", amax_json(q, device)}};
  if (auto const* const bias = q.bias(); bias != nullptr && bias->is_static()) {
    auto sizes = nlohmann::ordered_json::array();
    for (int a = 0; a < bias->groups().rank; ++a) sizes.push_back(bias->groups().groups[a]);
    j["bias"] = {{"shape", std::move(sizes)}, {"values", bias->values()}};
  }
  return j;
}

}  // namespace detail

/// Full name -> {"attributes": {...}, "amax": {"shape", "values"} or null, "bias": {"shape", "values"} of a static
/// affine quantizer, "pre_quant_scale": [...] where there is one}, in the order of the walk, of the quantizers that are
/// on or have a pre_quant_scale. The members of a sequential quantizer are NAME.0, NAME.1 and so on; the first has the
/// scale.
template <backend B>
nlohmann::ordered_json quantizers_json(model<B>& m) {
  auto all = nlohmann::ordered_json::object();
  // straight into the object's vector: its own lookup is linear, and there may be thousands of quantizers
  auto& members = all.get_ref<nlohmann::ordered_json::object_t&>();
  for (auto const& module : m.modules()) {
    auto& s = *module.slots->shared_site();
    if (s.recipes.empty()) continue;
    for (auto const& q : s.quantizers().quantizers) {
      auto const first = static_cast<std::ptrdiff_t>(members.size());
      auto const add = [&](std::string const& name, nlohmann::ordered_json j) {
        members.nlohmann::ordered_json::object_t::Container::emplace_back(name, std::move(j));
      };
      if (q.enabled())
        for (auto const& member : q.members()) add(member.name(), detail::state_json(member, m.device()));
      else if (q.has_pre_quant_scale())
        add(q.path(), {{"attributes", attributes_to_json(q.attributes().front())}, {"amax", nullptr}});
      if (q.has_pre_quant_scale())
        std::next(members.begin(), first)->second["pre_quant_scale"] = q.pre_quant_scale(m.device());
    }
  }
  return all;
}

}  // namespace mixbit
