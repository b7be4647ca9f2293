// What a format makes of one module of a search, and what that costs: of a layer its weight with what is stored beside
// it, of an attention its key/value cache (kv_cache.hpp).
#pragma once

#include <algorithm>
#include <optional>

#include "mixbit/autoquant/search_options.hpp"
#include "mixbit/autoquant/side_storage.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

/// Of what is searched: is it an attention, there for its cache?
template <backend B>
bool is_cache(module_ref<B> const& searched) {
  return searched.weight.data == nullptr;
}

/// Does a recipe hold a searched module's weight, or the cache of one without a weight, in other than 16 bits?
template <backend B>
bool quantizes(recipe_quantizers<B>& recipe, module_ref<B> const& module) {
  if (recipe.find(quantizer_role::weight) != nullptr) return true;
  return is_cache(module) && quantizes_cache(recipe);
}

/// Does an entry decide the weight quantizer, or is that as the module's class declares it?
inline bool names_weight(resolution const& resolved) {
  auto const& all = resolved.quantizers;
  return std::any_of(all.begin(), all.end(), [](resolved_quantizer const& q) {
    return detail::role_of(q.name) == quantizer_role::weight && q.decided_by.has_value();
  });
}

/// What a format of a search makes of a module. Throws `config_no_match` where it quantizes neither its weight nor, of
/// one without a weight, its key/value cache, and where it says nothing of a weight: a preset of caches alone would
/// stand for 8-bit integers.
template <backend B>
recipe_quantizers<B> candidate_recipe(model<B>& m, quantize_config const& format, module_ref<B> const& module) {
  auto const resolved = search_resolution(m, format, module);
  if (!is_cache(module) && !names_weight(resolved))
    fail(error_id::config_no_match, "format ", format.name, " has no entry for the weight of ", module.name, " (",
         module.class_name, "), which would be as its class declares it; combine it with one that has");
  auto q = recipe_of(m, resolved, module);
  if (!quantizes(q, module))
    fail(error_id::config_no_match, "format ", format.name, " quantizes no weight of ", module.name, " (",
         module.class_name, ")");
  return q;
}

/// Is the module without a weight, and with quantizers on keys and values that a config can turn on?
template <backend B>
bool has_cache(model<B>& m, module_ref<B> const& module) {
  if (module.weight.data != nullptr) return false;
  auto const* const placements = m.options().classes.find(module.class_name);
  auto const has = [&](std::string_view leaf) {
    return std::any_of(placements->begin(), placements->end(),
                       [&](auto const& p) { return p.name == leaf && !p.locked_off; });
  };
  return placements != nullptr && has(key_quantizer) && has(value_quantizer);
}

/// Is the module one whose cache a search counts?
template <backend B>
bool owns_cache(model<B>& m, module_ref<B> const& module, std::optional<kv_cache_cost> const& cache) {
  return cache && cache->owner_of(module.name) != nullptr && has_cache(m, module);
}

/// What tells whether two modules of a search store one thing: their weight, or the attention that owns a cache.
template <backend B>
void const* stored_thing(module_ref<B> const& module) {
  return module.weight.data != nullptr ? static_cast<void const*>(module.weight.data) : module.slots;
}

/// Elements of a module's weight, or of its cache.
template <backend B>
std::int64_t candidate_elements(search_options const& options, module_ref<B> const& module) {
  if (module.weight.data != nullptr) return module.weight.size();
  return options.kv_cache->tokens * options.kv_cache->owner_of(module.name)->elements_a_token();
}

/// Bits of a module under a format; `owns`: it is the first of its group that has its weight. Throws what
/// candidate_recipe throws.
template <backend B>
std::int64_t candidate_bits(model<B>& m, search_options const& options, quantize_config const& format,
                            module_ref<B> const& module, bool owns) {
  auto q = candidate_recipe(m, format, module);
  if (is_cache(module))
    return cache_bits(options.cost, q, *options.kv_cache->owner_of(module.name), options.kv_cache->tokens);
  const_tensor_ref const weight = canonical_weight(module);
  side_storage beside;
  if (options.cost == cost_model::exact)
    beside = side_storage_of(format.algorithm, q, module.layout.kind, weight);
  return (owns || beside.own_codes ? cost_bits(options.cost, q, weight) : 0) + beside.bits();
}

}  // namespace mixbit
