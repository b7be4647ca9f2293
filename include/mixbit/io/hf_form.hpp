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
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/search.hpp"
#include "mixbit/io/hf_format.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

/// The form of one module, and the quantizers that make it; `input` is null where inputs are not quantized.
template <backend B>
struct hf_module_form {
  hf_format format;
  tensor_quantizer<B>*weight = nullptr, *input = nullptr;
};

namespace detail::hf {

/// What the exported files have no place for in this version.
template <backend B>
void refuse_transforms(sequential_quantizer<B> const& q) {
  auto const refuse = [&](char const* what) {
    fail(error_id::format_value, q.path(), ": no Hugging Face form exists in this version for ", what);
  };
  if (q.has_pre_quant_scale()) refuse("a pre_quant_scale");
  if (q.transforms()) refuse("rotate");
  if (!q.enabled()) return;
  for (auto const& m : q.members()) {
    if (m.numerics().rotate) refuse("rotate");
    if (m.numerics().bias) refuse("bias");
  }
}

/// Of a quantizer that is off, nothing.
template <backend B>
tensor_quantizer<B>* only_member(sequential_quantizer<B>* q) {
  if (q == nullptr) return nullptr;
  if (q->members().size() != 1)
    fail(error_id::format_value, q->path(), ": no Hugging Face form exists in this version for a sequence of ",
         q->members().size(), " quantizers");
  return &q->members().front();
}

}  // namespace detail::hf

/// The form of a module under a recipe that has a quantizer on. Throws `format_value` where there is none.
template <backend B>
hf_module_form<B> hf_form_of(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
  auto* const weight = recipe.find(quantizer_role::weight);
  auto* const input = recipe.find(quantizer_role::input);
  for (auto const& q : recipe.quantizers) detail::hf::refuse_transforms(q);
  for (auto const& q : recipe.quantizers)
    if (q.enabled() && (&q != weight && &q != input))
      fail(error_id::format_value, q.path(), ": no Hugging Face form exists for this quantizer in this version; ",
           "disable it to export");
  hf_module_form<B> found{{}, detail::hf::only_member(weight), detail::hf::only_member(input)};
  std::optional<quantizer_numerics> w, in;
  if (found.weight != nullptr) w = found.weight->numerics();
  if (found.input != nullptr) in = found.input->numerics();
  std::optional<hf_format> form;
  if (w && module.weight.data != nullptr) form = hf_format_of(*w, in, canonical_weight(module).rank);
  if (!form)
    fail(error_id::format_value, module.name, ": no Hugging Face form exists for weight ", detail::hf::describe(w),
         " with input ", detail::hf::describe(in), "; forms exist for FP8 per tensor, FP8 per channel and token, ",
         "FP8 2-D blocks, INT8 per channel, INT4 in blocks of the last axis, NVFP4, MXFP8 and MXFP4");
  found.format = *form;
  return found;
}

namespace detail::hf {

/// `format` is named first: an error of a search is about what the user listed.
template <backend B>
void require_form(std::string const& format, module_ref<B> const& module, recipe_quantizers<B> recipe) {
  if (!recipe.any_acts()) return;
  try {
    hf_form_of(module, recipe);
  } catch (error const& e) {
    if (format.empty()) throw;
    fail(e.id(), format, ": ", e.message());
  }
}

}  // namespace detail::hf

/// For quantize(m, config). Throws what resolving the config throws, too.
template <backend B>
void require_hf_forms(model<B>& m, quantize_config const& config) {
  auto const modules = m.modules();
  auto made = configure(m, modules, config);
  for (std::size_t i = 0; i < modules.size(); ++i)
    detail::hf::require_form(config.name, modules[i], std::move(made.recipes[i]));
}

/// For every choice that the search may make: each format in each layer that is not disabled.
template <backend B>
void require_hf_forms(model<B>& m, search<B> const& s) {
  auto const modules = m.modules();
  for (auto const& group : s.stats())
    for (auto const& c : group.candidates) {
      if (c.recipe < 0) continue;
      auto const& format = s.formats()[static_cast<std::size_t>(c.recipe)].config;
      for (auto const& module : modules)
        if (std::find(group.modules.begin(), group.modules.end(), module.name) != group.modules.end())
          detail::hf::require_form(format.name, module, search_recipe(m, format, module));
    }
}

/// For apply_plan(m, plan). A format that the plan holds and gives to no layer does not matter.
template <backend B>
void require_hf_forms(model<B>& m, quantization_plan const& plan) {
  for (auto const& module : m.modules()) {
    auto recipe = detail::planned_recipe(m, plan, module);
    std::string const label = recipe.recipe;
    detail::hf::require_form(label, module, std::move(recipe));
  }
}

}  // namespace mixbit
