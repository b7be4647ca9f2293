// The key/value cache in a compressed-tensors checkpoint: a scale for an attention's keys and one for its values, and
// `kv_cache_scheme` of the config for all of them. vLLM and the compressed-tensors package read these.
//
//   keys and values            NAME.k_scale, NAME.v_scale (float32 [1])   kv_cache_scheme
//   E4M3, one static scale     amax/448                                   float, 8 bits, symmetric, per tensor, static
//
// NAME is the attention module, as in ModelOpt's form (io/hf_kv_cache.hpp), where the scales lie beside projections.
// Everything else is refused by name: vLLM knows this cache and one with a scale a head.
#pragma once

#include <optional>

#include "mixbit/io/ct_form.hpp"
#include "mixbit/io/hf_kv_cache.hpp"
#include "mixbit/io/json.hpp"

namespace mixbit {

/// The form of an attention's cache; nothing where keys and values are unquantized. Throws `format_value` where one of
/// them is, for other numbers than the table's, and for further quantizers of the module that are on.
template <backend B>
std::optional<hf_kv_form<B>> ct_kv_form_of(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
  auto *const keys = detail::hf::named_quantizer(recipe, "k_bmm_quantizer"),
             *const values = detail::hf::named_quantizer(recipe, "v_bmm_quantizer");
  for (auto const& q : recipe.quantizers) detail::ct::refuse_what_has_no_place(q, &q == keys || &q == values);
  hf_operand const k = detail::hf::operand_of(keys), v = detail::hf::operand_of(values);
  if (k.empty() && v.empty()) return std::nullopt;
  if (hf_kv_cache_of(k) != hf_kv_cache::fp8 || hf_kv_cache_of(v) != hf_kv_cache::fp8)
    fail(error_id::format_value, module.name, ": compressed-tensors has no form in this version for keys ",
         detail::hf::describe(k), " with values ", detail::hf::describe(v), "; loaders take FP8 (E4M3) per tensor, ",
         "static, for both");
  return hf_kv_form<B>{hf_kv_cache::fp8, &keys->members().front(), &values->members().front()};
}

/// `kv_cache_scheme`; null without a quantized cache.
inline json_document ct_kv_cache_scheme(std::optional<hf_kv_cache> format) {
  if (!format) return nullptr;
  return {{"num_bits", 8},          {"type", "float"}, {"symmetric", true}, {"strategy", "tensor"},
          {"group_size", nullptr}, {"dynamic", false}};
}

}  // namespace mixbit
