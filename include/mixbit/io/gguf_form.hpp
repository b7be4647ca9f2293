// Has a quantized module a form in a GGUF file, and the step that gives it one: scales that float16 holds.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "mixbit/io/gguf_format.hpp"
#include "mixbit/model/postprocess.hpp"

namespace mixbit {

namespace detail::gguf {

/// The weight quantizer that acts on a module, and the type that holds it; throws `format_value` where there is none.
template <backend B>
struct module_form {
  tensor_quantizer<B>* weight = nullptr;
  gguf_type type = gguf_type::f32;

  module_form(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    for (auto const& q : recipe.quantizers) refuse_what_has_no_place(q);
    if (recipe.branch)
      fail(error_id::format_value, module.name, ": svdquant computes a branch beside this weight, and GGUF has no ",
           "place for it");
    auto* const q = recipe.find(quantizer_role::weight);
    std::optional<gguf_type> form;
    if (q != nullptr && q->members().size() == 1) {
      weight = &q->members().front();
      form = gguf_type_of(weight->numerics(), canonical_weight(module).rank);
    }
    if (!form)
      fail(error_id::format_value, module.name, ": no type of GGUF holds weight ",
           weight == nullptr ? "quantizers in sequence" : hf::describe({weight->numerics()}), " exactly; Q8_0 and Q4_0",
           " hold int8 and int4 in static blocks of 32 of the last axis, MXFP4 E2M1 in MX blocks of 32, NVFP4 E2M1 in ",
           "blocks of 16 with E4M3 scales");
    type = *form;
  }

 private:
  static void refuse_what_has_no_place(sequential_quantizer<B> const& q) {
    auto const refuse = [&](auto const&... what) { fail(error_id::format_value, q.path(), ": GGUF has no ", what...); };
    if (q.has_pre_quant_scale()) refuse("place for a pre_quant_scale; fold it (fold_pre_quant_scales) or take it off");
    if (q.transforms()) refuse("place for a rotation");
    if (!q.enabled()) return;
    if (q.role() != quantizer_role::weight) refuse("place for this quantizer: it holds weights; disable it to export");
    for (auto const& m : q.members())
      if (m.numerics().rotate || m.numerics().bias) refuse("place for a rotation or a bias");
  }
};

/// Throws `format_value` for rows that are no whole blocks.
inline void require_whole_blocks(std::string const& module, gguf_type type, std::int64_t row) {
  auto const info = gguf_info(type);
  if (row % info.block != 0)
    fail(error_id::format_value, module, ": rows of ", row, " elements are no whole blocks: ", info.name,
         " takes a multiple of ", info.block);
}

/// The recipe by which a module is quantized, or null.
template <backend B>
recipe_quantizers<B>* acting_recipe(module_ref<B> const& module) {
  auto& s = *module.slots->shared_site();
  auto* const recipe = s.recipes.empty() ? nullptr : &s.quantizers();
  return recipe != nullptr && recipe->any_acts() ? recipe : nullptr;
}

}  // namespace detail::gguf

/// Moves the calibrated amaxes of weights that Q8_0 or Q4_0 would hold to the nearest whose scale is a float16, so that
/// the model simulates what the file will hold. Returns how many quantizers that are. Throws `state_nested` for one
/// whose scale is being learned; nothing is changed then.
template <backend B>
int round_gguf_scales(model<B>& m) {
  int count = 0;
  std::unordered_map<std::string, gguf_type> types;
  for (auto const& module : m.modules()) {
    auto* const recipe = detail::gguf::acting_recipe(module);
    auto* const q = recipe == nullptr ? nullptr : recipe->find(quantizer_role::weight);
    if (q == nullptr || q->members().size() != 1 || !q->members().front().has_amax()) continue;
    auto const type = gguf_type_of(q->members().front().numerics(), canonical_weight(module).rank);
    if (!type || !has_half_scales(*type)) continue;
    q->refuse_learning("round_gguf_scales");
    types[q->path()] = *type;
  }
  for (gguf_type const type : {gguf_type::q8_0, gguf_type::q4_0}) {
    auto const is_of = [&](std::string_view path) {
      auto const at = types.find(std::string{path});
      return at != types.end() && at->second == type;
    };
    if (std::none_of(types.begin(), types.end(), [&](auto const& t) { return t.second == type; })) continue;
    count += postprocess_amax(m, pattern{is_of}, [type](float amax) { return half_scale_amax(type, amax); });
  }
  return count;
}

}  // namespace mixbit
