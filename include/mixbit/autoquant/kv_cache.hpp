// The key/value cache as a part of a search: what it costs for so many tokens, so that a budget covers it beside the
// weights, and which format each attention's is held in.
//
//   options.kv_cache = {.tokens = 32768, .owners = {{"*.self_attn", kv_heads, head_dim}}};
//   options.module_search_spaces = {{.modules = {"*.self_attn"}, .formats = {preset("FP8_KV_CFG")}}};
//
// An owner is a module without a weight, with quantizers on keys and values (class "attention"). Its elements are those
// of its cache. It is searched where a module_search_space covers it; else its cache is paid at 16 bits an element.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/cost_model.hpp"
#include "mixbit/config/module_classes.hpp"

namespace mixbit {

/// The caches of the attentions that a pattern matches. Of a token each head has a row of keys and one of values.
struct kv_cache_owner {
  pattern modules;
  std::int64_t heads = 1, key_dim = 0;
  std::optional<std::int64_t> value_dim = std::nullopt;  ///< none: as key_dim; 0: values are not cached (a latent is)

  std::int64_t value_width() const { return value_dim.value_or(key_dim); }
  std::int64_t elements_a_token() const { return heads * (key_dim + value_width()); }
};

struct kv_cache_cost {
  /// Elements of all caches of a model: a search adds up their bits, and has room for 2^10 an element.
  static constexpr std::int64_t most_elements = std::int64_t{1} << 52;

  std::int64_t tokens = 0;  ///< of all sequences that are cached at once
  std::vector<kv_cache_owner> owners = {};

  /// The first whose pattern matches; null for a module without a cache.
  kv_cache_owner const* owner_of(std::string_view module) const {
    auto const is_its = [&](auto const& o) { return o.modules.matches(module); };
    auto const at = std::find_if(owners.begin(), owners.end(), is_its);
    return at == owners.end() ? nullptr : &*at;
  }

  /// Throws `config_value` for sizes that no cache has, and for no owners.
  void validate() const {
    constexpr std::int64_t most_tokens = std::int64_t{1} << 36, most = 1 << 16;
    if (tokens < 1 || tokens > most_tokens)
      fail(error_id::config_value, "kv_cache.tokens is ", tokens, "; it is 1 to ", most_tokens);
    if (owners.empty()) fail(error_id::config_value, "kv_cache.owners is empty: nothing says whose caches are counted");
    for (auto const& o : owners)
      if (o.heads < 1 || o.heads > most || o.key_dim < 1 || o.key_dim > most || o.value_width() < 0 ||
          o.value_width() > most || o.elements_a_token() > (1 << 22))
        fail(error_id::config_value, "kv_cache: '", o.modules.label(), "' has ", o.heads, " heads of ", o.key_dim,
             " for keys and ", o.value_width(), " for values; heads and keys are 1 to ", most, ", values 0 to ", most,
             ", and a token has 4194304 elements at most");
  }
};

namespace detail {

/// The enabled quantizer of keys or of values, or null.
template <backend B>
sequential_quantizer<B>* cache_quantizer(recipe_quantizers<B>& recipe, std::string_view leaf) {
  auto* const q = recipe.named(leaf);
  return q != nullptr && q->enabled() ? q : nullptr;
}

template <backend B>
std::int64_t cached_bits(cost_model model, sequential_quantizer<B> const* q, geometry const& cache) {
  if (q == nullptr) return 16 * cache.size();
  if (model == cost_model::modelopt)
    return static_cast<std::int64_t>(std::ceil(static_cast<double>(cache.size()) * nominal_bits(*q)));
  std::int64_t bits = stored_bits(*q, cache);
  for (auto const& m : q->members())  // a calibrated bias is one of the cache, not of a token
    if (m.bias() != nullptr && m.bias()->is_static()) bits += 32 * m.bias()->grouping(cache).group_count();
  return bits;
}

}  // namespace detail

/// Does a recipe hold a cache in other than 16 bits?
template <backend B>
bool quantizes_cache(recipe_quantizers<B>& recipe) {
  return detail::cache_quantizer(recipe, key_quantizer) != nullptr ||
         detail::cache_quantizer(recipe, value_quantizer) != nullptr;
}

/// Bits of a cache under these quantizers: keys and values each as one tensor [batch 1, heads, tokens, width], as
/// attentions show it to their quantizers, with its scales and a static bias.
template <backend B>
std::int64_t cache_bits(cost_model model, recipe_quantizers<B>& q, kv_cache_owner const& owner, std::int64_t tokens) {
  auto const bits = [&](std::string_view leaf, std::int64_t dim) {
    auto const cache = dense_geometry(dtype::bf16, {1, owner.heads, tokens, dim});
    return dim == 0 ? 0 : detail::cached_bits(model, detail::cache_quantizer(q, leaf), cache);
  };
  return bits(key_quantizer, owner.key_dim) + bits(value_quantizer, owner.value_width());
}

}  // namespace mixbit
