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

}  // namespace detail

/// Full name -> {"attributes": {...}, "amax": {"shape", "values"} or null}, in the order of the walk, of the quantizers
/// that are on. The members of a sequential quantizer are NAME.0, NAME.1 and so on.
template <backend B>
nlohmann::ordered_json quantizers_json(model<B>& m) {
  auto all = nlohmann::ordered_json::object();
  // straight into the object's vector: its own lookup is linear, and there may be thousands of quantizers
  auto& members = all.get_ref<nlohmann::ordered_json::object_t&>();
  for (auto const& module : m.modules()) {
    auto& s = *module.slots->shared_site();
    if (s.recipes.empty()) continue;
    for (auto const& q : s.quantizers().quantizers) {
      if (!q.enabled()) continue;
      for (auto const& member : q.members()) {
        nlohmann::ordered_json j = {{"attributes", attributes_to_json(member.attributes())},
                                    {"amax", detail::amax_json(member, m.device())}};
        members.nlohmann::ordered_json::object_t::Container::emplace_back(member.name(), std::move(j));
      }
    }
  }
  return all;
}

}  // namespace mixbit
