// Has a quantized module a form in a Hugging Face checkpoint? Asked here without data, so that a host learns it before
// it searches or calibrates, which takes a forward pass at least:
//
//   mixbit::search<B> search{m, options};
//   mixbit::require_hf_forms(m, search);   // every format of every group that may be given it
//
// Contract: require_hf_forms changes nothing and throws `format_value` with one line that names the format, the module
// and its quantizers. What does not throw can be exported (io/hf_checkpoint.hpp) from a source that has these modules.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/search.hpp"
#include "mixbit/io/hf_format.hpp"
#include "mixbit/io/hf_kv_cache.hpp"
#include "mixbit/io/hf_operand.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

/// The form of one module, and the quantizers that make it; `input` is null where inputs are not quantized, `then`
/// unless the weight goes through a second quantizer.
template <backend B>
struct hf_module_form {
  hf_format format;
  tensor_quantizer<B>*weight = nullptr, *then = nullptr, *input = nullptr;
  /// Those that scale their operand first, on or off; null: none does.
  sequential_quantizer<B>*scales_weight = nullptr, *scales_input = nullptr;
};

namespace detail::hf {

/// What the exported files have no place for in this version.
template <backend B>
void refuse_transforms(sequential_quantizer<B> const& q) {
  auto const refuse = [&](char const* what) {
    fail(error_id::format_value, q.path(), ": no Hugging Face form exists in this version for ", what);
  };
  if (q.has_pre_quant_scale() && q.role() != quantizer_role::input && q.role() != quantizer_role::weight)
    refuse("a pre_quant_scale");
  if (q.leaves_rotated()) refuse("rotate");
  if (!q.enabled()) return;
  for (auto const& m : q.members()) {
    if (m.numerics().rotate) refuse("rotate");
    if (m.numerics().bias) refuse("bias");
  }
}

/// `one`, `other`: those that the caller has a form for.
template <backend B>
void refuse_others(recipe_quantizers<B>& recipe, sequential_quantizer<B> const* one,
                   sequential_quantizer<B> const* other) {
  for (auto const& q : recipe.quantizers) refuse_transforms(q);
  for (auto const& q : recipe.quantizers)
    if (q.enabled() && &q != one && &q != other)
      fail(error_id::format_value, q.path(), ": no Hugging Face form exists for this quantizer in this version; ",
           "disable it to export");
}

template <backend B>
sequential_quantizer<B>* scaling_one(recipe_quantizers<B>& recipe, quantizer_role role) {
  for (auto& q : recipe.quantizers)
    if (q.role() == role && q.has_pre_quant_scale()) return &q;
  return nullptr;
}

template <backend B>
void require_place_for_scale(hf_module_form<B> const& form) {
  if (form.scales_input == nullptr || takes_pre_quant_scale(form.format.algorithm)) return;
  fail(error_id::format_value, form.scales_input->path(), ": no Hugging Face form exists for a pre_quant_scale beside ",
       name_of(form.format.algorithm), ", which loaders take without one; fold it (fold_pre_quant_scales)");
}

}  // namespace detail::hf

/// The form of a module under a recipe that has a quantizer on. Throws `format_value` where there is none.
template <backend B>
hf_module_form<B> hf_form_of(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
  auto* const weight = recipe.find(quantizer_role::weight);
  auto* const input = recipe.find(quantizer_role::input);
  detail::hf::refuse_others(recipe, weight, input);
  hf_operand const w = detail::hf::operand_of(weight), in = detail::hf::operand_of(input);
  std::optional<hf_format> form;
  if (!w.empty() && module.weight.data != nullptr) form = hf_format_of(w, in, canonical_weight(module).rank);
  if (!form)
    fail(error_id::format_value, module.name, ": no Hugging Face form exists for weight ", detail::hf::describe(w),
         " with input ", detail::hf::describe(in), "; forms exist for FP8 per tensor, FP8 per channel and token, ",
         "FP8 2-D blocks, INT8 per channel, INT4 in blocks of the last axis, such INT4 then FP8, NVFP4, MXFP8 and ",
         "MXFP4");
  hf_module_form<B> found{*form, &weight->members().front()};
  if (w.size() == 2) found.then = &weight->members().back();
  if (!in.empty()) found.input = &input->members().front();
  found.scales_weight = detail::hf::scaling_one(recipe, quantizer_role::weight);
  found.scales_input = detail::hf::scaling_one(recipe, quantizer_role::input);
  detail::hf::require_place_for_scale(found);
  return found;
}

/// The form of an attention's key/value cache; nothing where both are unquantized. Throws `format_value` where one is,
/// where both are otherwise, where caches have no name for them, and for other quantizers of the module that are on.
template <backend B>
std::optional<hf_kv_form<B>> hf_kv_form_of(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
  auto *const keys = recipe.named(key_quantizer), *const values = recipe.named(value_quantizer);
  detail::hf::refuse_others(recipe, keys, values);
  hf_operand const k = detail::hf::operand_of(keys), v = detail::hf::operand_of(values);
  if (k.empty() && v.empty()) return std::nullopt;
  auto const of_keys = hf_kv_cache_of(k), of_values = hf_kv_cache_of(v);
  if (!of_keys || of_keys != of_values)
    fail(error_id::format_value, module.name, ": no Hugging Face form exists for keys ", detail::hf::describe(k),
         " with values ", detail::hf::describe(v), "; forms exist for both FP8 per tensor, static, and both NVFP4");
  return hf_kv_form<B>{*of_keys, &keys->members().front(), &values->members().front()};
}

namespace detail::hf {

/// `format` is named first: an error of a search is about what the user listed.
template <class Call>
void require_named(std::string const& format, Call&& call) {
  try {
    call();
  } catch (error const& e) {
    if (format.empty()) throw;
    fail(e.id(), format, ": ", e.message());
  }
}

/// What is asked of a module: compressed-tensors' asks the same of its own.
struct modelopt_forms {
  template <backend B>
  static auto of_cache(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    return hf_kv_form_of(module, recipe);
  }
  template <backend B>
  static auto of_weight(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    return hf_form_of(module, recipe);
  }
};

/// `add` is called with the format of its cache, for a module that has one.
template <class Forms, backend B, class Add>
void require_form(std::string const& format, module_ref<B> const& module, recipe_quantizers<B> recipe, Add&& add) {
  require_named(format, [&] {
    if (has_kv_cache(module, recipe)) {
      auto const form = Forms::of_cache(module, recipe);
      add(form ? std::optional{form->format} : std::nullopt);
    } else if (recipe.any_acts()) {
      (void)Forms::of_weight(module, recipe);
    }
  });
}

template <class Forms, backend B>
void require_form(std::string const& format, module_ref<B> const& module, recipe_quantizers<B> recipe,
                  hf_kv_formats& caches) {
  require_form<Forms>(format, module, std::move(recipe), [&](auto const& form) { caches.add(module.name, form); });
}

/// For quantize(m, config). Throws what resolving the config throws, too.
template <class Forms, backend B>
void require_forms(model<B>& m, quantize_config const& config) {
  auto const modules = m.modules();
  auto made = configure(m, modules, config);
  hf_kv_formats caches;
  for (std::size_t i = 0; i < modules.size(); ++i)
    require_form<Forms>(config.name, modules[i], std::move(made.recipes[i]), caches);
}

/// For every choice that the search may make: each format in each layer that is not disabled, and of caches in
/// different groups any two. The search leaves those unquantized that it does not know.
template <class Forms, backend B>
void require_forms(model<B>& m, search<B> const& s) {
  hf_kv_choices caches;
  std::map<std::string_view, group_stats const*> group_of;
  for (auto const& group : s.stats())
    for (auto const& name : group.modules) group_of.emplace(name, &group);
  for (auto const& module : m.modules()) {
    auto const at = group_of.find(module.name);
    auto const require = [&](std::string const& format, recipe_quantizers<B> recipe) {
      std::string const group = at == group_of.end() ? std::string{} : at->second->name;
      require_form<Forms>(format, module, std::move(recipe),
                          [&](auto const& form) { caches.add(group, module.name, form); });
    };
    if (at == group_of.end()) {
      require({}, unquantized_recipe(m, module));
      continue;
    }
    for (auto const& c : at->second->candidates) {
      if (c.recipe < 0) require({}, unquantized_recipe(m, module));
      else require(s.formats()[static_cast<std::size_t>(c.recipe)].config.name,
                   search_recipe(m, s.formats()[static_cast<std::size_t>(c.recipe)].config, module));
    }
  }
}

/// For apply_plan(m, plan). A format that the plan holds and gives to no layer does not matter.
template <class Forms, backend B>
void require_forms(model<B>& m, quantization_plan const& plan) {
  hf_kv_formats caches;
  planned_modules const planned{plan};
  for (auto const& module : m.modules()) {
    auto recipe = planned_recipe(m, plan, planned.find(module.name), module);
    std::string const label = recipe.recipe;
    require_form<Forms>(label, module, std::move(recipe), caches);
  }
}

}  // namespace detail::hf

/// `what`: a config for quantize(), a search or a plan.
template <backend B, class What>
void require_hf_forms(model<B>& m, What const& what) {
  detail::hf::require_forms<detail::hf::modelopt_forms>(m, what);
}

}  // namespace mixbit
