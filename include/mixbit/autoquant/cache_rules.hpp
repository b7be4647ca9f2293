// What key/value caches ask of a search: how many elements can be counted, which attentions are not, and that neither
// a group nor a space mixes caches with weights. A format of caches alone would leave the layers beside them at what
// their class has without a config, under its own name, and one of weights would leave the caches at 16 bits.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/group_candidates.hpp"

namespace mixbit {

/// Throws `config_conflict` where these of the searched modules are of both kinds, naming one of each behind `what`.
template <backend B, class... What>
void refuse_mixed(std::vector<module_ref<B>> const& searched, std::vector<std::size_t> const& some,
                  What const&... what) {
  module_ref<B> const *weight = nullptr, *cache = nullptr;
  for (std::size_t const i : some) (is_cache(searched[i]) ? cache : weight) = &searched[i];
  if (weight != nullptr && cache != nullptr)
    fail(error_id::config_conflict, what..., " the weight of ", weight->name, " and the key/value cache of ",
         cache->name, ", which have formats apart; leave one of the two out");
}

/// Throws `config_value` for caches whose bits might not fit 63 bits when they are added up.
template <backend B>
void require_countable(search_options const& options, std::vector<module_ref<B>> const& searched) {
  std::int64_t left = kv_cache_cost::most_elements;
  for (auto const& m : searched) {
    if (!is_cache(m)) continue;
    left -= candidate_elements(options, m);  // of 58 bits, after validate()
    if (left < 0)
      fail(error_id::config_value, "kv_cache: up to ", m.name, " the caches of ", options.kv_cache->tokens,
           " tokens have ", kv_cache_cost::most_elements - left, " elements; ", kv_cache_cost::most_elements,
           " can be counted");
  }
}

/// A note on the attentions that no owner's pattern matches; none where all are counted.
template <backend B>
std::optional<std::string> uncounted_caches(model<B>& m, std::vector<module_ref<B>> const& all,
                                            kv_cache_cost const& cache) {
  std::vector<std::string> names;
  for (auto const& module : all)
    if (has_cache(m, module) && cache.owner_of(module.name) == nullptr) names.push_back(module.name);
  if (names.empty()) return std::nullopt;
  return detail::concat("kv_cache: no owner's pattern matches ", names.front(), ", one of ", names.size(),
                        " attentions whose key/value caches are not counted");
}

}  // namespace mixbit
